"""The networks as typed configurations: each builds its Flax module."""

from __future__ import annotations

import functools
import inspect
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from converse_jax import models
from converse_jax.models import Upsampler
from converse_jax.nn import Block, ConverseBlock, KernelInit
from converse_jax.ops import InitialEstimate, PaddingMode
from train.errors import TrainError


@functools.cache
def remat_block(block: type[Block]) -> type[Block]:
    """The class of a block whose inside is recomputed in the backward pass."""

    class RematBlock(block):  # type: ignore[valid-type, misc]
        """The same block, without its own finer recomputation."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, recompute=False, **kwargs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return nnx.remat(block.__call__)(self, x)

    return RematBlock


@dataclass(frozen=True)
class NetworkConfig:
    """Arguments of a registered network; derive a frozen dataclass for a network of your own.

    Attributes:
        channels: 1 for gray images, 3 for color.
    """

    architecture: ClassVar[str]
    """Its name in `converse_jax.models.registered()`."""

    channels: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The entries of an example that the network is called with, in order."""
        return ("input", *self.registered().inputs(asdict(self)))

    @classmethod
    def registered(cls) -> models.Registered:
        """The network registered under the name of the architecture.

        Raises:
            TrainError: there is none.
        """
        network = models.registered().get(getattr(cls, "architecture", ""))
        if network is None:
            raise TrainError(
                f"model: {cls.__name__}.architecture is "
                f"{getattr(cls, 'architecture', None)!r}, and no network of this name is "
                "registered; put @converse_jax.models.register(task=...) before its class"
            )
        return network

    def arguments(self, scale: int) -> dict[str, Any]:
        """Arguments of the class, for a task of this scale."""
        return asdict(self)

    def build(self, scale: int, *, dtype: Any, remat: bool, rngs: nnx.Rngs) -> nnx.Module:
        """Make the network, with float32 parameters.

        Raises:
            TrainError: its class takes no `dtype` or no `block`, and one is asked for.
        """
        make: Any = self.registered().make
        # Not the signature of the class: that of NNX classes takes anything.
        taken = inspect.signature(make.__init__).parameters
        options: dict[str, Any] = {"dtype": dtype}
        if remat:
            options["block"] = remat_block(getattr(make, "default_block", ConverseBlock))
        elif "block" in taken and taken["block"].default is inspect.Parameter.empty:
            options["block"] = ConverseBlock
        if dtype == jnp.float32 and "dtype" not in taken:
            del options["dtype"]
        for name, flag in (("dtype", "--dtype"), ("block", "--remat")):
            if name in options and name not in taken:
                raise TrainError(
                    f"{flag}: {self.architecture}.__init__ takes no `{name}`; leave it out, or "
                    "let the class take one"
                )
        network: nnx.Module = make(**self.arguments(scale), **options, rngs=rngs)
        return network


@dataclass(frozen=True)
class _BlockNetwork(NetworkConfig):
    """What the networks made of blocks share.

    Attributes:
        channels: 1 for gray images, 3 for color.
        num_features: width of the network: channels of its maps.
        num_blocks: depth of the network.
        kernel_size: side of the kernels of the blocks, in pixels.
    """

    num_features: int
    num_blocks: int
    kernel_size: int


class _Enlarging(NetworkConfig):
    """A network for super-resolution: its class takes the scale of the task."""

    def arguments(self, scale: int) -> dict[str, Any]:
        """The fields and the scale."""
        return {"scale": scale, **super().arguments(scale)}


@dataclass(frozen=True)
class _ConverseNetwork(_BlockNetwork):
    """What the networks of reverse convolution blocks share.

    Attributes:
        padding: pixels around the maps of the blocks; None means kernel_size - 1.
        padding_mode: how the maps of the blocks are extended.
    """

    padding: int | None
    padding_mode: PaddingMode


