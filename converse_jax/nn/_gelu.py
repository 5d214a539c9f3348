"""GELU, with a backward pass that keeps only its argument."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops._checks import compute_dtype
from converse_jax.ops._function import Function
from converse_jax.ops._memory import depends_on, sharded_row_major


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x Phi(x)`, Phi the normal distribution: the exact (erf) form, as in the paper's networks.

    `d gelu / dx = Phi(x) + x phi(x)` is computed from x again: JAX's own rule keeps the error
    function and the exponential of every map until the backward pass. Phi is written with erf, as
    PyTorch does, not with erfc as `jax.nn.gelu` does: three times as fast on CPUs, and within 1e-6
    of it in float32.
    """
    return _gelu(x)


def _cumulative(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def _backward(x: Array, cotangent: Array) -> tuple[Array]:
    # Otherwise XLA finds the error function of the forward pass again, and keeps it.
    z = depends_on(x, cotangent).astype(compute_dtype(x))
    density = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    slope = _cumulative(z) + z * density
    return (sharded_row_major((slope * cotangent.astype(z.dtype)).astype(x.dtype)),)


@functools.partial(Function, vjp=_backward)
def _gelu(x: Array) -> Array:
    z = x.astype(compute_dtype(x))
    return sharded_row_major((z * _cumulative(z)).astype(x.dtype))
