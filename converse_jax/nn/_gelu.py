"""GELU, with a backward pass that keeps nothing but its argument."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops import after
from converse_jax.ops import sharded_materialised as materialised


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``x Phi(x)``, Phi the normal distribution: the exact (erf) form, as in the paper's networks.

    ``d gelu / dx = Phi(x) + x phi(x)`` is computed from x again: JAX's own rule keeps the error
    function and the exponential of every map until the backward pass. Phi is written with erf, as
    PyTorch does, not with erfc as `jax.nn.gelu` does: three times as fast on CPUs, and equal but
    for x < -4, where the result is within 1e-6 of 0 either way.
    """
    return materialised(x * _cumulative(x))


def _cumulative(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def _fwd(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _bwd(x: Array, cotangent: Array) -> tuple[Array]:
    # XLA would otherwise find the error function of the forward pass again, and keep it.
    z = after(x, cotangent).astype(jnp.promote_types(x.dtype, jnp.float32))
    density = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    slope = _cumulative(z) + z * density
    return (materialised((slope * cotangent).astype(x.dtype)),)


gelu.defvjp(_fwd, _bwd)
