"""Both sides of the benchmark give the same results; skipped where PyTorch is absent."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason='PyTorch is not installed: pip install -e ".[bench]"')

import torch

from benchmarks import ours, run, sides, suite
from benchmarks.measure import relative_error
from benchmarks.theirs import algorithm1, tuned
from train.step import loss_and_gradient

ROOT = Path(__file__).parents[2]
STEP = suite.Network("training step", "ConverseDnCNN", 12, 1, batch=2)


@pytest.mark.parametrize(
    ("what", "scale"),
    [("forward", 1), ("forward prepared", 2), ("gradient", 2)],
)
def test_operator_rows_agree(what, scale):
    row = suite.Operator(what, 2, 3, 10, 5, 4, scale=scale, padding_mode="replicate")
    programs, errors, notes = run.check(sides.build(row, "cpu"), compile=False)
    assert errors["ours"] < 1e-5
    assert errors["tuned"] < 1e-5 and not notes
    assert programs.keys() == {"ours", "reference", "tuned"}


@pytest.mark.parametrize(
    ("kernel", "scale", "padding", "mode"),
    [
        (5, 1, 4, "circular"),
        (7, 2, 0, "circular"),
        (5, 3, 2, "replicate"),
        (2, 2, 2, "replicate"),
        (4, 2, 1, "circular"),
        (3, 4, 1, "circular"),
    ],
)
def test_the_tuned_operator_is_algorithm_1(kernel, scale, padding, mode):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 9, 12), (1, 3, kernel, kernel), (1, 3, 1, 1))
    args = [torch.rand(s, generator=generator, dtype=torch.float64) for s in shapes]
    args[1] /= args[1].sum((-2, -1), keepdim=True)
    options = {"scale": scale, "padding": padding, "padding_mode": mode}
    wanted = algorithm1(*args, **options)
    assert torch.max(torch.abs(tuned(*args, **options) - wanted)) < 1e-9


@pytest.mark.parametrize(
    # Of Converse-DnCNN the gradient is compared, below.
    ("network", "size"),
    [("ConverseSRResNet", 6), ("ConverseUSRNet", 12)],
)
def test_network_rows_agree(network, size):
    row = suite.Network("inference", network, size, 1, iterations=2)
    _, errors, _ = run.check(sides.build(row, "cpu"), compile=False)
    assert errors["ours"] < 1e-4


def test_training_gradients_agree():
    model, noisy, clean = sides.training_problem(STEP)
    config, network, _ = ours.training(STEP)
    batch = {"input": sides.channels_last(noisy), "target": sides.channels_last(clean)}
    params = sides.our_params(network, model.state_dict())
    _, found, _ = jax.jit(partial(loss_and_gradient, config, network))(params, {}, batch)
    torch.nn.functional.l1_loss(model.double()(noisy.double()), clean.double()).backward()
    # Gradients lie as their parameters do: what loads these brings them to our layout.
    named = {name: p.grad.float() for name, p in model.named_parameters()}
    truth = sides.our_params(network, named)
    assert relative_error([found[name] for name in truth], list(truth.values())) < 1e-4


def test_training_steps_agree():
    programs, errors, _ = run.check(sides.build(STEP, "cpu"), compile=False)
    assert errors["ours"] < 1e-4 and errors["reference"] < 1e-6
    losses = [float(programs["ours"]()) for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]


def test_what_does_not_compile_is_named():
    def reference(compile):
        if compile:
            raise RuntimeError("no compiler here\nand a page more")
        return lambda: one

    one = [np.ones(1)]
    pair = sides.Sides((lambda: one, 0.0), {"reference": reference}, lambda: one)
    programs, _, notes = run.check(pair, compile=True)
    assert notes == {"reference_compiled": "RuntimeError: no compiler here and a page more"}
    assert programs.keys() == {"ours", "reference"}


def test_what_is_wrong_is_not_timed():
    one, two = [np.ones(1)], [2 * np.ones(1)]
    theirs = {"reference": lambda compile: lambda: one}
    wrong = sides.Sides((lambda: two, 0.0), theirs, lambda: one)
    with pytest.raises(ArithmeticError, match="ours differs from Algorithm 1 by 1.0e\\+00"):
        run.check(wrong, compile=False)


def test_relative_error():
    assert relative_error([jnp.array([1.0, 2.0])], [np.array([1.0, 4.0])]) == pytest.approx(0.5)
    assert np.isnan(relative_error([np.ones(1), np.array([np.nan])], [np.ones(1), np.ones(1)]))
    with pytest.raises(ValueError, match="disagree on a shape"):
        relative_error([np.ones(2)], [np.ones(3)])


def test_a_whole_run(tmp_path):
    path = tmp_path / "out.json"
    options = ["--quick", "--no-compile", "--threads", "1", "--device", "cpu", "--json", str(path)]
    only = ["--only", "x2 forward, 1x16x32x32 k2"]
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, *only],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    (row,) = json.loads(path.read_text())["rows"]
    assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
    assert row["share"] > 0 and row["reference_peak_mb"] is not None
    assert row["ratio_tuned"] > 0
