"""GELU, with a backward pass that keeps nothing but its argument."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``x Phi(x)``, Phi the normal distribution: the exact (erf) form, as in the paper's networks.

    ``d gelu / dx = Phi(x) + x phi(x)`` is computed from x again: JAX's own rule keeps the error
    function and the exponential of every map until the backward pass.
    """
    return jax.nn.gelu(x, approximate=False)


def _fwd(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _bwd(x: Array, cotangent: Array) -> tuple[Array]:
    exact = jnp.promote_types(x.dtype, jnp.float32)
    # Made to depend on the cotangent (the second term is exactly 0, even where that is not finite):
    # XLA would otherwise find the error function of the forward pass again, and keep it.
    z = x.astype(exact) + 0 * (cotangent > 0).astype(exact)
    cumulative = 0.5 * jax.lax.erfc(-z * math.sqrt(0.5))
    density = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return (((cumulative + z * density) * cotangent).astype(x.dtype),)


gelu.defvjp(_fwd, _bwd)
