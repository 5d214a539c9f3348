"""The filter as one Pallas kernel, interpreted, against the method "dft"."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converse_jax import converse2d
from converse_jax.ops._options import Options
from tests.ops.cases import CASES, Case

pytest.importorskip(
    "jax.experimental.pallas.triton", reason="this JAX has no Triton backend", exc_type=Exception
)
from experiments.fused import solve

pytestmark = pytest.mark.slow


def fused(x: Any, kernel: Any, lam: Any, **options: Any) -> jax.Array:
    groups = (
        jnp.asarray(x)[None],
        jnp.asarray(kernel)[None],
        jnp.broadcast_to(lam, (1, x.shape[-1])),
    )
    return solve(Options(**options))(*groups)[0]


@pytest.mark.parametrize("case", [c for c in CASES if c.scale == 1][::2], ids=str)
def test_equal_to_products(case: Case) -> None:
    x, kernel, lam = (np.asarray(a, np.float32) for a in case.arrays(2))
    expected = converse2d(x, kernel, lam, **case.options, method="dft")
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(fused(x, kernel, lam, **case.options), expected, atol=2e-6 * scale)


def test_gradients() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 24, 20, 6)).astype("f")
    kernel, lam = rng.normal(size=(7, 7, 6)).astype("f"), np.full(6, 1e-2, "f")

    def loss(operator: Any, *args: Any) -> jax.Array:
        return jnp.sum(operator(*args, padding=6) ** 2)

    results = jax.grad(functools.partial(loss, fused), (0, 1, 2))(x, kernel, lam)
    dft = functools.partial(converse2d, method="dft")
    expected = jax.grad(functools.partial(loss, dft), (0, 1, 2))(x, kernel, lam)
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="the Triton backend is on its way out")
def test_it_is_one_kernel() -> None:
    x, kernel, lam = jnp.ones((2, 24, 20, 6)), jnp.ones((7, 7, 6)), jnp.ones(6)
    traced = jax.jit(functools.partial(fused, padding=6)).trace(x, kernel, lam)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("xla.gpu.triton") == 1
    assert "fft" not in text
