"""Every pair of adjoints, and every trilinear form, by its defining identity, over all cases."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converse_jax.ops import _dft, _fft, _memory, _pad
from converse_jax.ops._dft_matrices import Cropped, Padded
from tests.ops.cases import CASES, Case, sparse

pytestmark = pytest.mark.usefixtures("x64")


def normal(like: Any, seed: int) -> Any:
    """A random tree of the shapes and types of another."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: like) if callable(like) else like)
    rng = np.random.default_rng(seed)
    made = [
        jnp.asarray(rng.normal(size=leaf.shape) + 1j * rng.normal(size=leaf.shape))
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        else jnp.asarray(rng.normal(size=leaf.shape))
        for leaf in leaves
    ]
    return jax.tree.unflatten(tree, made)


def inner(a: Any, b: Any) -> float:
    """The real inner product; JAX's cotangents of complex arrays are conjugated."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(sum(jnp.real(jnp.sum(x * y)) for x, y in pairs))


def size(a: Any, b: Any) -> float:
    """The product of two norms: what an inner product of them is compared with."""
    norms = [
        np.sqrt(sum(float(jnp.sum(jnp.abs(x) ** 2)) for x in jax.tree.leaves(t))) for t in (a, b)
    ]
    return norms[0] * norms[1] + 1e-300


def assert_adjoint(f: Any, g: Any, x: Any, *static: Any) -> None:
    result, pull = jax.vjp(lambda x: f(x, *static), x)
    y = normal(result, 1)
    forward, backward = inner(result, y), inner(x, g(y, *static))
    scale = size(y, result)
    assert abs(forward - backward) < 1e-12 * scale
    assert abs(forward - inner(x, pull(y)[0])) < 1e-12 * scale


def maps(case: Case, seed: int = 0, scale: int = 1) -> jax.Array:
    shape = (2, 3, scale * case.shape[0], scale * case.shape[1], 2)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[::9], ids=str)
def test_pairs(case: Case) -> None:
    if case.padding <= min(case.shape):
        mode = case.padding_mode
        assert_adjoint(_pad.pad, _pad.pad_adjoint, maps(case), case.padding, mode, (2, 3))
    assert_adjoint(_fft.channels_first, _fft.channels_last, maps(case))
    for hint in (_memory.row_major, _memory.sharded_row_major):
        assert_adjoint(hint, hint, maps(case))
    y = jnp.moveaxis(maps(case), -1, 2)
    spectrum = normal(jnp.fft.rfft2(y), 2)
    assert_adjoint(_fft.rfft, _fft.rfft_adjoint, y, case.shape)
    assert_adjoint(_fft.irfft, _fft.irfft_adjoint, spectrum, case.shape)
    large = maps(case, scale=case.scale)
    for border in (Padded(case.padding, case.padding_mode), Cropped(case.padding)):
        if isinstance(border, Cropped):
            border = Padded(case.padding, "constant")  # crops as its adjoint
        static = (case.shape, case.scale, border)
        assert_adjoint(_dft.analyze, _dft.synthesize, large, *static)
    quadrant = _dft.analyze(large, case.shape, case.scale, Padded(case.padding, "circular"))[0]
    assert_adjoint(_dft.sum_phases, _dft.repeat_phases, quadrant, case.scale)


def assert_trilinear(f: Any, g: Any, h: Any, a: Any, b: Any, *static: Any) -> None:
    result, pull = jax.vjp(lambda a, b: f(a, b, *static), a, b)
    c = normal(result, 2)
    of_a, of_b = g(c, b, *static), h(a, c, *static)
    form = inner(result, c)
    scale = size(c, result)
    assert abs(form - inner(a, of_a)) < 1e-12 * scale
    assert abs(form - inner(b, of_b)) < 1e-12 * scale
    # Each brings the others as its derivatives.
    for ours, theirs in zip((of_a, of_b), pull(c), strict=True):
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-11 * float(jnp.abs(y).max() + 1e-300))
    for fn, args in ((g, (c, b)), (h, (a, c))):
        value, second = jax.vjp(lambda p, q, fn=fn: fn(p, q, *static), *args)
        y = normal(value, 3)
        scale = size(y, value)
        for cotangent, arg in zip(second(y), args, strict=True):
            assert abs(inner(value, y) - inner(cotangent, arg)) < 1e-12 * scale


@pytest.mark.parametrize("case", sparse(2, CASES[::13]), ids=str)
def test_trilinear_forms(case: Case) -> None:
    rng = np.random.default_rng(4)
    spectra = _dft.analyze(maps(case), case.shape, 1, Padded(0, "circular"))
    one = spectra[0][:, 0]
    filters = tuple(
        jnp.asarray(rng.normal(size=(*one.shape[:2], case.scale, one.shape[3], case.scale, 2)))
        for _ in range(4)
    )
    functions = (_dft.apply_filter, _dft.apply_filter_adjoint, _dft.correlate)
    assert_trilinear(*functions, spectra, filters, 1)
