"""Layer normalization and the 1x1 convolution behind it, as one matrix product."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.ops._checks import compute_dtype
from converse_jax.ops._function import Function
from converse_jax.ops._memory import sharded_row_major

_CALLS: dict[Any, Any] = {kind: kind.__call__ for kind in (nnx.LayerNorm, nnx.Linear)}


def normalized_linear(
    norm: Any, linear: Any, x: Float[Array, "*batch C"]
) -> Float[Array, "*batch D"]:
    """`linear(norm(x))`, with scale and shift of the normalization moved into the matrix.

    `(n g + h) W + b = n (g W) + (h W + b)`: one fewer pass over the map. XLA's CPU backend would
    spread g, h and b to the size of the map, those of all layers at once, before it uses them. If
    a layer is not a standard one, the layers themselves are called.
    """
    of_norm, of_linear = _parameters(norm, nnx.LayerNorm), _parameters(linear, nnx.Linear)
    if of_norm is None or of_linear is None:
        return linear(norm(x))
    (scale, shift), (weight, bias) = of_norm, of_linear
    moved = jnp.dot(shift, weight, precision=jax.lax.Precision.HIGHEST) + bias
    n = sharded_row_major(normalize(x, norm.epsilon).astype(_dtype(linear, x)))
    return _affine(linear, n, scale[:, None] * weight, moved)


def linear_with_bias(linear: Any, x: Float[Array, "*batch C"]) -> Float[Array, "*batch D"]:
    """`linear(x)`, whose bias XLA's CPU backend cannot spread to the size of the map either."""
    parameters = _parameters(linear, nnx.Linear)
    if parameters is None:
        return linear(x)
    return _affine(linear, x.astype(_dtype(linear, x)), *parameters)


def _parameters(layer: Any, kind: Any) -> tuple[Array, Array] | None:
    """Weight and bias, or None unless it is a standard layer: no adapter, no quantized product.

    Nor one whose class has another `__call__` for now, as under `nnx.tabulate`.
    """
    if type(layer) is not kind or kind.__call__ is not _CALLS[kind] or layer.bias is None:
        return None
    if kind is nnx.LayerNorm:
        axes = (layer.feature_axes, layer.reduction_axes)
        weight, standard = layer.scale, axes in ((-1, -1), ((-1,), (-1,)), (-1, (-1,)), ((-1,), -1))
        standard = standard and layer.axis_name is None
    else:
        weight, standard = layer.kernel, layer.dot_general is jax.lax.dot_general
    return (weight[...], layer.bias[...]) if standard and weight is not None else None


def _dtype(linear: Any, x: Array) -> Any:
    return linear.dtype or jnp.result_type(x, linear.kernel[...])


def _affine(linear: Any, x: Array, weight: Array, bias: Array) -> Array:
    product = jnp.dot(x, weight.astype(x.dtype), precision=linear.precision)
    # An array of the same rank: its type says that it is broadcast, also over sharded axes.
    bias = jnp.expand_dims(bias.astype(x.dtype), tuple(range(x.ndim - 1)))
    return sharded_row_major(product) + bias


def normalize(x: Float[Array, "*batch C"], eps: float) -> Float[Array, "*batch C"]:
    """`(x - mean) / sqrt(var + eps)` over the last axis, computed in float32 at least.

    The variance is the mean of `(x - mean)^2`: E[x^2] - mean^2 would cancel, and cost a digit.
    The backward pass keeps x alone.
    """
    return _normalize(eps)(x)


@functools.cache
def _normalize(eps: float) -> Function:
    def centered(x: Array) -> tuple[Array, Array]:
        x = x.astype(compute_dtype(x))
        centered = x - _mean(x)
        inverse = jax.lax.rsqrt(_mean(centered * centered) + eps)
        return centered * inverse, inverse

    def backward(x: Array, cotangent: Array) -> tuple[Array]:
        n, inverse = centered(x)
        gradient = inverse * (cotangent - _mean(cotangent) - n * _mean(cotangent * n))
        return (gradient.astype(x.dtype),)

    return Function(lambda x: centered(x)[0], vjp=backward)


def _mean(x: Array) -> Array:
    return sharded_row_major(jnp.mean(x, -1, keepdims=True))
