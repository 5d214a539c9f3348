"""`python -m train.tables`: trains what is missing, measures it once, and says what was not run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.train import tiny
from train import experiments, measurements, processes, table_report, tables
from train.config import Args
from train.experiments import Experiment, Experiments
from train.measurements import Figures
from train.paper import ROWS, Budget

SMALL = ["--budget", "4steps", "--width", "2", "--blocks", "1", "--patch-size", "16"]
SMALL += ["--batch-size", "8"]
CONV, CONVT = (next(row for row in ROWS if row.label == f"{n}-DnCNN") for n in ("Conv", "ConvT"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images to train on, and others to measure on."""
    place = tmp_path_factory.mktemp("images")
    return tiny.folder(place / "train", [(130, 132)] * 5), tiny.folder(
        place / "test", [(24, 30)] * 3
    )


def run(out: Path, folders: tuple[Path, Path], *arguments: str) -> int:
    train, test = folders
    sources = ["--train", str(train), "--test", f"Set12={test}", f"BSD68={test}:2"]
    return tables.main(["--out", str(out), "--table", "4", *sources, *SMALL, *arguments])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, folders: tuple[Path, Path]) -> Path:
    """A row with two seeds."""
    out = tmp_path_factory.mktemp("tables") / "out"
    assert run(out, folders, "--rows", "Conv-DnCNN", "--seeds", "2") == 0
    return out


