"""Super-resolution: Converse-SRResNet, its two siblings, and SRResNet with four up-samplers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.models._cells import from_cells
from converse_jax.models._initializers import given, torch_uniform, uniform_conv
from converse_jax.models._registry import register
from converse_jax.nn import (
    ConvBlock,
    Converse2D,
    ConverseBlock,
    ConvTransposeBlock,
    DepthwiseConv,
    DepthwiseConvTranspose,
    gelu,
    use_method,
)
from converse_jax.ops import InitialEstimate, Method, PaddingMode
from converse_jax.ops._checks import check_choice

STEPS = {2: (2,), 3: (3,), 4: (2, 2)}

Upsampler = Literal["pixel_shuffle", "nearest", "conv_transpose", "converse"]


class _BlockSRResNet(nnx.Module):
    """1x1 in, GELU, blocks, layers that enlarge, 1x1 out, plus the bilinear input."""

    def __init__(
        self,
        scale: int,
        channels: int,
        num_features: int,
        num_blocks: int,
        *,
        make_block: Callable[[], nnx.Module],
        make_upsampler: Callable[..., nnx.Module],
        num_up_blocks: int | None,
        high_block: bool,
        tail_bias: bool,
        rngs: nnx.Rngs,
        **types: Any,
    ) -> None:
        if scale not in STEPS:
            raise ValueError(f"scale: got {scale!r}; expected 2, 3 or 4")
        linear: Callable[..., nnx.Linear] = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(0.02), rngs=rngs, **types
        )
        steps = STEPS[scale]
        self.scale = scale
        self.channels = channels
        self.head = linear(channels, num_features)
        self.body = nnx.List(make_block() for _ in range(num_blocks))
        self.up_blocks = nnx.List(make_block() for _ in steps[:num_up_blocks])
        self.upsamplers = nnx.List(make_upsampler(scale=step) for step in steps)
        self.high_block = make_block() if high_block else None
        self.tail = linear(num_features, channels, use_bias=tail_bias)

    def __call__(
        self, x: Float[Array | np.ndarray, "*batch H W C"]
    ) -> Float[Array, "*batch sH sW C"]:
        """Enlarge images `[..., H, W, channels]` in [0, 1]; the result is not clipped."""
        images = jnp.asarray(x)
        y = gelu(self.head(images))
        for block in self.body:
            y = block(y)
        for block, upsampler in itertools.zip_longest(self.up_blocks, self.upsamplers):
            y = gelu(upsampler(y if block is None else block(y)))
        if self.high_block is not None:
            y = gelu(self.high_block(y))
        return self.tail(y) + _bilinear(images, self.scale)


def _bilinear(images: Array, scale: int) -> Array:
    *batch, height, width, channels = images.shape
    return jax.image.resize(images, (*batch, scale * height, scale * width, channels), "bilinear")


@register(task="sr")
class ConverseSRResNet(_BlockSRResNet):
    """Blocks at low resolution, reverse convolutions that enlarge, plus the bilinear input.

    1x1 in, GELU, 16 blocks; for each step a block, `Converse2D` (2x2 kernel, stride 2, or 3 for
    x3) and GELU; a block, GELU, 1x1 out without bias. Defaults are as released for x4: 5x5 kernels,
    replicate padding, eps 1e-3 in the up-sampling layers, 699,072 parameters.

    The cost of a block is proportional to the size of its map, so the last one of x4 costs as much
    as the 16 of the body. With `high_blocks=False` the blocks after the first enlargement are
    left out.

    Source: the paper's section 5.2 and figure 3b; leaving blocks out is ours.
    """

    default_block: ClassVar[Callable[..., nnx.Module]] = ConverseBlock

    def __init__(
        self,
        scale: int = 4,
        channels: int = 3,
        *,
        num_features: int = 64,
        num_blocks: int = 16,
        kernel_size: int = 5,
        padding: int | None = None,
        padding_mode: PaddingMode = "replicate",
        x0: InitialEstimate = "nearest",
        high_blocks: bool = True,
        block: Callable[..., nnx.Module] | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        method: Method = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network.

        Args:
            scale: 2, 3 or 4 (two steps of 2).
            channels: 3 for color images, 1 for gray.
            num_features: width.
            num_blocks: depth of the low-resolution part.
            kernel_size: side of the kernels of each block's spatial operator.
            padding: padding of the spatial operator; None leaves the choice to the block.
            padding_mode: padding mode of the spatial operator and of the up-sampling layers.
            x0: initial estimate of the up-sampling layers (the paper's table 3).
            high_blocks: use blocks above the input resolution too.
            block: makes a block, with the arguments of `ConverseBlock`; None is that of the class.
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the matrix products.
            method: method of all reverse convolutions, see `converse2d`.
            rngs: random streams; `params` is used.

        Raises:
            ValueError: a scale other than 2, 3 or 4.
        """
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        super().__init__(
            scale,
            channels,
            num_features,
            num_blocks,
            make_block=functools.partial(
                block or self.default_block,
                num_features,
                kernel_size,
                **given(padding=padding),
                padding_mode=padding_mode,
                rngs=rngs,
                **types,
            ),
            make_upsampler=functools.partial(
                Converse2D,
                num_features,
                2,
                padding=2,
                padding_mode=padding_mode,
                eps=1e-3,
                x0=x0,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            ),
            num_up_blocks=None if high_blocks else 1,
            high_block=high_blocks,
            tail_bias=False,
            rngs=rngs,
            **types,
        )
        use_method(self, method)


