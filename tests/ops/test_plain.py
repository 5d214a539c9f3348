"""plain=True: the same values from plain array operations, and what these allow."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converse_jax import apply_transfer, converse2d, converse2d_transfer
from tests.ops.cases import SOME, Case


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", SOME, ids=str)
def test_the_same_values_and_gradients(case: Case) -> None:
    arrays = case.arrays(2)
    for method in case.methods:
        usual = functools.partial(converse2d, **case.options, method=method)
        plain = functools.partial(usual, plain=True)
        np.testing.assert_allclose(plain(*arrays), usual(*arrays), atol=1e-11)
        gradients = (
            jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1, 2))(*arrays)
            for f in (plain, usual)
        )
        for a, b in zip(*gradients, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9 * float(jnp.abs(b).max()))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["fft", "dft", "direct"])
def test_forward_mode_and_transposition(method: str) -> None:
    rng = np.random.default_rng(0)
    x, v = (jnp.asarray(rng.normal(size=(5, 4, 2))) for _ in range(2))
    kernel, lam = jnp.asarray(rng.normal(size=(2, 2, 2))), jnp.asarray([0.1, 0.2])
    plain = functools.partial(
        converse2d, scale=2, padding=1, padding_mode="reflect", method=method, plain=True
    )
    usual = functools.partial(converse2d, scale=2, padding=1, padding_mode="reflect", method=method)
    # Linear in x: its derivative is itself.
    np.testing.assert_allclose(
        jax.jvp(lambda x: plain(x, kernel, lam), (x,), (v,))[1], usual(v, kernel, lam), atol=1e-12
    )
    y = jnp.asarray(rng.normal(size=(10, 8, 2)))
    (adjoint,) = jax.linear_transpose(lambda x: plain(x, kernel, lam), x)(y)
    np.testing.assert_allclose(
        adjoint, jax.vjp(lambda x: usual(x, kernel, lam), x)[1](y)[0], atol=1e-11
    )

    def loss(kernel: jax.Array, fn: functools.partial[jax.Array]) -> jax.Array:
        return jnp.sum(jnp.sin(fn(x, kernel, lam)))

    hessian = jax.hessian(loss)(kernel, plain)
    expected = jax.jacrev(jax.jacrev(loss))(kernel, usual)
    np.testing.assert_allclose(hessian, expected, atol=1e-9 * float(jnp.abs(expected).max()))
    out, tangent_of = jax.linearize(lambda k: plain(x, k, lam), kernel)
    np.testing.assert_allclose(out, usual(x, kernel, lam), atol=1e-12)
    np.testing.assert_allclose(
        tangent_of(kernel), jax.jvp(lambda k: plain(x, k, lam), (kernel,), (kernel,))[1], atol=1e-11
    )


@pytest.mark.parametrize("method", ["auto", "fft", "dft"])
@pytest.mark.parametrize("scale", [1, 2])
def test_export_with_any_batch_for_every_platform(method: str, scale: int) -> None:
    kernel, lam = np.ones((3, 3, 4), np.float32) / 9, np.full(4, 0.01, np.float32)
    options = {"scale": scale, "padding": 1, "method": method, "plain": True}
    run = jax.jit(lambda x: converse2d(x, kernel, lam, **options))
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, 9, 8, 4), jnp.float32)
    exported = jax.export.export(run, platforms=("cpu", "cuda", "tpu"))(shape)
    for size in (1, 3):
        x = np.random.default_rng(0).normal(size=(size, 9, 8, 4)).astype(np.float32)
        np.testing.assert_allclose(exported.call(x), run(x), atol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(run(x) ** 2)))
    assert jax.export.export(gradient)(shape).out_avals[0].shape[0] == batch


def test_prepared_and_plain() -> None:
    x, kernel = np.ones((2, 9, 8, 4), np.float32), np.ones((3, 3, 4), np.float32) / 9
    for method in ("fft", "dft"):
        transfer = converse2d_transfer(kernel, 0.1, (9, 8), method=method, plain=True)
        plain = apply_transfer(x, transfer, plain=True)
        np.testing.assert_allclose(plain, converse2d(x, kernel, 0.1, method=method), atol=1e-6)
        text = jax.jit(functools.partial(apply_transfer, plain=True)).lower(x, transfer).as_text()
        assert "CustomSPMDPartitioning" not in text
        assert "LayoutConstraint" not in text