@dataclass(frozen=True)
class ConverseDnCNNConfig(_ConverseNetwork):
    """Converse-DnCNN, for denoising.

    Attributes:
        downscale: side of the cells of pixels that the blocks see as one pixel; 2 is four times as
            fast.
        noise_level: the network is told the noise level of each image.
        residual: the network learns the difference from its input.
        x0: initial estimate of the operator of the blocks.
        kernel_init: how the kernels of the operator are drawn.
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
    x0: InitialEstimate = "nearest"
    kernel_init: KernelInit = "softmax"


@dataclass(frozen=True)
class ConverseSRResNetConfig(_Enlarging, _ConverseNetwork):
    """Converse-SRResNet, for super-resolution by the task's scale.

    Attributes:
        high_blocks: use blocks above the input resolution too; without them x4 is about three times
            as fast.
        x0: initial estimate of the up-sampling layers.
    """

    architecture: ClassVar[str] = "ConverseSRResNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 16
    kernel_size: int = 5
    padding: int | None = None
    padding_mode: PaddingMode = "replicate"
    high_blocks: bool = True
    x0: InitialEstimate = "nearest"


@dataclass(frozen=True)
class ConverseUSRNetConfig(_ConverseNetwork):
    """Converse-USRNet, for deblurring with a known kernel.

    Attributes:
        blur_size: side of the blur kernels that the network takes, in pixels.
        num_iterations: how often the blocks are applied.
        kernel_residual: the kernels of the data modules are learned as differences from the blur.
    """

    architecture: ClassVar[str] = "ConverseUSRNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 7
    kernel_size: int = 3
    padding: int | None = None
    padding_mode: PaddingMode = "circular"
    blur_size: int = 7
    num_iterations: int = 5
    kernel_residual: bool = False


@dataclass(frozen=True)
class ConverseNetConfig(_ConverseNetwork):
    """ConverseNet, for blind deblurring.

    Attributes:
        num_iterations: how often the blocks are applied.
    """

    architecture: ClassVar[str] = "ConverseNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 7
    kernel_size: int = 3
    padding: int | None = None
    padding_mode: PaddingMode = "circular"
    num_iterations: int = 5


@dataclass(frozen=True)
class ConvDnCNNConfig(_BlockNetwork):
    """Conv-DnCNN, for denoising: depthwise convolutions in place of reverse convolutions.

    Attributes:
        padding_mode: how the maps of the blocks are extended.
    """

    architecture: ClassVar[str] = "ConvDnCNN"

    channels: int = 1
    num_features: int = 64
    num_blocks: int = 20
    kernel_size: int = 5
    padding_mode: PaddingMode = "circular"


@dataclass(frozen=True)
class ConvTransposeDnCNNConfig(_BlockNetwork):
    """ConvT-DnCNN, for denoising: depthwise transposed convolutions, zero padding."""

    architecture: ClassVar[str] = "ConvTransposeDnCNN"

    channels: int = 1
    num_features: int = 64
    num_blocks: int = 20
    kernel_size: int = 5


@dataclass(frozen=True)
class DnCNNConfig(NetworkConfig):
    """DnCNN, for denoising: 3x3 convolutions with batch normalization.

    Attributes:
        num_features: width of the network: channels of its maps.
        num_layers: convolutions in all.
        batch_norm: normalize after the inner convolutions.
    """

    architecture: ClassVar[str] = "DnCNN"

    channels: int = 1
    num_features: int = 64
    num_layers: int = 17
    batch_norm: bool = True


@dataclass(frozen=True)
class ConvSRResNetConfig(_Enlarging, _BlockNetwork):
    """Conv-SRResNet, for super-resolution: depthwise convolutions.

    Attributes:
        padding_mode: how the maps of the blocks are extended.
    """

    architecture: ClassVar[str] = "ConvSRResNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 16
    kernel_size: int = 5
    padding_mode: PaddingMode = "replicate"


@dataclass(frozen=True)
class ConvTransposeSRResNetConfig(_Enlarging, _BlockNetwork):
    """ConvT-SRResNet, for super-resolution: depthwise transposed convolutions, zero padding."""

    architecture: ClassVar[str] = "ConvTransposeSRResNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 16
    kernel_size: int = 5


@dataclass(frozen=True)
class SRResNetConfig(_Enlarging):
    """SRResNet, for super-resolution: 3x3 convolutions.

    Attributes:
        num_features: width of the network: channels of its maps.
        num_blocks: residual blocks.
        upsampler: how the maps are enlarged.
    """

    architecture: ClassVar[str] = "SRResNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 16
    upsampler: Upsampler = "pixel_shuffle"


@dataclass(frozen=True)
class ConvUSRNetConfig(_BlockNetwork):
    """Conv-USRNet, for deblurring with a known kernel, which it reverses on the image.

    Attributes:
        padding_mode: how the maps of the blocks are extended.
        blur_size: side of the blur kernels that the network takes, in pixels.
        num_iterations: how often the blocks are applied.
    """

    architecture: ClassVar[str] = "ConvUSRNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 7
    kernel_size: int = 3
    padding_mode: PaddingMode = "circular"
    blur_size: int = 7
    num_iterations: int = 5


@dataclass(frozen=True)
class ConvNetConfig(_BlockNetwork):
    """ConvNet, for blind deblurring: depthwise convolutions in place of reverse convolutions.

    Attributes:
        padding_mode: how the maps of the blocks are extended.
        num_iterations: how often the blocks are applied.
    """

    architecture: ClassVar[str] = "ConvNet"

    channels: int = 3
    num_features: int = 64
    num_blocks: int = 7
    kernel_size: int = 3
    padding_mode: PaddingMode = "circular"
    num_iterations: int = 5
