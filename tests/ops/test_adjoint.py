"""Every pair of adjoints, and every trilinear form, by its defining identity, over all cases."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converse_jax.ops import _dft, _fft, _memory, _pad
from converse_jax.ops._dft_matrices import Cropped, Padded
from tests.ops.cases import CASES, Case

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


def assert_adjoint(f: Any, g: Any, x: Any, *static: Any) -> None:
    y = normal(jax.eval_shape(lambda: f(x, *static)), 1)
    forward, backward = inner(f(x, *static), y), inner(x, g(y, *static))
    scale = np.sqrt(inner(y, y) * inner(f(x, *static), f(x, *static))) + 1e-300
    assert abs(forward - backward) < 1e-12 * scale
    # And what JAX makes of the plain function is the same.
    _, pull = jax.vjp(lambda x: f(x, *static, plain=True), x)
    for a, b in zip(jax.tree.leaves(pull(y)[0]), jax.tree.leaves(g(y, *static)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12 * float(jnp.abs(b).max() + 1))


def maps(case: Case, seed: int = 0, scale: int = 1) -> jax.Array:
    shape = (2, 3, scale * case.shape[0], scale * case.shape[1], 2)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("case", CASES[::9], ids=str)
def test_pairs(case: Case) -> None:
    if case.padding <= min(case.shape):
        mode = case.padding_mode
        assert_adjoint(_pad.pad, _pad.fold, maps(case)[0, 0, ..., 0], case.padding, mode)
    assert_adjoint(_fft.channels_first, _fft.channels_last, maps(case))
    assert_adjoint(_memory.row_major, _memory.row_major, maps(case))
    assert_adjoint(_memory.sharded_row_major, _memory.sharded_row_major, maps(case))
    large = maps(case, scale=case.scale)
    for border in (Padded(case.padding, case.padding_mode), Cropped(case.padding)):
        if isinstance(border, Cropped):
            border = Padded(case.padding, "constant")  # crops as its adjoint
        static = (case.shape, case.scale, border)
        assert_adjoint(_dft.analyze, _dft.synthesize, large, *static)
    quadrant = _dft.analyze(large, case.shape, case.scale, Padded(case.padding, "circular"))[0]
    assert_adjoint(_dft.sum_phases, _dft.repeat_phases, quadrant, case.scale)


def assert_trilinear(f: Any, g: Any, h: Any, a: Any, b: Any, *static: Any) -> None:
    c = normal(jax.eval_shape(lambda: f(a, b, *static)), 2)
    expected = jax.vjp(lambda a, b: f(a, b, *static, plain=True), a, b)[1](c)
    for ours, theirs in zip((g(c, b, *static), h(a, c, *static)), expected, strict=True):
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-11 * float(jnp.abs(y).max() + 1e-300))
    # And their own gradients are the others: second derivatives of the form.
    for fn, args in ((g, (c, b)), (h, (a, c))):
        y = normal(jax.eval_shape(lambda fn=fn, args=args: fn(*args, *static)), 3)
        ours = jax.vjp(lambda *xs, fn=fn: fn(*xs, *static), *args)[1](y)
        theirs = jax.vjp(lambda *xs, fn=fn: fn(*xs, *static, plain=True), *args)[1](y)
        for p, q in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(p, q, atol=1e-11 * float(jnp.abs(q).max() + 1e-300))


@pytest.mark.parametrize("case", CASES[::13], ids=str)
def test_trilinear_forms(case: Case) -> None:
    y = maps(case)[0, 0, ..., 0]
    half = (case.scale, case.scale, case.shape[0], case.shape[1] // 2 + 1)
    # The spectrum of a real map: others are no transfer function of a real filter.
    rng = np.random.default_rng(4)
    spectrum = jnp.fft.rfft2(jnp.asarray(rng.normal(size=(*half[:2], *case.shape))))
    assert spectrum.shape == half
    assert_trilinear(_fft.synthesize, _fft.analyze, _fft.correlate, y, spectrum)

    spectra = _dft.analyze(maps(case), case.shape, 1, Padded(0, "circular"))
    one = spectra[0][:, 0]
    filters = tuple(
        jnp.asarray(rng.normal(size=(*one.shape[:2], case.scale, one.shape[3], case.scale, 2)))
        for _ in range(4)
    )
    functions = (_dft.apply_filter, _dft.apply_filter_adjoint, _dft.correlate)
    assert_trilinear(*functions, spectra, filters, 1)
