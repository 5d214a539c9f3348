"""A run packed, carried elsewhere, and gone on with: to the same bits, or refused in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import tiny
from train import pack
from train.checkpoint import Checkpoints
from train.config import Args, Config, Optimizer
from train.loop import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    images = tiny.folder(tmp_path_factory.mktemp("data") / "images")
    return tiny.config(
        images, steps=4, eval_every=2, save_every=2, optimizer=Optimizer(1e-3, warmup=1)
    )


@pytest.fixture(scope="module")
def four(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps in one go."""
    run = tmp_path_factory.mktemp("runs") / "four"
    assert train(Args(config=config, run=run)) == 0
    return run


@pytest.fixture(scope="module")
def two(four: Path) -> Path:
    """The same as if it had been killed after two."""
    run = shutil.copytree(four, four.with_name("two"))
    shutil.rmtree(run / "checkpoints" / "4")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2]))
    return run


@pytest.fixture(scope="module")
def packed(two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in parts of a kilobyte and a half."""
    folder = tmp_path_factory.mktemp("packed")
    pack.pack(two, folder, max_mb=0.0015)
    return folder


def copied(packed: Path, to: Path) -> Path:
    """A copy to do harm to."""
    return shutil.copytree(packed, to / "packed")


def parts(packed: Path) -> list[Path]:
    return sorted(packed.glob("step-*"))


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_nothing_is_lost_on_the_way(two: Path, packed: Path, tmp_path: Path) -> None:
    assert len(parts(packed)) > 1
    assert all(p.stat().st_size <= 1500 for p in parts(packed))
    assert pack.unpack(packed, tmp_path / "run") == 2
    tiny.assert_equal(tiny.saved(tmp_path / "run", 2), tiny.saved(two, 2))
    for name in ("config.json", "metrics.jsonl", "summary.md", "before_after.png"):
        assert (tmp_path / "run" / name).read_bytes() == (two / name).read_bytes()
    with (
        Checkpoints(tmp_path / "run", keep=1) as found,
        Checkpoints(two, keep=1, read_only=True) as expected,
    ):
        assert found.details(2) == expected.details(2)
        assert found.psnr(2) == expected.psnr(2) is not None
    # Packed again it is the same file.
    again = pack.pack(tmp_path / "run", tmp_path / "again", max_mb=0.0015)
    assert again == json.loads((packed / "manifest.json").read_text())


def test_damaged_checkpoint_is_passed_over(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(two, tmp_path / "run")
    shutil.copytree(run / "checkpoints" / "2", run / "checkpoints" / "3")
    shutil.rmtree(run / "checkpoints" / "3" / "state")
    assert pack.pack(run, tmp_path / "packed")["step"] == 2
    assert "checkpoint 3 is damaged" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints" / "2")
    assert pack.main([str(run), str(tmp_path / "none")]) == 2
    assert "no whole checkpoint (3)" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda p: parts(p)[1].unlink(), ".zip.001: is missing; copy it as well"),
        (lambda p: parts(p)[-1].write_bytes(b"?"), "is damaged; copy it again"),
        (lambda p: (p / "manifest.json").unlink(), "manifest.json: is missing"),
        (lambda p: (p / "manifest.json").write_text('{"format": '), "manifest.json: is damaged"),
        (lambda p: (p / "manifest.json").write_text('{"format": "x"}'), "is of format 'x'"),
        (shutil.rmtree, "manifest.json: is missing"),
    ],
    ids=["part-missing", "part-damaged", "no-manifest", "half-manifest", "format", "no-folder"],
)
def test_damage_is_named(
    harm, text: str, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(packed, tmp_path)
    harm(folder)
    assert pack.main(["--unpack", str(folder), str(tmp_path / "runs" / "x")]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_what_is_there_stays_unless_it_may_go(
    two: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert pack.main([str(a) for a in arguments]) == 2
        return capsys.readouterr().err

    run = tmp_path / "run"
    run.mkdir()  # empty, as nothing
    pack.unpack(packed, run)
    (run / "metrics.jsonl").write_text("earlier\n")
    assert "exists already" in refused("--unpack", packed, run)
    (run / "notes.txt").touch()
    assert "holds notes.txt" in refused("--unpack", packed, run, "--overwrite")
    assert (run / "metrics.jsonl").read_text() == "earlier\n"
    (run / "notes.txt").unlink()
    assert pack.main(["--unpack", str(packed), str(run), "--overwrite"]) == 0
    assert losses(run) == losses(two)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert "is not the folder of a run" in refused(
        "--unpack", packed, tmp_path / "other", "--overwrite"
    )

    folder = copied(packed, tmp_path)
    (folder / "mine.txt").touch()
    assert "holds a packed run" in refused(two, folder)
    assert pack.main([str(two), str(folder), "--overwrite"]) == 0
    assert len(list(folder.iterdir())) == 3  # a part, the manifest, and what is not ours
    assert "holds no checkpoints" in refused(tmp_path, tmp_path / "none")
    assert "--max-mb" in refused(two, tmp_path / "none", "--max-mb", 0)
    assert "--max-mb" in refused("--unpack", packed, tmp_path / "none", "--max-mb", 1)


def script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "train/train_for.sh", *map(str, arguments)],
        cwd=tiny.ROOT,
        env=os.environ | {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_script_refuses_before_it_begins(packed: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    for arguments, text in [
        ((5, tmp_path / "out", tmp_path / "in"), "usage: "),
        (("5m", tmp_path / "out", tmp_path / "in", file), "MINUTES: got '5m'"),
        ((1, tmp_path / "out", tmp_path / "in", file), "MINUTES: got 1;"),
        ((5, packed, tmp_path / "in", file), "holds a packed run"),
        ((5, tmp_path / "out", tmp_path / "in", file), "it did not begin, and nothing was packed"),
    ]:
        done = script(*arguments)
        assert done.returncode == 2
        assert text in done.stderr
    (tmp_path / "in").mkdir()
    done = script(5, tmp_path / "out", tmp_path / "in", file, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert "manifest.json: is missing" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_unpacked_goes_on_as_in_one_go(
    four: Path, packed: Path, config: Config, tmp_path: Path
) -> None:
    file = tiny.config_file(tmp_path / "tiny_config.py", Path(config.data.train[0]))
    options = ["--steps", "4", "--eval-every", "2", "--save-every", "2", "--optimizer.warmup", "1"]
    out = copied(packed, tmp_path)
    (tmp_path / "tmp").mkdir()
    done = script(5, out, out, file, *options, TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 0, done.stderr
    assert "resuming after step 2" in done.stderr
    assert json.loads(done.stdout.splitlines()[-2])["step"] == 4
    assert not any((tmp_path / "tmp").iterdir())

    run = tmp_path / "far" / "away"
    assert pack.main(["--unpack", str(out), str(run)]) == 0
    assert [p.name for p in run.parent.iterdir()] == ["away"]
    tiny.assert_equal(tiny.saved(run, 4), tiny.saved(four, 4))
    assert losses(run) == losses(four)
    with (
        Checkpoints(run, keep=1, read_only=True) as found,
        Checkpoints(four, keep=1, read_only=True) as expected,
    ):
        assert found.details(4) == expected.details(4)
