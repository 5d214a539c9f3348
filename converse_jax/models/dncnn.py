"""Gaussian denoising: Converse-DnCNN, its two siblings, and the DnCNN they descend from."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from converse_jax.models._cells import from_cells, to_cells
from converse_jax.models._initializers import given
from converse_jax.models._registry import register
from converse_jax.nn import (
    ConvBlock,
    ConverseBlock,
    ConvTransposeBlock,
    KernelInit,
    kernel_initializer,
    use_method,
)
from converse_jax.ops import InitialEstimate, Method, PaddingMode


def _inputs(config: Mapping[str, Any]) -> tuple[str, ...]:
    return ("sigma",) if config.get("noise_level") else ()


@register(task="denoise", inputs=_inputs)
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

    default_block: ClassVar[Callable[..., nnx.Module]] = ConverseBlock

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
        padding_mode: PaddingMode | None = None,
        x0: InitialEstimate | None = None,
        kernel_init: KernelInit | None = None,
        block: Callable[..., nnx.Module] | None = None,
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
            padding, padding_mode, x0: of the spatial operator, see `Converse2D`; None leaves the
                choice to the block.
            kernel_init: how the kernels of the spatial operators are drawn, see
                `nn.kernel_initializer`; None leaves the choice to the block.
            block: makes a block, with the arguments of `ConverseBlock`; None is that of the class.
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the matrix products.
            method: method of all reverse convolutions, see `converse2d`.
            rngs: random streams; `params` is used.

        Raises:
            ValueError: a downscale below 1, or an unknown option.
        """
        if downscale < 1:
            raise ValueError(f"downscale: got {downscale!r}; expected an integer >= 1")
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        linear: Callable[..., nnx.Linear] = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(0.02), rngs=rngs, **types
        )
        make_block = functools.partial(
            block or self.default_block,
            num_features,
            kernel_size,
            **given(
                padding=padding,
                padding_mode=padding_mode,
                x0=x0,
                kernel_init=kernel_init and kernel_initializer(kernel_init),
            ),
            rngs=rngs,
            **types,
        )
        cell = channels * downscale**2
        self.channels = channels
        self.downscale = downscale
        self.noise_level = noise_level
        self.residual = residual
        self.head = linear(cell + noise_level, num_features)
        self.body = nnx.List(make_block() for _ in range(num_blocks))
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
        y = to_cells(_continued(x, (*edge, (0, 0))), s)
        if sigma is not None:
            levels = _level_map(jnp.asarray(sigma, x.dtype), x.shape[:-1])
            levels = levels + jnp.zeros_like(x[..., 0])  # is sharded as the images are
            levels = to_cells(_continued(levels[..., None], (*edge, (0, 0))), s)
            levels = levels.mean(-1, keepdims=True)
            y = jnp.concatenate([y, levels], axis=-1)
        y = self.head(y)
        for block in self.body:
            y = block(y)
        y = from_cells(self.tail(y), s)[..., :height, :width, :]
        return x + y if self.residual else y


@register(task="denoise", inputs=_inputs)
class ConvDnCNN(ConverseDnCNN):
    """Conv-DnCNN: `ConverseDnCNN` with depthwise convolutions, circular padding.

    734,913 parameters.

    Source: the paper's table 4.
    """

    default_block = ConvBlock


@register(task="denoise", inputs=_inputs)
class ConvTransposeDnCNN(ConverseDnCNN):
    """ConvT-DnCNN: `ConverseDnCNN` with depthwise transposed convolutions, zero padding.

    734,913 parameters.

    Source: the paper's table 4.
    """

    default_block = ConvTransposeBlock


@register(task="denoise")
class DnCNN(nnx.Module):
    """17 convolutions of 3x3 with ReLU between, which predict the noise; 557,057 parameters.

    The 15 inner ones are followed by batch normalization. For inference it is merged into them
    (`for_inference`, as `train.export` does): 555,137 parameters.

    Source: K. Zhang, W. Zuo, Y. Chen, D. Meng, L. Zhang, "Beyond a Gaussian Denoiser: Residual
    Learning of Deep CNN for Image Denoising", IEEE TIP 2017; the paper's table 4.
    """

    def __init__(
        self,
        channels: int = 1,
        *,
        num_features: int = 64,
        num_layers: int = 17,
        batch_norm: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network.

        Args:
            channels: 1 for gray images, 3 for color.
            num_features: width.
            num_layers: convolutions in all, at least 2.
            batch_norm: normalize after the inner convolutions; running averages follow the batches
                with momentum 0.9 while it trains (`model.train()`), and replace them otherwise
                (`model.eval()`).
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the convolutions.
            rngs: random streams; `params` is used.

        Raises:
            ValueError: fewer than 2 layers.
        """
        if num_layers < 2:
            raise ValueError(f"num_layers: got {num_layers!r}; expected an integer >= 2")
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        conv: Callable[..., nnx.Conv] = functools.partial(
            nnx.Conv,
            kernel_size=(3, 3),
            kernel_init=nnx.initializers.he_normal(),
            precision=precision,
            **types,
        )
        self.channels = channels
        self.num_features = num_features
        self.head = conv(channels, num_features)
        self.body = nnx.List(conv(num_features, num_features) for _ in range(num_layers - 2))
        self.norms = nnx.List(
            nnx.BatchNorm(num_features, momentum=0.9, epsilon=1e-5, **types)
            for _ in range(num_layers - 2 if batch_norm else 0)
        )
        self.tail = conv(num_features, channels)

    def __call__(
        self, x: Float[Array | np.ndarray, "*batch H W C"]
    ) -> Float[Array, "*batch H W C"]:
        """Denoise images `[..., H, W, channels]` in [0, 1]; the result is not clipped."""
        images = jnp.asarray(x)
        y = nnx.relu(self.head(images))
        for conv, norm in itertools.zip_longest(self.body, self.norms):
            y = conv(y)
            y = nnx.relu(y if norm is None else norm(y))
        return images - self.tail(y)

    def for_inference(self) -> tuple[DnCNN, dict[str, Any]]:
        """The same function without batch normalization, and the arguments that change.

        `g (conv(x) - m) / sqrt(v + eps) + h`, with running mean m and variance v, is a convolution
        with the kernel times `g / sqrt(v + eps)`.
        """
        merged = nnx.clone(self)
        layers: Any = zip(merged.body, merged.norms, strict=False)  # no norms if already merged
        for conv, norm in layers:
            factor = norm.scale[...] / jnp.sqrt(norm.var[...] + norm.epsilon)
            conv.kernel[...] *= factor.reshape(1, 1, 1, -1)
            conv.bias[...] = (conv.bias[...] - norm.mean[...]) * factor + norm.bias[...]
        merged.norms = nnx.List([])
        return merged, {"batch_norm": False}


def _continued(x: Array, edge: tuple[tuple[int, int], ...]) -> Array:
    """Pad a map by repeating its last row and column."""
    if not any(map(any, edge)):
        return x
    return jnp.pad(x, ((0, 0),) * (x.ndim - 3) + edge, mode="edge")


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
