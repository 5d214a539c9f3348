"""What a run says of itself: means of many steps, which PSNR, how many patches, and bad results."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

import converse_jax
from tests.train import tiny
from train import export
from train.config import Args, Config, Optimizer
from train.loop import train
from train.measure import HeldOut
from train.meter import Means, Meter
from train.networks import ConverseSRResNetConfig
from train.report import write_report
from train.state import FunctionalNetwork, make_mesh
from train.tasks import SuperResolve


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return tiny.config(
        tiny.folder(tmp_path_factory.mktemp("data") / "images"),
        optimizer=Optimizer(learning_rate=1e-3),
        steps=4,
        save_every=2,
        eval_every=4,
        data_threads=0,
    )


@pytest.fixture(scope="module")
def four(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "four"
    assert train(Args(config=config, run=run)) == 0
    return run


@pytest.mark.slow
def test_lines_are_means_since_the_last(config: Config, four: Path, tmp_path: Path) -> None:
    every = lines(four)
    other = dataclasses.replace(config, log_every=100, save_every=100)
    assert train(Args(config=other, run=tmp_path / "run")) == 0
    (line,) = lines(tmp_path / "run")
    for name in ("loss", "grad_norm"):
        values = [found[name] for found in every]
        assert len(set(values)) == 4
        assert line[name] == pytest.approx(sum(values) / 4, rel=1e-6)
    assert line["learning_rate"] == every[-1]["learning_rate"]


def test_means() -> None:
    means = Means()
    assert means.take() == {}
    for loss in (1.0, 2.0, 6.0):
        means.add({"loss": loss})
    assert means.take() == {"loss": 3.0}
    means.add({"loss": 4.0})
    assert means.take() == {"loss": 4.0}


@pytest.mark.slow
def test_super_resolution_is_measured_on_luma_and_says_so(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    enlarging = dataclasses.replace(
        config,
        model=ConverseSRResNetConfig(num_features=2, num_blocks=1, kernel_size=3),
        task=SuperResolve(scale=2),
        # So far that nothing good can come of it.
        optimizer=Optimizer(learning_rate=1.0),
        steps=2,
        ema=0,
    )
    assert train(Args(config=enlarging, run=run)) == 0
    last = lines(run)[-1]
    assert {"psnr_y", "ssim_y"} <= last.keys()
    assert not {"psnr", "ssim"} & last.keys()
    summary = (run / "summary.md").read_text()
    assert f"PSNR (Y) {last['psnr_y']:.2f} dB" in summary
    assert summary.startswith(f"Worse than its input: {last['psnr_y']:.2f} dB against ")
    assert "(bicubic)" in summary.split(";")[0]
    errors = capsys.readouterr().err
    assert "Worse than its input" in errors
    assert "psnr_y" in errors
    target = tmp_path / "tiny.safetensors"
    assert export.main([str(run), str(target), "--best"]) == 0
    assert f"PSNR (Y) {last['psnr_y']:.2f} dB" in capsys.readouterr().out
    notes = converse_jax.load(target)[1].notes
    assert notes["held_out_metric"] == "psnr_y"
    assert notes["held_out_psnr"] == pytest.approx(last["psnr_y"])


def held_out(config: Config, *levels: float) -> HeldOut:
    """Examples of a gray ramp plus so many levels of 255; no network is run."""
    target = np.tile(np.arange(32, dtype=np.float32) / 255, (32, 1))[..., None]
    examples = [{"input": target + np.float32(x / 255), "target": target} for x in levels]
    return HeldOut(config, {"": examples}, FunctionalNetwork(config), make_mesh())


def report(config: Config, run: Path, measured: HeldOut, restored: list[np.ndarray]) -> str:
    run.mkdir()
    return write_report(run, config, measured, measured.score(restored), Meter(), 0, None)


def test_examples_that_are_already_clean_are_not_measured(config: Config, tmp_path: Path) -> None:
    measured = held_out(config, 10, 0, 0.4)
    inputs = [example["input"] for example in measured.examples]
    # The first is improved; the others are damaged.
    restored = [x + np.float32(-5 / 255) for x in inputs]
    text = report(config, tmp_path / "run", measured, restored)
    assert text.startswith(
        "tiny: 4 steps. On 1 held-out images (2 already clean left out) PSNR 34.15 dB"
    )
    assert "+6.02 dB above the input of 28.13 dB" in text
    assert "inf" not in text
    # Exact but for one value of one level, at least.
    exact = measured.score([example["target"] for example in measured.examples])
    assert exact.psnr == pytest.approx(10 * math.log10(255**2 * 32 * 32))


def test_nothing_is_compared_where_all_examples_are_already_clean(
    config: Config, tmp_path: Path
) -> None:
    measured = held_out(config, 0)
    text = report(config, tmp_path / "run", measured, [measured.examples[0]["target"] + 0.5])
    assert text.startswith(
        "tiny: 4 steps. All 1 held-out images are already clean: nothing is measured."
    )


@pytest.mark.slow
def test_patches_of_all_sittings_are_counted(config: Config, four: Path) -> None:
    assert "tiny: 4 steps of 8 patches." in (four / "summary.md").read_text()
    other = dataclasses.replace(config, batch_size=16, steps=5)
    assert train(Args(config=other, run=four, resume=True)) == 0
    text = "tiny: 5 steps, 48 patches in batches of several sizes."
    assert text in (four / "summary.md").read_text()
    other = dataclasses.replace(other, steps=6)
    assert train(Args(config=other, run=four, resume=True)) == 0
    assert "tiny: 6 steps, 64 patches in" in (four / "summary.md").read_text()
