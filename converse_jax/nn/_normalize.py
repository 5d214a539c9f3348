"""Layer normalization and the 1x1 convolution behind it, as one matrix product."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.ops._memory import sharded_row_major


def normalized_linear(
    norm: nnx.LayerNorm, linear: nnx.Linear, x: Float[Array, "*batch C"], *, plain: bool = False
) -> Float[Array, "*batch D"]:
    """``linear(norm(x))``, with scale and shift of the normalization moved into the matrix.

    ``(n g + h) W + b = n (g W) + (h W + b)``: one fewer pass over the map. XLA's CPU backend would
    spread g, h and b to the size of the map, those of all layers at once, before it uses them. If
    `plain`, or if a layer is not what it seems, the layers themselves are called.
    """
    if plain or not (_is_standard(norm, nnx.LayerNorm) and _is_standard(linear, nnx.Linear)):
        return linear(norm(x))
    assert norm.scale is not None
    assert norm.bias is not None
    assert linear.bias is not None
    scale, shift = norm.scale[...], norm.bias[...]
    weight, bias = linear.kernel[...], linear.bias[...]
    moved = jnp.dot(shift, weight, precision=jax.lax.Precision.HIGHEST) + bias
    dtype = _dtype(linear, x)
    n = sharded_row_major(normalize(x, norm.epsilon).astype(dtype))
    return _affine(linear, n, scale[:, None] * weight, moved, dtype)


def plain_linear(
    linear: nnx.Linear, x: Float[Array, "*batch C"], *, plain: bool = False
) -> Float[Array, "*batch D"]:
    """``linear(x)``, whose bias XLA's CPU backend cannot spread to the size of the map either."""
    if plain or not _is_standard(linear, nnx.Linear):
        return linear(x)
    assert linear.bias is not None
    return _affine(linear, x, linear.kernel[...], linear.bias[...], _dtype(linear, x))


def _is_standard(layer: Any, kind: type) -> bool:
    """Whether a layer is of this very class and has a bias: no adapter, no quantized product."""
    if type(layer) is not kind or getattr(layer, "bias", None) is None:
        return False
    if isinstance(layer, nnx.LayerNorm):
        return layer.scale is not None and layer.feature_axes in (-1, (-1,))
    return getattr(layer, "dot_general", None) is jax.lax.dot_general


def _dtype(linear: nnx.Linear, x: Array) -> Any:
    return linear.dtype or jnp.result_type(x, linear.kernel[...])


def _affine(linear: nnx.Linear, x: Array, weight: Array, bias: Array, dtype: Any) -> Array:
    product = jnp.dot(x.astype(dtype), weight.astype(dtype), precision=linear.precision)
    return sharded_row_major(product) + bias.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalize(x: Float[Array, "*batch C"], eps: float) -> Float[Array, "*batch C"]:
    """``(x - mean) / sqrt(var + eps)`` over the last axis, computed in float32 at least.

    The variance is the mean of ``(x - mean)^2``: E[x^2] - mean^2 would cancel, and cost a digit.
    """
    return _centered(x, eps)[0]


def _centered(x: Array, eps: float) -> tuple[Array, Array]:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centered = x - _mean(x)
    inverse = jax.lax.rsqrt(_mean(centered * centered) + eps)
    return centered * inverse, inverse


def _mean(x: Array) -> Array:
    return sharded_row_major(jnp.mean(x, -1, keepdims=True))


def _fwd(x: Array, eps: float) -> tuple[Array, Array]:
    return normalize(x, eps), x


def _bwd(eps: float, x: Array, cotangent: Array) -> tuple[Any]:
    n, inverse = _centered(x, eps)
    gradient = inverse * (cotangent - _mean(cotangent) - n * _mean(cotangent * n))
    return (gradient.astype(x.dtype),)


normalize.defvjp(_fwd, _bwd)
