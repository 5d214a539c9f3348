"""Layer normalisation and the 1x1 convolution behind it, as one matrix product."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.ops import sharded_materialised as materialised


def normalised_linear(
    norm: nnx.LayerNorm, linear: nnx.Linear, x: Float[Array, "*batch C"]
) -> Float[Array, "*batch D"]:
    """``linear(norm(x))``, with scale and shift of the normalisation moved into the matrix.

    ``(n g + h) W + b = n (g W) + (h W + b)``: one pass over the map less. XLA's CPU backend would
    spread g, h and b to the size of the map, those of all layers at once, before it uses them.
    """
    assert norm.scale is not None
    assert norm.bias is not None
    assert linear.bias is not None
    scale, shift = norm.scale[...], norm.bias[...]
    weight, bias = linear.kernel[...], linear.bias[...]
    moved = jnp.dot(shift, weight, precision=jax.lax.Precision.HIGHEST) + bias
    dtype = _dtype(linear, x)
    n = materialised(normalise(x, norm.epsilon).astype(dtype))
    return _affine(linear, n, scale[:, None] * weight, moved, dtype)


def plain_linear(linear: nnx.Linear, x: Float[Array, "*batch C"]) -> Float[Array, "*batch D"]:
    """``linear(x)``, whose bias XLA's CPU backend cannot spread to the size of the map either."""
    assert linear.bias is not None
    return _affine(linear, x, linear.kernel[...], linear.bias[...], _dtype(linear, x))


def _dtype(linear: nnx.Linear, x: Array) -> Any:
    return linear.dtype or jnp.result_type(x, linear.kernel[...])


def _affine(linear: nnx.Linear, x: Array, weight: Array, bias: Array, dtype: Any) -> Array:
    product = jnp.dot(x.astype(dtype), weight.astype(dtype), precision=linear.precision)
    return materialised(product) + bias.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalise(x: Float[Array, "*batch C"], eps: float) -> Float[Array, "*batch C"]:
    """``(x - mean) / sqrt(var + eps)`` over the last axis, computed in float32 at least.

    The variance is the mean of ``(x - mean)^2``: E[x^2] - mean^2 would cancel, and cost a digit.
    """
    return _centred(x, eps)[0]


def _centred(x: Array, eps: float) -> tuple[Array, Array]:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = x - _mean(x)
    inverse = jax.lax.rsqrt(_mean(centred * centred) + eps)
    return centred * inverse, inverse


def _mean(x: Array) -> Array:
    return materialised(jnp.mean(x, -1, keepdims=True))


def _fwd(x: Array, eps: float) -> tuple[Array, Array]:
    return normalise(x, eps), x


def _bwd(eps: float, x: Array, cotangent: Array) -> tuple[Any]:
    n, inverse = _centred(x, eps)
    gradient = inverse * (cotangent - _mean(cotangent) - n * _mean(cotangent * n))
    return (gradient.astype(x.dtype),)


normalise.defvjp(_fwd, _bwd)
