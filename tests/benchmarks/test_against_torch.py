"""Both sides of the benchmark give the same results; skipped where PyTorch is absent."""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason='PyTorch is not installed: pip install -e ".[bench]"')

from benchmarks import networks, operators, sides, suite, train_sides
from benchmarks.sides import Setup, relative_error

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("what", "scale"),
    [("forward", 1), ("forward prepared", 2), ("gradient", 2)],
)
def test_operator_rows_agree(what, scale):
    row = suite.Operator(what, 2, 3, 10, 5, 4, scale=scale, padding_mode="replicate")
    work = operators.build(row, Setup())
    assert work.error < 1e-5
    assert work.programs.keys() == {"ours", "reference"} and work.compiled_note is None


@pytest.mark.parametrize(
    # Of Converse-DnCNN the gradient is compared, below.
    ("network", "size"),
    [("ConverseSRResNet", 6), ("ConverseUSRNet", 12)],
)
def test_network_rows_agree(network, size):
    work = networks.build(suite.Inference(network, size, 1, iterations=2), Setup())
    assert work.error < 1e-4


def test_training_gradients_agree():
    error, reference_error = train_sides.gradient_errors(suite.Training(2, 12, 1), "cpu")
    assert error < 1e-4 and reference_error < 1e-1


def test_what_does_not_compile_is_named():
    def fail():
        raise RuntimeError("no compiler here\nand a page more")

    work = sides.checked(
        Setup(compile=True),
        (lambda: 1, None),
        lambda: 1,
        fail,
        lambda found: 0.0,
        lambda found: 0.0,
    )
    assert work.compiled_note == "RuntimeError: no compiler here"
    assert work.programs.keys() == {"ours", "reference"}


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
    assert row["share"] > 0 and row["roofline"] > 0 and row["reference_peak_mb"] is not None
