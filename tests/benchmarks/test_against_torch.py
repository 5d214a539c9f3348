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

from benchmarks import algorithm1, networks, operators, ours, sides, suite, tuned
from benchmarks.sides import channels_last, relative_error
from train.step import loss_and_gradient

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("what", "scale"),
    [("forward", 1), ("forward prepared", 2), ("gradient", 2)],
)
def test_operator_rows_agree(what, scale):
    row = suite.Operator(what, 2, 3, 10, 5, 4, scale=scale, padding_mode="replicate")
    work = operators.build(row, "cpu", compile=False)
    assert work.errors["ours"] < 1e-5
    assert work.errors["tuned"] < 1e-5 and not work.notes
    assert work.programs.keys() == {"ours", "reference", "tuned"}


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
    wanted = algorithm1.converse2d(*args, **options)
    assert torch.max(torch.abs(tuned.converse2d(*args, **options) - wanted)) < 1e-9


@pytest.mark.parametrize(
    # Of Converse-DnCNN the gradient is compared, below.
    ("network", "size"),
    [("ConverseSRResNet", 6), ("ConverseUSRNet", 12)],
)
def test_network_rows_agree(network, size):
    work = networks.build_inference(
        suite.Inference(network, size, 1, iterations=2), "cpu", compile=False
    )
    assert work.errors["ours"] < 1e-4


def test_training_gradients_agree():
    model, noisy, clean = networks.training_problem(suite.Training(2, 12, 1))
    config, network = ours.training(suite.Training(2, 12, 1))
    batch = {"input": channels_last(noisy), "target": channels_last(clean)}
    params = networks.our_params(network, model.state_dict())
    _, found = jax.jit(partial(loss_and_gradient, config, network))(params, batch)
    networks.torch_loss(model.double(), noisy.double(), clean.double()).backward()
    # Gradients lie as their parameters do: what loads these brings them to our layout.
    named = {name: p.grad.float() for name, p in model.named_parameters()}
    truth = networks.our_params(network, named)
    assert relative_error([found[name] for name in truth], list(truth.values())) < 1e-4


def test_training_steps_agree():
    work = networks.build_training(suite.Training(2, 12, 1), "cpu", compile=False)
    assert work.errors["ours"] < 1e-4 and work.errors["reference"] < 1e-6
    losses = [float(work.programs["ours"]()) for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]


def test_what_does_not_compile_is_named():
    def fail():
        raise RuntimeError("no compiler here\nand a page more")

    one = [np.ones(1)]
    programs = {"ours": lambda: one, "reference": lambda: one}
    work = sides.checked(programs, {"compiled": fail}, one)
    assert work.notes == {"compiled": "RuntimeError: no compiler here"}
    assert work.programs.keys() == {"ours", "reference"}


def test_what_is_wrong_is_not_timed():
    one, two = [np.ones(1)], [2 * np.ones(1)]
    with pytest.raises(sides.WrongError, match="ours: differs from Algorithm 1 by 1.0e\\+00"):
        sides.checked({"ours": lambda: two, "reference": lambda: one}, {}, one)


def test_relative_error():
    assert relative_error([jnp.array([1.0, 2.0])], [np.array([1.0, 4.0])]) == pytest.approx(0.5)
    assert relative_error([jnp.array([jnp.nan])], [np.array([1.0])]) == float("inf")
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
