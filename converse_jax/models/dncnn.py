"""Converse-DnCNN: Gaussian denoising."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.nn import ConverseBlock
from converse_jax.ops import PaddingMode


class ConverseDnCNN(nnx.Module):
    """1x1 in, 20 reverse convolution blocks, 1x1 out; no global residual.

    Defaults are the paper's: 5x5 kernels, circular padding 4, 734,913 parameters. The authors'
    released weights have 7x7 kernels and padding 6, 796,353 parameters.

    Source: the paper's section 5.1 and figure 3a.
    """

    def __init__(
        self,
        channels: int = 1,
        num_features: int = 64,
        num_blocks: int = 20,
        kernel_size: int = 5,
        *,
        padding: int | None = None,
        padding_mode: PaddingMode = "circular",
        block: Callable[..., nnx.Module] = ConverseBlock,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network.

        Args:
          channels: 1 for gray pictures, 3 for colour.
          num_features: width.
          num_blocks: depth.
          kernel_size: of the spatial operator of each block.
          padding: of the spatial operator; None means ``kernel_size - 1``.
          padding_mode: of the spatial operator.
          block: makes a block, with the arguments of `ConverseBlock`.
          dtype: type of the computation.
          param_dtype: type of the parameters.
          precision: of the matrix products.
          rngs: random streams; `params` is drawn from.
        """
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        linear: Callable[..., nnx.Linear] = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.normal(0.02), rngs=rngs, **types
        )
        self.channels = channels
        self.head = linear(channels, num_features)
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
        self.tail = linear(num_features, channels)

    def __call__(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "*batch H W C"]:
        """Denoise pictures ``[..., H, W, channels]`` in [0, 1]; the result is not clipped."""
        x = self.head(x)
        for block in self.body:
            x = block(x)
        return self.tail(x)
