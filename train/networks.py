"""The networks as typed configurations: each builds its Flax module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import jax
from flax import nnx

from converse_jax import models
from converse_jax.nn import ConverseBlock
from converse_jax.ops import PaddingMode


class RematConverseBlock(ConverseBlock):
    """The same block, whose inner activations are computed again in the backward pass."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the block; what is computed again once is not computed again within."""
        super().__init__(*args, recompute=False, **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the block."""
        return nnx.remat(ConverseBlock.__call__)(self, x)


@dataclass(frozen=True)
class _Network:
    """What all networks share.

    Attributes:
      channels: 1 for gray pictures, 3 for colour.
      num_features: width.
      num_blocks: depth.
      kernel_size: taps on each side of the kernels of the blocks.
      padding: of the blocks; None means kernel_size - 1.
      padding_mode: of the blocks.
    """

    architecture: ClassVar[str]

    channels: int
    num_features: int
    num_blocks: int
    kernel_size: int
    padding: int | None
    padding_mode: PaddingMode

    @property
    def inputs(self) -> tuple[str, ...]:
        """What of an example the network is called with, in order."""
        return ("input",)

    def arguments(self, scale: int) -> dict[str, Any]:
        """What the class in `converse_jax.models` is made with, for a task of this scale."""
        return asdict(self)

    def build(self, scale: int, *, dtype: Any, remat: bool, rngs: nnx.Rngs) -> nnx.Module:
        """Make the network, with float32 parameters."""
        block = RematConverseBlock if remat else ConverseBlock
        make: Callable[..., nnx.Module] = getattr(models, self.architecture)
        return make(**self.arguments(scale), block=block, dtype=dtype, rngs=rngs)


@dataclass(frozen=True)
class DnCNN(_Network):
    """Converse-DnCNN, for denoising.

    Attributes:
      downscale: side of the cells of pixels that the blocks see as one; 2 is four times as fast.
      noise_level: the network is told the noise level of each image.
      residual: the network learns the difference to its input.
    """

    architecture: ClassVar[str] = "ConverseDnCNN"

    channels: int = 1
    num_features: int = 64
    num_blocks: int = 20
    kernel_size: int = 5
    padding: int | None = None
    padding_mode: PaddingMode = "circular"
    downscale: int = 1
    noise_level: bool = False
    residual: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The image, and its noise level where the network is told."""
        return ("input", "sigma") if self.noise_level else ("input",)


@dataclass(frozen=True)
class SRResNet(_Network):
    """Converse-SRResNet, for super-resolution; the scale is that of the task.

    Attributes:
      high_blocks: have blocks at the resolutions above that of the input; without, x4 is some three
        times as fast.
    """

    architecture: ClassVar[str] = "ConverseSRResNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 16
    kernel_size: int = 5
    padding: int | None = None
    padding_mode: PaddingMode = "replicate"
    high_blocks: bool = True

    def arguments(self, scale: int) -> dict[str, Any]:
        """The others, and the enlargement."""
        return {"scale": scale, **super().arguments(scale)}


@dataclass(frozen=True)
class USRNet(_Network):
    """Converse-USRNet, for deblurring with a known kernel."""

    architecture: ClassVar[str] = "ConverseUSRNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 7
    kernel_size: int = 3
    padding: int | None = None
    padding_mode: PaddingMode = "circular"
    blur_size: int = 7
    num_iterations: int = 5

    @property
    def inputs(self) -> tuple[str, ...]:
        """The image and the kernel it was blurred with."""
        return ("input", "kernel")


@dataclass(frozen=True)
class BlindNet(_Network):
    """ConverseNet, for blind deblurring."""

    architecture: ClassVar[str] = "ConverseNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 7
    kernel_size: int = 3
    padding: int | None = None
    padding_mode: PaddingMode = "circular"
    num_iterations: int = 5


Network = DnCNN | SRResNet | USRNet | BlindNet
