"""Converse-SRResNet: super-resolution."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.models._registry import register
from converse_jax.nn import Converse2D, ConverseBlock, gelu, use_method
from converse_jax.ops import InitialEstimate, Method, PaddingMode

STEPS = {2: (2,), 3: (3,), 4: (2, 2)}


@register(task="sr")
class ConverseSRResNet(nnx.Module):
    """Blocks at low resolution, reverse convolutions that enlarge, plus the bilinear input.

    1x1 in, GELU, 16 blocks; for each step a block, `Converse2D` (2x2 kernel, stride 2, or 3 for
    x3) and GELU; a block, GELU, 1x1 out without bias. Defaults are as released for x4: 5x5 kernels,
    replicate padding, eps 1e-3 in the up-sampling layers, 699,072 parameters.

    The cost of a block is proportional to the size of its map, so the last one of x4 costs as much
    as the 16 of the body. With `high_blocks=False` the blocks after the first enlargement are
    left out.

    Source: the paper's section 5.2 and figure 3b; leaving blocks out is ours.
    """

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
        block: Callable[..., nnx.Module] = ConverseBlock,
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
            padding: padding of the spatial operator; None means `kernel_size - 1`.
            padding_mode: padding mode of the spatial operator and of the up-sampling layers.
            x0: initial estimate of the up-sampling layers (the paper's table 3).
            high_blocks: use blocks above the input resolution too.
            block: makes a block, with the arguments of `ConverseBlock`.
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the matrix products.
            method: method of all reverse convolutions, see `converse2d`.
            rngs: random streams; `params` is used.

        Raises:
            ValueError: a scale other than 2, 3 or 4.
        """
        if scale not in STEPS:
            raise ValueError(f"scale: got {scale!r}; expected 2, 3 or 4")
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        linear: Callable[..., nnx.Linear] = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(0.02), rngs=rngs, **types
        )
        make_block = functools.partial(
            block,
            num_features,
            kernel_size,
            padding=padding,
            padding_mode=padding_mode,
            rngs=rngs,
            **types,
        )
        make_upsampler = functools.partial(
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
        )
        self.scale = scale
        self.channels = channels
        self.head = linear(channels, num_features)
        self.body = nnx.List(make_block() for _ in range(num_blocks))
        self.up_blocks = nnx.List(make_block() for _ in STEPS[scale][: None if high_blocks else 1])
        self.upsamplers = nnx.List(make_upsampler(scale=step) for step in STEPS[scale])
        self.high_block = make_block() if high_blocks else None
        self.tail = linear(num_features, channels, use_bias=False)
        use_method(self, method)

    def __call__(
        self, x: Float[Array | np.ndarray, "*batch H W C"]
    ) -> Float[Array, "*batch sH sW C"]:
        """Enlarge images `[..., H, W, channels]` in [0, 1]; the result is not clipped."""
        images = jnp.asarray(x)
        height, width = images.shape[-3:-1]
        size = (*images.shape[:-3], self.scale * height, self.scale * width, images.shape[-1])
        enlarged = jax.image.resize(images, size, "bilinear")
        y = gelu(self.head(images))
        for block in self.body:
            y = block(y)
        for block, upsampler in itertools.zip_longest(self.up_blocks, self.upsamplers):
            y = gelu(upsampler(y if block is None else block(y)))
        if self.high_block is not None:
            y = gelu(self.high_block(y))
        return self.tail(y) + enlarged
