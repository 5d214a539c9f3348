"""Signals and volumes, against dense least squares and against the operator of maps."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.test_util import check_grads

from converse_jax import converse1d, converse2d, converse3d
from converse_jax.nn import Converse1D, Converse3D, prepare, shard_spatially

CASES = [
    ((7,), (3,), 1),
    ((6,), (4,), 2),
    ((5,), (2,), 3),
    ((1,), (1,), 2),
    ((3, 4, 3), (3, 2, 3), 1),
    ((2, 3, 2), (3, 2, 1), 2),
    ((1, 2, 3), (1, 1, 2), 2),
]
OPERATORS = {1: converse1d, 3: converse3d}


def least_squares(
    y: np.ndarray, kernel: np.ndarray, lam: float, scale: int, x0: str | np.ndarray
) -> np.ndarray:
    """argmin ||y - (x (*) k) down s||^2 + lam ||x - x0||^2 of one channel, by a dense solver."""
    size = tuple(scale * n for n in y.shape)
    rows = []
    for i in range(int(np.prod(size))):
        x = np.zeros(size)
        x.flat[i] = 1
        blurred = sum(
            kernel[tap]
            * np.roll(
                x, [t - k // 2 for t, k in zip(tap, kernel.shape, strict=True)], range(x.ndim)
            )
            for tap in itertools.product(*map(range, kernel.shape))
        )
        rows.append(blurred[(slice(None, None, scale),) * x.ndim].ravel())
    forward = np.stack(rows, 1)
    estimate = np.zeros(size) if isinstance(x0, str) else x0
    if isinstance(x0, str) and x0 == "nearest":
        estimate = y
        for axis in range(y.ndim):
            estimate = np.repeat(estimate, scale, axis)
    matrix = np.concatenate([forward, np.sqrt(lam) * np.eye(forward.shape[1])])
    target = np.concatenate([y.ravel(), np.sqrt(lam) * estimate.ravel()])
    return np.linalg.lstsq(matrix, target, rcond=None)[0].reshape(size)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("x0", ["nearest", "zero"])
@pytest.mark.parametrize(("size", "taps", "scale"), CASES)
def test_equal_to_least_squares(size, taps, scale, x0) -> None:
    rng = np.random.default_rng(0)
    y, kernel = rng.normal(size=(2, *size, 3)), rng.normal(size=(*taps, 3))
    lam = np.array([0.01, 0.1, 1.0])
    operator = OPERATORS[len(size)]
    result = operator(y, kernel, lam, scale=scale, x0=x0)
    for i, c in itertools.product(range(2), range(3)):
        expected = least_squares(y[i, ..., c], kernel[..., c], lam[c], scale, x0)
        np.testing.assert_allclose(result[i, ..., c], expected, atol=1e-10)
    of_log = lambda y, k, log: operator(y, k, jnp.exp(log), scale=scale, x0=x0)  # noqa: E731
    check_grads(jax.jit(of_log), (y, kernel, np.log(lam)), order=1, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("size", "taps", "scale"), CASES)
def test_any_estimate(size, taps, scale) -> None:
    rng = np.random.default_rng(0)
    y, kernel = rng.normal(size=(2, *size, 3)), rng.normal(size=(*taps, 3))
    x0, lam = rng.normal(size=(2, *(scale * n for n in size), 3)), np.array([0.01, 0.1, 1.0])
    operator = OPERATORS[len(size)]
    result = operator(y, kernel, lam, scale=scale, x0=x0)
    for i, c in itertools.product(range(2), range(3)):
        expected = least_squares(y[i, ..., c], kernel[..., c], lam[c], scale, x0[i, ..., c])
        np.testing.assert_allclose(result[i, ..., c], expected, atol=1e-10)
    of_arrays = lambda y, k, x0: operator(y, k, lam, scale=scale, x0=x0)  # noqa: E731
    check_grads(jax.jit(of_arrays), (y, kernel, x0), order=1, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", ["circular", "replicate", "reflect", "constant"])
def test_the_nearest_estimate_as_an_array(mode: str) -> None:
    rng = np.random.default_rng(0)
    y, kernel = rng.normal(size=(2, 5, 3)), rng.normal(size=(4, 3))
    how = {"scale": 2, "padding": 3, "padding_mode": mode}
    expected = converse1d(y, kernel, 0.1, **how)
    result = converse1d(y, kernel, 0.1, **how, x0=y.repeat(2, 1))
    np.testing.assert_allclose(result, expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", ["circular", "replicate", "reflect", "constant"])
def test_a_signal_is_a_map_of_one_row(mode: str) -> None:
    rng = np.random.default_rng(0)
    y, kernel = rng.normal(size=(2, 9, 3)), rng.normal(size=(4, 3))
    signal = converse1d(y, kernel, 0.1, scale=2, padding=3, padding_mode=mode)
    modes = {"circular": "wrap", "replicate": "edge"}
    wide = np.pad(y, [(0, 0), (3, 3), (0, 0)], mode=modes.get(mode, mode))[:, None]
    expected = converse2d(wide, kernel[None], 0.1, scale=2, method="fft")[:, 0, 6:-6]
    np.testing.assert_allclose(signal, expected, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_bad_input() -> None:
    y, kernel = np.ones((6, 3), np.float32), np.ones((3, 3), np.float32)
    with pytest.raises(ValueError, match=r"x: got shape \(6,\); expected \[..., L, C\]"):
        converse1d(y[:, 0], kernel, 0.1)
    with pytest.raises(ValueError, match="kernel: got 7; expected at most .* 6"):
        converse1d(y, np.ones((7, 3), np.float32), 0.1)
    with pytest.raises(ValueError, match=r"kernel: got shape .* \[..., kd, kh, kw, C\]"):
        converse3d(np.ones((2, 2, 2, 3), np.float32), kernel, 0.1)
    with pytest.raises(ValueError, match=r"x0: got shape \(6, 3\); expected \[..., 12, 3\]"):
        converse1d(y, kernel, 0.1, scale=2, x0=y)
    with pytest.raises(TypeError, match=r"kernel_size: .* expected k or \(kd, kh, kw\)"):
        Converse3D(4, (3, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="padding: got 'CIRCULAR'; .* padding_mode='circular'"):
        Converse1D(4, padding="CIRCULAR", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="method: got 'dft'; expected 'auto', 'fft'"):
        Converse1D(4, method="dft", rngs=nnx.Rngs(0))


def test_layers() -> None:
    layer = Converse1D(4, 3, scale=2, lam_init=0.1, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(layer.lam, 0.1, rtol=1e-5)
    x = jax.random.normal(jax.random.key(0), (2, 7, 4))
    expected = converse1d(x, layer.kernel[...], layer.lam, scale=2, padding=2)
    np.testing.assert_array_equal(layer(x), expected)
    volume = Converse3D(4, (1, 3, 3), rngs=nnx.Rngs(0))
    assert volume(jnp.ones((2, 3, 4, 5, 4))).shape == (2, 3, 4, 5, 4)


@pytest.mark.parametrize(("layer", "shape"), [(Converse1D, (2, 16, 8)), (Converse3D, (3, 8, 5, 8))])
def test_layers_on_eight_devices(layer: Any, shape: tuple[int, ...]) -> None:
    module, x = layer(8, 3, scale=2, rngs=nnx.Rngs(0)), jax.random.normal(jax.random.key(0), shape)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    shared = nnx.jit(prepare(shard_spatially(module, mesh, "rows"), x))(x)
    assert "rows" in shared.sharding.spec
    np.testing.assert_allclose(shared, module(x), atol=1e-5)