@pytest.mark.slow
def test_what_is_run_and_what_is_not(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    rows = {row["row"]: row for row in results["rows"] if row["table"] == 4}
    assert rows["DnCNN"]["ours"] == []
    first, second = rows["Conv-DnCNN"]["ours"]
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["sha256"] != second["sha256"]
    assert first["done"] and first["steps_done"] == first["steps"] == 4
    assert first["hours"] >= 0 and first["data"]["images"] == 1
    assert first["starts"][0].keys() == {"date", "commit", "versions", "hardware"}
    figures = first["sets"]["BSD68"]
    assert figures["of"] == len(figures["images"]) == 2
    assert figures["psnr"] == pytest.approx(
        np.mean([image["psnr"] for image in figures["images"].values()])
    )
    text = (done / "tables.md").read_text()
    assert "| DnCNN | Set12 | 30.43 | none | not run | not run |" in text
    mean = np.mean([run["sets"]["Set12"]["psnr"] for run in (first, second)])
    assert f"| Conv-DnCNN | Set12 | 30.64 | none | not run | {mean:.2f} ± " in text


def test_rows_of_one_configuration_share_a_run() -> None:
    keys = {row.label: Experiment(row, Budget(), 1).key for row in ROWS if row.table < 5}
    same = {label for label, key in keys.items() if key == keys["Converse-DnCNN"]}
    assert same == {
        "initialization: Gauss.+Softmax",
        "kernel size: 5x5",
        "padding mode: Circular",
        "padding size: 4x4",
        "denoising: Y",
        "Converse-DnCNN",
    }
    other = Experiment(CONV, Budget(steps=5), 1).key
    assert len({other, Experiment(CONV, Budget(), 1).key, Experiment(CONV, Budget(), 2).key}) == 3


def test_hours_leave_halts_out(tmp_path: Path) -> None:
    of, experiment = Experiments(tmp_path), Experiment(CONV, Budget(steps=50), 0)
    (tmp_path / experiment.key).mkdir()
    (tmp_path / f"{experiment.key}.json").write_text(json.dumps({"batch_size": 8}))
    rates = (1.0, 20.0, 20.0, 0.01, 25.0)  # compiling, and halted before the fourth line
    lines = [{"step": 10 * (k + 1), "images_per_second": rate} for k, rate in enumerate(rates)]
    log = tmp_path / experiment.key / "metrics.jsonl"
    log.write_text("\n".join(map(json.dumps, lines)))
    assert of.hours(experiment) == pytest.approx(50 * 8 / 20 / 3600)


@pytest.fixture
def all_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where anything is trained or measured."""

    def never(*args: object, **options: object) -> None:
        raise AssertionError("done already")

    monkeypatch.setattr(experiments, "train", never)
    monkeypatch.setattr(measurements, "evaluate", never)


@pytest.mark.slow
@pytest.mark.usefixtures("all_done")
def test_nothing_is_done_twice(done: Path, folders: tuple[Path, Path]) -> None:
    before = (done / "results.json").read_text()
    assert run(done, folders, "--rows", "Conv-DnCNN", "--seeds", "2") == 0
    assert (done / "results.json").read_text() == before


@pytest.mark.slow
@pytest.mark.usefixtures("all_done")
def test_results_made_elsewhere_count_as_done(
    done: Path,
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = (done / "results.json").read_text()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "results.json").write_text(results)
    assert run(elsewhere, folders, "--rows", "Conv-DnCNN", "--seeds", "2") == 0
    assert json.loads((elsewhere / "results.json").read_text()) == json.loads(results)
    assert (elsewhere / "tables.md").read_text() == (done / "tables.md").read_text()

    # Without the weights nothing new can be measured.
    capsys.readouterr()
    (elsewhere / "measured").rename(elsewhere / "gone")
    (elsewhere / "results.json").unlink()
    assert run(elsewhere, folders, "--rows", "Conv-DnCNN", "--test", f"Set12={folders[1]}") == 0
    said = capsys.readouterr().err
    assert "Conv-DnCNN, seed 0: not measured on Set12; it was trained elsewhere" in said

    for text in ("{}", '{"rows": 3}', results.replace('"sha256": "', '"sha256": "../')):
        strange = tmp_path / "strange"
        strange.mkdir(exist_ok=True)
        (strange / "results.json").write_text(text)
        capsys.readouterr()
        assert tables.main(["--out", str(strange), "--list"]) == 2
        assert "results.json: holds no results" in capsys.readouterr().err


@pytest.mark.slow
def test_the_documented_tables_are_those_of_the_results(tmp_path: Path) -> None:
    documented = Path(__file__).parents[2] / "docs" / "tables"
    out = tmp_path / "tables"
    shutil.copytree(documented, out)
    report = table_report.Report(
        Experiments(out / "runs"), measurements.Measurements(out / "measured"), out
    )
    report.write()
    assert (out / "tables.md").read_text() == (documented / "tables.md").read_text()
    results, expected = (json.loads((p / "results.json").read_text()) for p in (out, documented))
    assert results == expected


@pytest.mark.slow
def test_the_list_has_every_row_and_its_state(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables.main(["--out", str(done), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert lines[0].endswith("width 2, 1 blocks, 4 steps")
    (row,) = (line for line in lines if "Conv-DnCNN" in line and "ConvT" not in line)
    assert row.endswith("done (seed 0), done (seed 1)")
    assert next(line for line in lines if "Uniform" in line).endswith("not run")


@pytest.mark.slow
def test_a_stopped_row_goes_on(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["--rows", "ConvT-DnCNN"]
    with monkeypatch.context() as patch:
        patch.setattr(
            processes.StopSignal,
            "status",
            lambda _, step: processes.PREEMPTED if step == 2 else None,
        )
        assert run(tmp_path, folders, *rows) == processes.PREEMPTED
    text = (tmp_path / "tables.md").read_text()
    assert "| ConvT-DnCNN | Set12 | 30.61 | none | not run | 2 of 4 |" in text
    assert run(tmp_path, folders, *rows) == 0
    (budget,) = Experiments(tmp_path / "runs").budgets()
    experiment = Experiment(CONVT, budget, 0)
    record = Experiments(tmp_path / "runs").record(experiment)
    assert record is not None and len(record["starts"]) == 2
    # On other images it is another experiment.
    other = tiny.folder(tmp_path / "other", [(131, 132)] * 5), folders[1]
    Experiments(tmp_path / "runs").weights(experiment).unlink()
    assert run(tmp_path, other, *rows) == 2


def test_a_budget_in_minutes_is_so_many_steps(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "seconds_per_step", lambda config: 2.0)
    seen = []

    def stopped(args: Args) -> int:
        seen.append(args.config.steps)
        return processes.INTERRUPTED

    monkeypatch.setattr(experiments, "train", stopped)
    assert run(tmp_path, folders, "--rows", "Conv-DnCNN", "--budget", "3min") == 130
    assert seen == [90]


@pytest.mark.slow
def test_a_step_is_timed(folders: tuple[Path, Path]) -> None:
    config = tiny.config(folders[0], steps=2)
    assert 0 < experiments.seconds_per_step(config, steps=3) < 60


@pytest.mark.slow
def test_a_figure_belongs_to_weights_image_and_protocol(done: Path, tmp_path: Path) -> None:
    weights = Experiments(done / "runs").weights(
        Experiment(CONV, Experiments(done / "runs").budgets()[0], 0)
    )
    images = tiny.folder(tmp_path / "images", [(24, 30)] * 3)
    measured: list[str] = []
    found = measurements.Measurements(tmp_path / "measured")
    name, files = measurements.parse_test_set(f"A={images}")
    one = found.measure(weights, measurements.TestSet(name, files), limit=1, say=measured.append)
    assert (len(one.images), one.of) == (1, 3)
    # The same images under another name: only the two others are new.
    found.measure(weights, measurements.TestSet("B", files), say=measured.append)
    assert "(2 images measured)" in measured[-1]
    # A changed image is measured again.
    files[0].write_bytes(files[1].read_bytes())
    again = found.measure(weights, measurements.TestSet("A", files), limit=1, say=measured.append)
    assert again.psnr != one.psnr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--table", "4", "--rows", "VDSR"], "--rows: got VDSR; expected some of DnCNN"),
        (["--width", "16", "--train", "x"], "--width, --blocks: got another size without"),
        (["--table", "4"], "--train, --test: got neither"),
        (["--test", "Set12"], "--test: got 'Set12'; expected NAME=FOLDER"),
        (["--test", "Set12=missing"], "--test: missing"),
        (["--kernels", "box:3", "--test", "A=IMAGES"], "--kernels: got 1; expected the 5"),
        (["--test", "A=IMAGES:9"], "holds 3 images; expected at least 9"),
        (["--authors", "missing.pth", "--test", "A=IMAGES"], "--authors: missing.pth"),
        (["--budget", "1steps", "--learning-rate", "-1", "--train", "x"], "--learning-rate: got"),
    ],
)
def test_mistakes(
    arguments: list[str],
    text: str,
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [a.replace("IMAGES", str(folders[1])) for a in arguments]
    assert tables.main(["--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    arguments = ["--out", str(tmp_path / "file"), "--table", "4", "--test", f"A={folders[1]}"]
    assert tables.main(arguments) == 2
    assert "file/results.json: cannot be written (" in capsys.readouterr().err
    assert tables.main([*arguments, "--authors", "denoise-gray"]) == 2
    assert "file/authors.json: cannot be written (" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("length", ["2000", "0steps", "1.5steps", "20 hours"])
def test_lengths_that_are_none(length: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        tables.main(["--budget", length])
    assert stopped.value.code == 2
    assert "expected e.g. 2000steps or 20min" in capsys.readouterr().err


def test_orders_that_differ_are_said() -> None:
    budget = Budget(steps=9)

    def said(table: int = 4, **psnr: tuple[float, ...]) -> str:
        rows = [row for row in ROWS if row.table == table]
        ours = {
            (row.label, budget): {
                seed: {"Set12": Figures(value, 1, {"a": {}}, 1, {"kernel": None})}
                for seed, value in enumerate(psnr.get(row.name.replace("-", "_"), ()))
            }
            for row in rows
        }
        return "\n".join(table_report._orders(rows, [budget], ours))

    place = "- Set12, full size, 9 steps"
    some = ", the 2 rows that were run"
    assert said(DnCNN=(20.0,)) == ""
    same = said(DnCNN=(20.0,), ConvT_DnCNN=(21.0,), Conv_DnCNN=(22.0,), Converse_DnCNN=(23.0,))
    assert f"{place}: the order is the paper's." in same
    other = said(Conv_DnCNN=(21.0, 21.5), ConvT_DnCNN=(22.0, 23.0))
    assert (
        f"{place}{some}: the order differs from the paper's: ConvT-DnCNN 1.25 dB above Conv-DnCNN; "
        "the spread over seeds is up to 0.71 dB."
    ) in other
    half = said(1, Uniform=(20.0,), Gaussian=(21.0,))
    assert half.strip().startswith("- initialization, Set12, full size, 9 steps, the 2 rows")


def test_a_budget_is_named() -> None:
    assert Budget().label == "full size"
    assert Budget(steps=2000, width=16, blocks=6).label == "width 16, 6 blocks, 2000 steps"
    assert Budget(minutes=10).label == "full size, 10 min"


@pytest.mark.slow
def test_charts(done: Path, folders: tuple[Path, Path]) -> None:
    pytest.importorskip("matplotlib", reason='pip install -e ".[figures]"')
    assert run(done, folders, "--rows", "Conv-DnCNN") == 0
    assert (done / "table4.png").read_bytes().startswith(b"\x89PNG")
    assert not (done / "table7.png").exists()