@register(task="sr")
class ConvSRResNet(_BlockSRResNet):
    """Conv-SRResNet: depthwise convolutions in the blocks and behind nearest-neighbor enlargement.

    1x1 in, GELU, 16 blocks (5x5, replicate padding); for each step nearest neighbors, a row and a
    column of zeros at the bottom and the right, a depthwise 2x2 convolution and GELU; a block,
    GELU, 1x1 out; plus the bilinear input.

    Source: the paper's table 5.
    """

    default_block: ClassVar[Callable[..., nnx.Module]] = ConvBlock
    default_padding_mode: ClassVar[PaddingMode | None] = "replicate"

    def __init__(
        self,
        scale: int = 4,
        channels: int = 3,
        *,
        num_features: int = 64,
        num_blocks: int = 16,
        kernel_size: int = 5,
        padding_mode: PaddingMode | None = None,
        block: Callable[..., nnx.Module] | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network; arguments as for `ConverseSRResNet`.

        Without a `padding_mode` it is that of the class, if its blocks take one.
        """
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        super().__init__(
            scale,
            channels,
            num_features,
            num_blocks,
            make_block=functools.partial(
                block or self.default_block,
                num_features,
                kernel_size,
                **given(padding_mode=padding_mode or self.default_padding_mode),
                precision=precision,
                **types,
            ),
            make_upsampler=functools.partial(self.make_upsampler, num_features, **types),
            num_up_blocks=0,
            high_block=True,
            tail_bias=True,
            precision=precision,
            **types,
        )

    @staticmethod
    def make_upsampler(num_features: int, *, scale: int, **types: Any) -> nnx.Module:
        """The layers of one step."""
        convolution = DepthwiseConv(num_features, 2, padding_mode="constant", **types)
        return nnx.Sequential(Nearest(scale), convolution)


@register(task="sr")
class ConvTransposeSRResNet(ConvSRResNet):
    """ConvT-SRResNet: depthwise transposed convolutions in the blocks and to enlarge.

    1x1 in, GELU, 16 blocks (5x5, zero padding); for each step a depthwise transposed convolution
    (5x5, stride 2, padding 2), which makes 2H - 1 rows of H, a row and a column of zeros at the top
    and the left, and GELU; a block, GELU, 1x1 out; plus the bilinear input.

    Source: the paper's table 5. It does not say what the blocks are; 5x5, padding 2 is our choice.
    """

    default_block = ConvTransposeBlock
    default_padding_mode = None

    @staticmethod
    def make_upsampler(num_features: int, *, scale: int, **types: Any) -> nnx.Module:
        """The layers of one step."""
        convolution = DepthwiseConvTranspose(num_features, 5, scale=scale, **types)
        return nnx.Sequential(convolution, ZerosAbove(scale - 1))


class Nearest(nnx.Module):
    """Repeats every pixel `scale x scale` times."""

    def __init__(self, scale: int) -> None:
        """Take the factor."""
        self.scale = scale

    def __call__(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "*batch sH sW C"]:
        """Enlarge maps."""
        return jnp.repeat(jnp.repeat(x, self.scale, axis=-3), self.scale, axis=-2)


class PixelShuffle(nnx.Module):
    """Makes `scale x scale` pixels of each, from groups of channels."""

    def __init__(self, scale: int) -> None:
        """Take the factor."""
        self.scale = scale

    def __call__(self, x: Float[Array, "*batch H W ssC"]) -> Float[Array, "*batch sH sW C"]:
        """Enlarge maps."""
        return from_cells(x, self.scale)


class ZerosAbove(nnx.Module):
    """Puts rows and columns of zeros at the top and the left."""

    def __init__(self, size: int) -> None:
        """Take their number."""
        self.size = size

    def __call__(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "*batch sH sW C"]:
        """Pad maps."""
        border = (self.size, 0)
        return jnp.pad(x, [*[(0, 0)] * (x.ndim - 3), border, border, (0, 0)])


@register(task="sr")
class SRResNet(nnx.Module):
    """SRResNet without batch normalization, with any of the up-samplers of the paper's table 6.

    3x3 in, 16 residual blocks (3x3, ReLU, 3x3); for each step an up-sampler; 3x3, 3x3 out; plus the
    bilinear input. 1,517,571 parameters with pixel shuffle. Between the parts is LeakyReLU of slope
    0.1 with pixel shuffle, as in the released MSRResNet, and GELU with the others.

    The up-samplers, for a step s: "pixel_shuffle", 3x3 to s*s times the channels, which become
    pixels; "nearest", nearest neighbors and 3x3; "conv_transpose", depthwise transposed s x s
    convolution of stride s and 3x3; "converse", 3x3 and `Converse2D` (2x2, circular padding 2).

    Source: C. Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative
    Adversarial Network", CVPR 2017; the paper's tables 5 and 6.
    """

    def __init__(
        self,
        scale: int = 4,
        channels: int = 3,
        *,
        num_features: int = 64,
        num_blocks: int = 16,
        upsampler: Upsampler = "pixel_shuffle",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        method: Method = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network.

        Args:
            scale: 2, 3 or 4 (two steps of 2).
            channels: 3 for color images, 1 for gray.
            num_features: width.
            num_blocks: residual blocks.
            upsampler: how maps are enlarged.
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the convolutions.
            method: method of all reverse convolutions, see `converse2d`.
            rngs: random streams; `params` is used.

        Raises:
            ValueError: another scale or up-sampler.
        """
        if scale not in STEPS:
            raise ValueError(f"scale: got {scale!r}; expected 2, 3 or 4")
        check_choice("upsampler", upsampler, Upsampler)
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        conv: Callable[..., nnx.Conv] = functools.partial(
            uniform_conv, precision=precision, **types
        )
        self.scale = scale
        self.channels = channels
        self.activation = _leaky_relu if upsampler == "pixel_shuffle" else gelu
        self.head = conv(channels, num_features)
        self.body = nnx.List(
            nnx.Dict(conv1=conv(num_features, num_features), conv2=conv(num_features, num_features))
            for _ in range(num_blocks)
        )
        self.upsamplers = nnx.List(
            _make_upsampler(upsampler, num_features, step, conv, types) for step in STEPS[scale]
        )
        self.high = conv(num_features, num_features)
        self.tail = conv(num_features, channels)
        use_method(self, method)

    def __call__(
        self, x: Float[Array | np.ndarray, "*batch H W C"]
    ) -> Float[Array, "*batch sH sW C"]:
        """Enlarge images `[..., H, W, channels]` in [0, 1]; the result is not clipped."""
        images = jnp.asarray(x)
        y = self.activation(self.head(images))
        for block in self.body:
            y = y + block["conv2"](nnx.relu(block["conv1"](y)))
        for upsampler in self.upsamplers:
            y = self.activation(upsampler(y))
        y = self.activation(self.high(y))
        return self.tail(y) + _bilinear(images, self.scale)


def _make_upsampler(
    kind: Upsampler,
    num_features: int,
    scale: int,
    conv: Callable[[int, int], nnx.Conv],
    types: dict[str, Any],
) -> nnx.Module:
    if kind == "pixel_shuffle":
        return nnx.Sequential(conv(num_features, scale**2 * num_features), PixelShuffle(scale))
    if kind == "nearest":
        return nnx.Sequential(Nearest(scale), conv(num_features, num_features))
    if kind == "conv_transpose":
        init = torch_uniform(scale**2)
        enlarge = DepthwiseConvTranspose(
            num_features, scale, scale=scale, kernel_init=init, bias_init=init, **types
        )
        return nnx.Sequential(enlarge, conv(num_features, num_features))
    return nnx.Sequential(
        conv(num_features, num_features),
        Converse2D(num_features, 2, scale=scale, padding=2, **types),
    )


def _leaky_relu(x: Array) -> Array:
    return nnx.leaky_relu(x, 0.1)
