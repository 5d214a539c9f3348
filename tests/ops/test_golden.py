"""The operator against the authors' implementation, evaluated in float64."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converse_jax import converse2d

pytestmark = pytest.mark.parity
NAMES = [f"c{i:02}" for i in range(14)]


def relative(a: Any, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))


def golden(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Options and arrays of one case, in our layout."""
    listed = json.loads((shared / "golden/converse2d.json").read_text())
    options = next(case for case in listed if case["name"] == name)
    with np.load(shared / "golden/converse2d.npz") as file:
        raw = {k.split("/")[1]: file[k] for k in file.files if k.startswith(name + "/")}
    layout = {
        "weight": lambda a: a[0].transpose(1, 2, 0),
        "bias": np.ravel,
    }
    arrays = {
        key: layout.get(key.removeprefix("grad_"), lambda a: a.transpose(0, 2, 3, 1))(array)
        for key, array in raw.items()
    }
    return options, arrays


def apply(options: dict[str, Any], x: Any, kernel: Any, logit: Any) -> jax.Array:
    lam = jax.nn.sigmoid(logit - 9) + options["eps"]
    return converse2d(
        x,
        kernel,
        lam,
        scale=options["scale"],
        padding=options["padding"],
        padding_mode=options["padding_mode"],
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_float64(shared: Path, name: str) -> None:
    options, a = golden(shared, name)
    value, gradients = jax.value_and_grad(
        lambda *args: jnp.sum(apply(options, *args) * a["cotangent"]), (0, 1, 2)
    )(a["x"], a["weight"], a["bias"])
    assert relative(apply(options, a["x"], a["weight"], a["bias"]), a["y"]) < 1e-10
    np.testing.assert_allclose(value, np.sum(a["y"] * a["cotangent"]), rtol=1e-9)
    for key, gradient in zip(("grad_x", "grad_weight", "grad_bias"), gradients, strict=True):
        # Theirs divide by lambda; in c08 the gradient of lambda is nothing but that error.
        absolute = np.abs(gradient - a[key]).max()
        assert relative(gradient, a[key]) < 1e-7 or absolute < 1e-9, key


@pytest.mark.parametrize("name", NAMES)
def test_float32(shared: Path, name: str) -> None:
    options, a = golden(shared, name)
    arrays = (a[key].astype(np.float32) for key in ("x", "weight", "bias"))
    assert relative(apply(options, *arrays), a["y"]) < 2e-6


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [1, 2])
def test_one_kernel_an_example(shared: Path, scale: int) -> None:
    with np.load(shared / "golden/data_module.npz") as a:
        x, kernels, expected = (a[k].transpose(0, 2, 3, 1) for k in ("x", "k", f"y{scale}"))
        lam = 1 / (1 + np.exp(9 - a["alpha"].ravel())) + a["eps"]
    assert relative(converse2d(x, kernels, lam, scale=scale), expected) < 1e-10
