"""Converse-DnCNN: Gaussian denoising."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from converse_jax.models._registry import register
from converse_jax.nn import ConverseBlock, use_method
from converse_jax.ops import Method, PaddingMode


@register(task="denoise", inputs=lambda config: ("sigma",) if config.get("noise_level") else ())
class ConverseDnCNN(nnx.Module):
    """1x1 in, 20 reverse convolution blocks, 1x1 out; no global residual.

    Defaults are the paper's: 5x5 kernels, circular padding 4, 734,913 parameters. The authors'
    released weights have 7x7 kernels and padding 6, 796,353 parameters.

    Three options make it a fast denoiser. With `downscale = s` the blocks see maps at 1/s of the
    resolution, whose channels are the s x s pixels of each cell, at 1/s^2 of the cost; images whose
    sides are not multiples of s are padded at the right and the bottom, and cropped again. With
    `noise_level` one network serves all levels: `model(x, sigma)`. With `residual` it learns
    the difference from its input.

    Source: the paper's section 5.1 and figure 3a. Cells as channels and the level as an input
    follow K. Zhang, W. Zuo, L. Zhang, "FFDNet: Toward a Fast and Flexible Solution for CNN-based
    Image Denoising", IEEE TIP 2018.
    """

    def __init__(
        self,
        channels: int = 1,
        *,
        num_features: int = 64,
        num_blocks: int = 20,
        kernel_size: int = 5,
        downscale: int = 1,
        noise_level: bool = False,
        residual: bool = False,
        padding: int | None = None,
        padding_mode: PaddingMode = "circular",
        block: Callable[..., nnx.Module] = ConverseBlock,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        method: Method = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network.

        Args:
            channels: 1 for gray images, 3 for color.
            num_features: width.
            num_blocks: depth.
            kernel_size: side of the kernels of each block's spatial operator.
            downscale: side of the cells of pixels that the blocks see as one.
            noise_level: take the noise level as one more channel.
            residual: add the input to the output.
            padding: padding of the spatial operator; None means `kernel_size - 1`.
            padding_mode: padding mode of the spatial operator.
            block: makes a block, with the arguments of `ConverseBlock`.
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the matrix products.
            method: method of all reverse convolutions, see `converse2d`.
            rngs: random streams; `params` is used.

        Raises:
            ValueError: a downscale below 1.
        """
        if downscale < 1:
            raise ValueError(f"downscale: got {downscale!r}; expected an integer >= 1")
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        linear: Callable[..., nnx.Linear] = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(0.02), rngs=rngs, **types
        )
        cell = channels * downscale**2
        self.channels = channels
        self.downscale = downscale
        self.noise_level = noise_level
        self.residual = residual
        self.head = linear(cell + noise_level, num_features)
        self.body = nnx.List(
            block(
                num_features,
                kernel_size,
                padding=padding,
                padding_mode=padding_mode,
                rngs=rngs,
                **types,
            )
            for _ in range(num_blocks)
        )
        self.tail = linear(num_features, cell)
        use_method(self, method)

    def __call__(
        self, x: Float[Array | np.ndarray, "*batch H W C"], sigma: ArrayLike | None = None
    ) -> Float[Array, "*batch H W C"]:
        """Denoise images `[..., H, W, channels]` in [0, 1]; the result is not clipped.

        Args:
            x: images.
            sigma: for a network with `noise_level` only: the standard deviation of the noise in the
                units of x. One number, one for each image `[...]`, or a map `[..., H, W]`.

        Raises:
            ValueError: a level that is missing, not taken, or of a wrong shape.
        """
        if self.noise_level != (sigma is not None):
            raise ValueError(
                "sigma: got none, but the network takes the noise level: model(x, sigma)"
                if self.noise_level
                else "sigma: the network takes no noise level (noise_level=False); leave it out"
            )
        x = jnp.asarray(x)
        height, width = x.shape[-3:-1]
        s = self.downscale
        edge = ((0, -height % s), (0, -width % s))
        y = _to_cells(_continued(x, (*edge, (0, 0))), s)
        if sigma is not None:
            levels = _level_map(jnp.asarray(sigma, x.dtype), x.shape[:-1])
            levels = levels + jnp.zeros_like(x[..., 0])  # is sharded as the images are
            levels = _to_cells(_continued(levels[..., None], (*edge, (0, 0))), s)
            levels = levels.mean(-1, keepdims=True)
            y = jnp.concatenate([y, levels], axis=-1)
        y = self.head(y)
        for block in self.body:
            y = block(y)
        y = _from_cells(self.tail(y), s)[..., :height, :width, :]
        return x + y if self.residual else y


def _continued(x: Array, edge: tuple[tuple[int, int], ...]) -> Array:
    """Pad a map by repeating its last row and column."""
    if not any(map(any, edge)):
        return x
    return jnp.pad(x, ((0, 0),) * (x.ndim - 3) + edge, mode="edge")


def _to_cells(x: Array, s: int) -> Array:
    """`[..., s H, s W, C] -> [..., H, W, s s C]`: space to depth."""
    if s == 1:
        return x
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height // s, s, width // s, s, channels)
    x = jnp.moveaxis(x, -4, -3)
    return x.reshape(*batch, height // s, width // s, s * s * channels)


def _from_cells(x: Array, s: int) -> Array:
    """`[..., H, W, s s C] -> [..., s H, s W, C]`: depth to space, the inverse of `_to_cells`."""
    if s == 1:
        return x
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height, width, s, s, channels // (s * s))
    x = jnp.moveaxis(x, -3, -4)
    return x.reshape(*batch, height * s, width * s, channels // (s * s))


def _level_map(sigma: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Noise levels `[]`, `[...]` or `[..., H, W]` as a map `[..., H, W]`."""
    if sigma.shape == shape[:-2]:
        sigma = sigma[..., None, None]
    elif sigma.ndim and sigma.shape[-2:] != shape[-2:]:
        raise ValueError(
            f"sigma: got shape {sigma.shape}; expected a number, one per image {shape[:-2]}, or "
            f"a map {shape}"
        )
    return jnp.broadcast_to(sigma, shape)
