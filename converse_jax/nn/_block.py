"""The Transformer-like block of the paper's figure 2, with any spatial operator inside."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.nn._converse import Converse2D, Initializer, softmax_normal
from converse_jax.nn._depthwise import DepthwiseConv, DepthwiseConvTranspose
from converse_jax.nn._gelu import gelu
from converse_jax.nn._normalize import linear_with_bias, normalized_linear
from converse_jax.nn._recompute import recomputed
from converse_jax.ops import InitialEstimate, Method, PaddingMode

SpatialOperator = Callable[[Float[Array, "*batch H W C"]], Float[Array, "*batch H W C"]]


class Block(nnx.Module):
    """Spatial mixing, then channel mixing, each with layer normalization and a residual.

    `x = x + scale1 * project1(gelu(spatial(gelu(expand1(norm1(x))))))`
    `x = x + scale2 * project2(gelu(expand2(norm2(x))))`

    LayerNorm over the channels of each pixel (eps 1e-5), 1x1 convolutions C -> 2C and 2C -> C,
    exact GELU. The scales are 1, or learned per channel, initialized to 0. Layers may be replaced,
    e.g. by ones with adapters: anything but an `nnx.LayerNorm` or `nnx.Linear` with a bias is
    called as it is.
    """

    def __init__(
        self,
        num_features: int,
        spatial: Callable[[int], SpatialOperator],
        *,
        residual_scale: bool = False,
        recompute: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the block.

        Args:
            num_features: channels C.
            spatial: makes the spatial operator for a number of channels (called with 2C): a layer
                that keeps the shape of `[..., H, W, 2C]`.
            residual_scale: learn a factor for each channel of both branches, starting at 0 (the
                "alpha" of Converse-USRNet).
            recompute: compute normalizations and 1x1 convolutions again in the backward pass: a
                third less memory, and on CPUs less time, as the first touch of memory is slow
                there.
            dtype, param_dtype: types of the computation and of the parameters, as in Flax.
            precision: of the matrix products, as in Flax.
            rngs: random streams; `params` is drawn from.
        """
        wide = 2 * num_features
        shared: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        norm = functools.partial(nnx.LayerNorm, num_features, epsilon=1e-5, **shared)
        # A 1x1 convolution is a matrix product over the last axis.
        linear: Callable[..., nnx.Linear] = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(0.02), precision=precision, **shared
        )
        self.norm1 = norm()
        self.expand1 = linear(num_features, wide)
        self.spatial = spatial(wide)
        self.project1 = linear(wide, num_features)
        self.norm2 = norm()
        self.expand2 = linear(num_features, wide)
        self.project2 = linear(wide, num_features)
        self.recompute = recompute
        self.scale1 = nnx.Param(jnp.zeros(num_features, param_dtype)) if residual_scale else None
        self.scale2 = nnx.Param(jnp.zeros(num_features, param_dtype)) if residual_scale else None

    def __call__(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "*batch H W C"]:
        """Apply the block to maps `[..., H, W, C]`."""
        y = self.spatial(self._part(_expand, (self.norm1, self.expand1), x))
        x = _add(x, _scaled(self._part(_project, self.project1, y), self.scale1))
        mix = (self.norm2, self.expand2, self.project2)
        return _add(x, _scaled(self._part(_mix_channels, mix, x), self.scale2))

    def _part(self, fn: Callable[..., Array], modules: Any, x: Array) -> Array:
        return recomputed(fn, modules, x) if self.recompute else fn(modules, x)


def _expand(modules: tuple[Any, Any], x: Array) -> Array:
    return gelu(normalized_linear(*modules, x))


def _project(project: Any, y: Array) -> Array:
    return linear_with_bias(project, gelu(y))


def _mix_channels(modules: tuple[Any, Any, Any], x: Array) -> Array:
    norm, expand, project = modules
    return _project(project, normalized_linear(norm, expand, x))


def _add(x: Array, y: Array) -> Array:
    dtype = max(x.dtype, y.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
    return x.astype(dtype) + y.astype(dtype)


def _scaled(y: Array, scale: nnx.Param | None) -> Array:
    if scale is None:
        return y
    return y * jnp.expand_dims(scale[...].astype(y.dtype), tuple(range(y.ndim - 1)))


class ConverseBlock(Block):
    """The reverse convolution block: a `Block` whose spatial operator is `Converse2D`."""

    def __init__(
        self,
        num_features: int,
        kernel_size: int | tuple[int, int] = 5,
        *,
        padding: int | None = None,
        padding_mode: PaddingMode = "circular",
        eps: float = 1e-5,
        x0: InitialEstimate = "nearest",
        kernel_init: Initializer = softmax_normal,
        method: Method = "auto",
        residual_scale: bool = False,
        recompute: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the block; arguments as for `Converse2D` and `Block`."""
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        converse = functools.partial(
            Converse2D,
            kernel_size=kernel_size,
            padding=padding,
            padding_mode=padding_mode,
            eps=eps,
            x0=x0,
            kernel_init=kernel_init,
            method=method,
            **types,
        )
        super().__init__(
            num_features,
            converse,
            residual_scale=residual_scale,
            recompute=recompute,
            precision=precision,
            **types,
        )


class ConvBlock(Block):
    """The baseline: a `Block` whose spatial operator is a depthwise convolution."""

    def __init__(
        self,
        num_features: int,
        kernel_size: int | tuple[int, int] = 5,
        *,
        padding_mode: PaddingMode = "circular",
        residual_scale: bool = False,
        recompute: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the block; arguments as for `DepthwiseConv` and `Block`."""
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        super().__init__(
            num_features,
            functools.partial(
                DepthwiseConv, kernel_size=kernel_size, padding_mode=padding_mode, **types
            ),
            residual_scale=residual_scale,
            recompute=recompute,
            precision=precision,
            **types,
        )


class ConvTransposeBlock(Block):
    """The baseline: a `Block` with a depthwise transposed convolution of stride 1, zero padding."""

    def __init__(
        self,
        num_features: int,
        kernel_size: int | tuple[int, int] = 5,
        *,
        residual_scale: bool = False,
        recompute: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the block; arguments as for `DepthwiseConvTranspose` and `Block`."""
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        super().__init__(
            num_features,
            functools.partial(DepthwiseConvTranspose, kernel_size=kernel_size, **types),
            residual_scale=residual_scale,
            recompute=recompute,
            precision=precision,
            **types,
        )
