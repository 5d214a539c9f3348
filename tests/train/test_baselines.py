"""The networks that reverse convolution is compared with, in the training application."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import converse_jax
from tests.train import tiny
from tests.train.test_step import Run, batch_of
from train import export, networks
from train.config import Args, Config, Optimizer
from train.loop import train
from train.networks import DnCNNConfig, NetworkConfig
from train.state import FunctionalNetwork
from train.tasks import Deblur, Denoise, SuperResolve, Task

WIDE = {"num_features": 12, "num_blocks": 1}
BASELINES: list[tuple[NetworkConfig, Task]] = [
    (DnCNNConfig(num_features=12, num_layers=4), Denoise()),
    (networks.ConvDnCNNConfig(**WIDE), Denoise()),
    (networks.ConvTransposeDnCNNConfig(**WIDE), Denoise()),
    (networks.ConvSRResNetConfig(**WIDE), SuperResolve(scale=2)),
    (networks.ConvTransposeSRResNetConfig(**WIDE), SuperResolve(scale=2)),
    *(
        (networks.SRResNetConfig(**WIDE, upsampler=kind), SuperResolve(scale=2))
        for kind in ("pixel_shuffle", "nearest", "conv_transpose", "converse")
    ),
    (networks.ConvUSRNetConfig(**WIDE, blur_size=3, num_iterations=2), Deblur(kernel_size=3)),
    (networks.ConvNetConfig(**WIDE, num_iterations=2), Deblur(kernel_size=3)),
]


def name(value: Any) -> str:
    return f"{type(value).__name__} {getattr(value, 'upsampler', '')}".strip()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "task"), BASELINES, ids=name)
def test_each_overfits_one_patch(model: NetworkConfig, task: Task) -> None:
    config = tiny.config(
        "unused",
        model=model,
        task=task,
        data_patch_size=12,
        batch_size=1,
        steps=600,
        optimizer=Optimizer(learning_rate=1e-2, schedule="cosine", min_learning_rate=0, warmup=20),
    )
    config.check()
    _, numbers = Run(config)([batch_of(config)] * config.steps)
    assert numbers[-1]["loss"] < numbers[0]["loss"] / 10


@pytest.fixture(scope="module")
def batch_norm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """Six steps of a DnCNN in one go."""
    folder = tmp_path_factory.mktemp("dncnn")
    config = tiny.config(
        tiny.folder(folder / "images"), model=DnCNNConfig(num_features=3, num_layers=4)
    )
    assert train(Args(config=config, run=folder / "run")) == 0
    return config, folder / "run"


@pytest.mark.slow
def test_running_averages_are_resumed(batch_norm: tuple[Config, Path], tmp_path: Path) -> None:
    config, six = batch_norm
    three = dataclasses.replace(config, steps=3)
    assert train(Args(config=three, run=tmp_path / "run")) == 0
    assert train(Args(config=config, run=tmp_path / "run", resume=True)) == 0
    saved = tiny.saved(six, 6)
    assert "stats.norms.0.mean" in saved and "ema.norms.0.var" in saved
    tiny.assert_equal(tiny.saved(tmp_path / "run", 6), saved)


@pytest.mark.slow
def test_running_averages_follow_the_batches_and_are_averaged(
    batch_norm: tuple[Config, Path],
) -> None:
    config, _ = batch_norm
    run = Run(config)
    state, _ = run([batch_of(config)])
    network = FunctionalNetwork(config)
    _, stats = network.train(run.start.params, run.start.stats, batch_of(config))
    for key, value in stats.items():
        np.testing.assert_allclose(state.stats[key], value, rtol=1e-5, atol=1e-6)
        mean = run.start.stats[key] * 0.1 + value * 0.9  # of the first step
        np.testing.assert_allclose(state.ema[key], mean, rtol=1e-5, atol=1e-6)
    # Not finite: they stay.
    bad = batch_of(config)
    bad["input"][0] = np.nan
    after, _ = run([batch_of(config), bad])
    np.testing.assert_array_equal(after.stats["norms.0.mean"], state.stats["norms.0.mean"])


def test_batch_normalization_is_merged_into_what_is_exported(
    batch_norm: tuple[Config, Path], tmp_path: Path
) -> None:
    config, run = batch_norm
    card = export.export(run, tmp_path / "dncnn.safetensors")
    assert card.config == {
        "channels": 1,
        "num_features": 3,
        "num_layers": 4,
        "batch_norm": False,
    }
    merged, _ = converse_jax.load(tmp_path / "dncnn.safetensors")
    assert not jax.tree.leaves(nnx.state(merged, nnx.BatchStat))
    ema = {
        key.removeprefix("ema."): x
        for key, x in tiny.saved(run, 6).items()
        if key.startswith("ema.")
    }
    batch = batch_of(config)
    wanted = FunctionalNetwork(config)(ema, batch)
    np.testing.assert_allclose(merged(batch["input"]), wanted, atol=1e-5)
    # As a network with batch normalization it is saved and loaded, too.
    network: Any = FunctionalNetwork(config).module(ema)
    kept = dataclasses.replace(card, config={**card.config, "batch_norm": True})
    converse_jax.save(tmp_path / "kept.safetensors", network, kept)
    again, _ = converse_jax.load(tmp_path / "kept.safetensors")
    np.testing.assert_allclose(again(batch["input"]), wanted, atol=1e-5)
