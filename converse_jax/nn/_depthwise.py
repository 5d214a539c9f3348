"""Depthwise convolution and transposed convolution: what reverse convolution is compared with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.nn._converse import Initializer, kernel_shape
from converse_jax.ops import PaddingMode
from converse_jax.ops._checks import check_choice, check_padding, compute_dtype, integer
from converse_jax.ops._function import trilinear
from converse_jax.ops._memory import sharded_row_major
from converse_jax.ops._pad import pad_map

_NORMAL: Initializer = nnx.initializers.normal(0.02)
_ZEROS: Initializer = nnx.initializers.zeros_init()


class _Depthwise(nnx.Module):
    """A kernel and a bias for each channel."""

    def __init__(
        self,
        num_features: int,
        kernel_size: int | tuple[int, int] = 5,
        *,
        kernel_init: Initializer = _NORMAL,
        bias_init: Initializer = _ZEROS,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.num_features = num_features
        self.dtype = dtype
        shape = kernel_shape(kernel_size, 2)
        self.kernel = nnx.Param(kernel_init(rngs.params(), (*shape, num_features), param_dtype))
        self.bias = nnx.Param(bias_init(rngs.params(), (num_features,), param_dtype))

    def _typed(self, x: Array) -> tuple[Array, Array, Array]:
        kernel, bias = self.kernel[...], self.bias[...]
        dtype = jnp.result_type(x, kernel) if self.dtype is None else self.dtype
        # An array of the same rank: its type says that it is broadcast, also over sharded axes.
        bias = jnp.expand_dims(bias.astype(dtype), tuple(range(x.ndim - 1)))
        return x.astype(dtype), kernel.astype(dtype), bias


class DepthwiseConv(_Depthwise):
    """Depthwise convolution that keeps the size of its map; correlation, as in all such layers.

    `y[i, j] = sum_ab kernel[a, b] x[i + a - (kh - 1) // 2, j + b - (kw - 1) // 2] + bias`.

    Parameters: `kernel` `[kh, kw, C]`, normal with std 0.02; `bias` `[C]`, zero.
    """

    def __init__(
        self,
        num_features: int,
        kernel_size: int | tuple[int, int] = 5,
        *,
        padding_mode: PaddingMode = "circular",
        **options: Any,
    ) -> None:
        """Make the layer.

        Args:
            num_features: channels C.
            kernel_size: taps on each side, or `(kh, kw)`.
            padding_mode: how the map is continued, as for `converse2d`; an even kernel reaches
                farther to the right and the bottom.
            **options: `kernel_init`, `bias_init`, `dtype`, `param_dtype` and `rngs`, as for
                `Converse2D`.
        """
        check_choice("padding_mode", padding_mode, PaddingMode)
        super().__init__(num_features, kernel_size, **options)
        self.padding_mode = padding_mode

    def __call__(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "*batch H W C"]:
        """Filter maps `[..., H, W, C]`."""
        x, kernel, bias = self._typed(x)
        height, width = x.shape[-3:-1]
        kh, kw, _ = kernel.shape
        border = max(kh, kw) // 2
        check_padding(border, self.padding_mode, (height, width))
        x = pad_map(x, border, self.padding_mode, -3)
        top, left = border - (kh - 1) // 2, border - (kw - 1) // 2
        x = x[..., top : top + height + kh - 1, left : left + width + kw - 1, :]
        return correlate(x, kernel) + bias


class DepthwiseConvTranspose(_Depthwise):
    """Depthwise transposed convolution, from `[..., H, W, C]` to `[..., sH - s + k - 2p, ..., C]`.

    `y[i, j] = sum_ab x[a, b] kernel[i + p - s a, j + p - s b] + bias`, x being 0 outside: the
    adjoint of a convolution of stride s with zero padding p. The map keeps its size for s = 1 and
    odd kernels.

    Parameters: as `DepthwiseConv`.
    """

    def __init__(
        self,
        num_features: int,
        kernel_size: int | tuple[int, int] = 5,
        *,
        scale: int = 1,
        **options: Any,
    ) -> None:
        """Make the layer.

        Args:
            num_features: channels C.
            kernel_size: taps on each side, or `(kh, kw)`; p is `(k - 1) // 2`.
            scale: the stride s.
            **options: as for `DepthwiseConv`.
        """
        super().__init__(num_features, kernel_size, **options)
        self.scale = integer("scale", scale, 1)

    def __call__(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "*batch sH sW C"]:
        """Apply the layer to maps `[..., H, W, C]`."""
        x, kernel, bias = self._typed(x)
        kh, kw, _ = kernel.shape
        around = [(k - 1 - (k - 1) // 2,) * 2 for k in (kh, kw)]
        zeros = [(0, 0, 0)] * (x.ndim - 3)
        spread = [(*sides, self.scale - 1) for sides in around]
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), [*zeros, *spread, (0, 0, 0)])
        return correlate(x, kernel[::-1, ::-1]) + bias


def _correlate(x: Array, kernel: Array) -> Array:
    """`y[i, j] = sum_ab kernel[a, b] x[i + a, j + b]`, where all of x is defined.

    XLA's CPU backend takes 30 times as long for a convolution of as many groups as channels.
    """
    kh, kw, _ = kernel.shape
    wide = compute_dtype(x)
    taps = jnp.reshape(kernel.astype(wide), (kh, kw, *(1,) * (x.ndim - 1), kernel.shape[-1]))
    height, width = x.shape[-3] - kh + 1, x.shape[-2] - kw + 1
    terms = (
        x[..., a : a + height, b : b + width, :].astype(wide) * taps[a, b]
        for a in range(kh)
        for b in range(kw)
    )
    # Else the sum would be computed again for each of its uses.
    return sharded_row_major(functools.reduce(jnp.add, terms).astype(x.dtype))


def _correlate_adjoint(y: Array, kernel: Array) -> Array:
    """The cotangent of x: correlation of the enlarged map with the reversed kernel."""
    kh, kw, _ = kernel.shape
    around = [(kh - 1,) * 2, (kw - 1,) * 2]
    padded = jnp.pad(y, [*[(0, 0)] * (y.ndim - 3), *around, (0, 0)])
    return _correlate(padded, kernel[::-1, ::-1])


def _correlate_taps(x: Array, y: Array) -> Array:
    """The cotangent of the kernel: `sum_ij x[i + a, j + b] y[i, j]`."""
    height, width, channels = y.shape[-3:]
    kh, kw = x.shape[-3] - height + 1, x.shape[-2] - width + 1
    wide = compute_dtype(x)

    def tap(index: Array) -> Array:
        rows = jax.lax.dynamic_slice_in_dim(x, index // kw, height, x.ndim - 3)
        part = jax.lax.dynamic_slice_in_dim(rows, index % kw, width, x.ndim - 2)
        return jnp.sum(part.astype(wide) * y.astype(wide), (-3, -2))

    # One after another: as one program the CPU backend takes ten times as long. Examples, which may
    # be shared by devices, are summed last, in one exchange.
    taps = jax.lax.map(tap, jnp.arange(kh * kw))
    taps = jnp.sum(taps, tuple(range(1, taps.ndim - 1)))
    return taps.reshape(kh, kw, channels).astype(x.dtype)


correlate: Callable[[Array, Array], Array]
correlate, _, _ = trilinear(_correlate, _correlate_adjoint, _correlate_taps)
