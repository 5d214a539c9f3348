"""Whole runs: what they leave behind, and that stopping them changes nothing."""

import dataclasses
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import converse_jax
from converse_jax.cli import main as converse_jax_command
from tests.train import tiny
from train import export, processes, run_folder
from train.config import Args, Config
from train.errors import TrainError, TrainStopped
from train.loop import train
from train.state import FunctionalNetwork
from train.tasks import Denoise


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def config(images: Path) -> Config:
    return tiny.config(images)


@pytest.fixture(scope="module")
def six(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps in one go."""
    run = tmp_path_factory.mktemp("runs") / "six"
    assert train(Args(config=config, run=run)) == 0
    return run


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_run_leaves_everything_behind(six: Path, config: Config) -> None:
    assert json.loads((six / "config.json").read_text()) == json.loads(json.dumps(config.to_dict()))
    assert [line["step"] for line in lines(six)] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "grad_norm", "learning_rate", "images_per_second", "input_bound"} <= lines(six)[
        0
    ].keys()
    assert [line["step"] for line in lines(six) if "psnr" in line] == [3, 6]
    assert not [key for line in lines(six) for key in line if "/" in key]
    assert all(0 <= line["input_bound"] <= 1 for line in lines(six))
    image = converse_jax.imaging.read_image(six / "before_after.png").pixels
    assert image.shape[1] > 3 * 256
    text = (six / "summary.md").read_text()
    assert "6 steps of 8 patches" in text
    assert "best Gaussian blur" in text
    assert f"{lines(six)[-1]['psnr']:.2f} dB" in text
    assert sorted(p.name for p in (six / "checkpoints").iterdir()) == ["3", "6"]


def events(run: Path) -> Iterator[object]:
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(run.glob("events.*")):
        blob, at = path.read_bytes(), 0
        while at < len(blob):
            (length,) = struct.unpack_from("<Q", blob, at)
            yield Event.FromString(blob[at + 12 : at + 12 + length])
            at += 16 + length


def test_events_are_those_of_the_lines(six: Path) -> None:
    values = [(e.step, v) for e in events(six) if e.HasField("summary") for v in e.summary.value]
    losses = {step: v.simple_value for step, v in values if v.tag == "loss"}
    assert losses == pytest.approx({line["step"]: line["loss"] for line in lines(six)})
    shown = [(step, v.image) for step, v in values if v.tag == "held_out"]
    assert [step for step, _ in shown] == [3, 6]
    assert all(i.encoded_image_string.startswith(b"\x89PNG") for _, i in shown)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4])
def test_stopped_and_resumed_is_as_in_one_go(
    stop: int, six: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        # As if SIGTERM had come during this step.
        patch.setattr(
            processes.StopSignal,
            "status",
            lambda _, step: processes.PREEMPTED if step == stop else None,
        )
        assert train(Args(config=config, run=run)) == processes.PREEMPTED
    assert [line["step"] for line in lines(run)] == list(range(1, stop + 1))
    # Half a line of a step that was not saved: it is done again.
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(lines(run)[-1] | {"step": stop + 1}) + '\n{"step": ')
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, threads=0))
    assert train(Args(config=other, run=run, resume=True)) == 0
    tiny.assert_equal(tiny.saved(run, 6), tiny.saved(six, 6))
    assert [line["loss"] for line in lines(run)] == [line["loss"] for line in lines(six)]


def test_finished_run_says_so(
    six: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = six / "summary.md"
    before = summary.read_text()
    assert train(Args(config=config, run=six, resume=True)) == 0
    assert "all 6 steps are done; give more (--steps)" in capsys.readouterr().err
    assert summary.read_text() == before
    # Killed between the last checkpoint and the report.
    summary.unlink()
    assert train(Args(config=config, run=six, resume=True)) == 0
    assert summary.read_text().split(". ")[0] == before.split(". ")[0]


def test_exported_weights_restore_an_image(
    six: Path, config: Config, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "tiny.safetensors"
    assert export.main([str(six), str(target), "--license", "CC0-1.0"]) == 0
    assert "tiny: ConverseDnCNN after step 6" in capsys.readouterr().out
    model, card = converse_jax.load(target)
    assert (card.name, card.task, card.sigma, card.license) == ("tiny", "denoise", 25, "CC0-1.0")
    assert card.notes["step"] == 6
    arrays = tiny.saved(six, 6)
    ema = {k.removeprefix("ema."): v for k, v in arrays.items() if k.startswith("ema.")}
    x = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    np.testing.assert_array_equal(model(x), FunctionalNetwork(config)(ema, {"input": x}))
    clean = tmp_path / "clean.png"
    command = ["restore", str(images / "0.png"), str(clean), "--model", str(target)]
    assert converse_jax_command(command) == 0
    assert clean.is_file()


def test_the_card_is_what_the_person_says(
    six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes, target = tmp_path / "notes.json", tmp_path / "a.safetensors"
    notes.write_text('{"trained_on": ["two photographs"], "hardware": "a laptop"}')
    options = ["--license", "CC0-1.0", "--source", "a student", "--notes", str(notes)]
    assert export.main([str(six), str(target), "--name", "mine", *options]) == 0
    card = converse_jax.load(target)[1]
    assert (card.name, card.license, card.source) == ("mine", "CC0-1.0", "a student")
    assert card.notes["trained_on"] == ["two photographs"]
    assert (card.notes["hardware"], card.notes["step"]) == ("a laptop", 6)
    notes.write_text("[1]")
    assert export.main([str(six), str(tmp_path / "b.safetensors"), "--notes", str(notes)]) == 2
    assert "got a list; expected a JSON object" in capsys.readouterr().err


def test_export_refuses(six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.touch()
    for arguments, text in [
        ([tmp_path, tmp_path / "x.safetensors"], "holds no checkpoints"),
        ([six, tmp_path / "x.pth"], "ends in .safetensors"),
        ([six, taken], "exists already"),
        ([six, tmp_path / "x.safetensors", "--step", "4"], "there are steps 3, 6"),
    ]:
        assert export.main([str(a) for a in arguments]) == 2
        assert text in capsys.readouterr().err


@pytest.mark.slow
def test_each_set_is_measured_and_the_first_decides(config: Config, tmp_path: Path) -> None:
    sets = [tiny.folder(tmp_path / name, [(30, 30 + i)] * 2) for i, name in enumerate("ab")]
    data = dataclasses.replace(config.data, validation=(f"first={sets[0]}", str(sets[1])))
    changed = dataclasses.replace(config, data=data, steps=3)
    assert train(Args(config=changed, run=tmp_path / "run")) == 0
    last = lines(tmp_path / "run")[-1]
    keys = {k for k in last if k.startswith(("psnr", "ssim"))}
    assert keys == {
        "psnr", "psnr/first", "psnr/b", "ssim", "ssim/first", "ssim/b"
    }  # fmt: skip
    assert last["psnr"] == last["psnr/first"] != last["psnr/b"]
    assert f"psnr/b {last['psnr/b']:.4g}" in (tmp_path / "run" / "summary.md").read_text()


@pytest.mark.slow
def test_what_is_never_finite_stops_the_run(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    degrade, calls = Denoise.degrade, iter(range(10**6))

    def broken(self: Denoise, clean: np.ndarray, rng: np.random.Generator) -> dict:
        found = degrade(self, clean, rng)
        if next(calls) > 4 * config.batch_size:
            found["input"][0, 0] = np.nan
        return found

    monkeypatch.setattr(Denoise, "degrade", broken)
    changed = dataclasses.replace(
        config,
        steps=100,
        max_skipped=3,
        save_every=1,
        data=dataclasses.replace(config.data, threads=0),
    )
    with pytest.raises(TrainStopped, match=r"the last 3 losses or gradients were not finite"):
        train(Args(config=changed, run=tmp_path / "run"))
    last = max(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir())
    arrays = tiny.saved(tmp_path / "run", last)
    assert all(np.isfinite(x).all() for x in arrays.values())


@pytest.mark.slow
def test_damaged_image_stops_the_run_after_saving(config: Config, tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "images", [(24, 30)] * 40)
    whole = (folder / "7.png").read_bytes()
    (folder / "7.png").write_bytes(whole[: len(whole) // 2])
    data = dataclasses.replace(config.data, train=(str(folder),), threads=0)
    changed = dataclasses.replace(config, data=data, steps=20, save_every=20, eval_every=20)
    with pytest.raises(TrainStopped, match=r"7\.png.*take it out"):
        train(Args(config=changed, run=tmp_path / "run"))
    done = len(lines(tmp_path / "run"))
    assert done > 0
    assert [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()] == [done]


def refused(command: Args) -> str:
    with pytest.raises(TrainError) as caught:
        train(command)
    return str(caught.value)


def test_used_folder(six: Path, config: Config, tmp_path: Path) -> None:
    assert "(--resume), delete it (--overwrite)" in refused(Args(config=config, run=six))
    both = Args(config=config, run=six, resume=True, overwrite=True)
    assert "give one of them" in refused(both)
    (tmp_path / "thesis.tex").touch()
    for command in (
        Args(config=config, run=tmp_path, overwrite=True),
        Args(config=config, run=tmp_path, resume=True),
    ):
        assert "not the folder of a run" in refused(command)
    assert (tmp_path / "thesis.tex").exists()
    assert "is a file" in refused(Args(config=config, run=tmp_path / "thesis.tex"))


def test_other_network_is_not_resumed(six: Path, config: Config) -> None:
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, num_features=4))
    text = refused(Args(config=wider, run=six, resume=True))
    assert "model.num_features: 2 -> 4" in text


def test_what_an_earlier_version_did_not_know_is_as_by_default(
    six: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(six, run)
    saved = json.loads((run / "config.json").read_text())
    del saved["model"]["kernel_init"], saved["task"]["sigma_max"]
    (run / "config.json").write_text(json.dumps(saved))
    assert train(Args(config=config, run=run, resume=True)) == 0
    assert "from here on" not in capsys.readouterr().err
    drawn = dataclasses.replace(
        config, model=dataclasses.replace(config.model, kernel_init="normal")
    )
    assert "model.kernel_init: softmax -> normal" in refused(
        Args(config=drawn, run=run, resume=True)
    )


@pytest.mark.slow
def test_overwrite_deletes_the_run_only(six: Path, config: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(six, run)
    (run / "notes.txt").write_text("mine")
    stopped = dataclasses.replace(
        config, steps=1, optimizer=dataclasses.replace(config.optimizer, warmup=0)
    )
    assert train(Args(config=stopped, run=run, overwrite=True)) == 0
    assert [line["step"] for line in lines(run)] == [1]
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["1"]
    assert (run / "notes.txt").read_text() == "mine"


def test_batch_that_devices_cannot_share(config: Config, tmp_path: Path) -> None:
    odd = dataclasses.replace(config, batch_size=12)
    text = refused(Args(config=odd, run=tmp_path / "run"))
    assert "12 patches cannot be shared equally by 8 devices" in text
    assert not (tmp_path / "run").exists()


def test_half_claimed_folder_is_empty(config: Config, tmp_path: Path) -> None:
    (tmp_path / ".converse-0123456789abcdef.tmp").touch()
    run_folder.check(tmp_path, config, resume=True, overwrite=False, say=print)


def test_no_room_is_known_beforehand(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("train.run_folder.shutil.disk_usage", lambda _: usage)
    assert "5 checkpoints need" in refused(Args(config=config, run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
