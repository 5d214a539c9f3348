"""Deblurring: Converse-USRNet, which knows the kernel, the blind ConverseNet, and siblings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.models._initializers import given, uniform_linear
from converse_jax.models._registry import register
from converse_jax.nn import ConvBlock, ConverseBlock, Operator, gelu, lam_from_logit, use_method
from converse_jax.ops import Method, PaddingMode


@register(task="deblur")
class ConverseNet(nnx.Module):
    """Blind deblurring: 1x1 in, the same 7 blocks applied 5 times, 1x1 out.

    Defaults are as released: 3x3 kernels, circular padding 2, 243,267 parameters.

    Source: the paper's section 5.3.
    """

    default_block: ClassVar[Callable[..., nnx.Module]] = ConverseBlock

    def __init__(
        self,
        channels: int = 3,
        *,
        num_features: int = 64,
        num_blocks: int = 7,
        kernel_size: int = 3,
        num_iterations: int = 5,
        padding: int | None = None,
        padding_mode: PaddingMode | None = None,
        block: Callable[..., nnx.Module] | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        method: Method = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network.

        Args:
            channels: 3 for color images, 1 for gray.
            num_features: width.
            num_blocks: blocks of one iteration; all iterations share them.
            kernel_size: side of the kernels of each block's spatial operator.
            num_iterations: how often the blocks are applied.
            padding, padding_mode: of the spatial operator, see `Converse2D`; None leaves the choice
                to the block.
            block: makes a block, with the arguments of `ConverseBlock`; None is that of the class.
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the matrix products.
            method: method of all reverse convolutions, see `converse2d`.
            rngs: random streams; `params` is used.
        """
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        self.channels = channels
        self.num_iterations = num_iterations
        self.head = uniform_linear(channels, num_features, rngs=rngs, **types)
        make_block = functools.partial(
            block or self.default_block,
            num_features,
            kernel_size,
            **given(padding=padding, padding_mode=padding_mode),
            rngs=rngs,
            **types,
        )
        self.body = nnx.List(make_block() for _ in range(num_blocks))
        self.tail = uniform_linear(num_features, channels, rngs=rngs, **types)
        use_method(self, method)

    def __call__(
        self, x: Float[Array | np.ndarray, "*batch H W C"]
    ) -> Float[Array, "*batch H W C"]:
        """Deblur images `[..., H, W, channels]` in [0, 1]; the result is not clipped."""
        y = self.head(jnp.asarray(x))
        for _ in range(self.num_iterations):
            for block in self.body:
                y = block(y)
        return self.tail(y)


@register(task="deblur")
class ConvNet(ConverseNet):
    """`ConverseNet` with depthwise convolutions, circular padding; 243,267 parameters.

    Source: the paper's table 7.
    """

    default_block = ConvBlock


def check_blur(kernel: Array | np.ndarray | None, size: int, operator: Operator) -> None:
    """Raise a ValueError unless blur kernels have the size that a network takes.

    A network prepared for a kernel takes none: its operators hold it.
    """
    prepared = len(operator.transfers) > 0 and not operator.preparing
    if prepared != (kernel is None):
        raise ValueError(
            "kernel: the network is prepared for a kernel: leave it out, or prepare it anew"
            if prepared
            else "kernel: got none; expected the blur kernel: model(x, kernel)"
        )
    if kernel is not None and kernel.shape[-2:] != (size, size):
        raise ValueError(
            f"kernel: got shape {kernel.shape}; expected [..., {size}, {size}]: "
            "pad a smaller kernel with zeros, centered"
        )


class KernelNet(nnx.Module):
    """Blur kernel `[..., k, k]` -> 16 maps of the same size, `[..., k, k, 16]`.

    Three fully connected layers, k*k - 64 - 64 - 16*k*k, with GELU between.
    """

    def __init__(
        self, kernel_size: int = 7, num_maps: int = 16, hidden: int = 64, **kwargs: Any
    ) -> None:
        """Make the network; `kwargs` go to `nnx.Linear`."""
        taps = kernel_size * kernel_size
        self.kernel_size = kernel_size
        self.num_maps = num_maps
        self.fc1 = uniform_linear(taps, hidden, **kwargs)
        self.fc2 = uniform_linear(hidden, hidden, **kwargs)
        self.fc3 = uniform_linear(hidden, num_maps * taps, **kwargs)

    def __call__(
        self, kernel: Float[Array | np.ndarray, "*batch k k"]
    ) -> Float[Array, "*batch k k M"]:
        """Embed a blur kernel."""
        k = self.kernel_size
        x = jnp.asarray(kernel).reshape(*kernel.shape[:-2], k * k)
        x = self.fc3(gelu(self.fc2(gelu(self.fc1(x)))))
        return jnp.moveaxis(x.reshape(*kernel.shape[:-2], self.num_maps, k, k), -3, -1)


@register(task="deblur", inputs=("kernel",))
class ConverseUSRNet(nnx.Module):
    """Deblurring with a known kernel: reverse convolution of features, then blocks, 5 times.

    1x1 in; `KernelNet`; 5 iterations of the data module, a `converse2d` whose kernels are a 1x1
    convolution of the embedded blur kernel (one for each iteration) and whose lambda is shared by
    all, and the same 7 blocks with residual scales; 1x1 out. Defaults are as released: 3x3
    kernels, circular padding 2, eps 1e-3, 307,987 parameters.

    From random kernels training starts slowly: after hundreds of steps the result is still worse
    than the input. With `kernel_residual=True` the kernels of the data modules are learned as
    differences from the blur kernel (first iteration) and from a unit impulse (the others), and the
    untrained network is one reverse convolution of the image, if the kernel sums to 1.

    Source: the paper's section 5.3 and figure 3c; `kernel_residual` is ours.
    """

    kernel_in_transfers: ClassVar[bool] = True
    """Once prepared, the network is called without the kernel (see `register`)."""

    def __init__(
        self,
        channels: int = 3,
        *,
        num_features: int = 64,
        num_blocks: int = 7,
        kernel_size: int = 3,
        blur_size: int = 7,
        num_iterations: int = 5,
        padding: int | None = None,
        padding_mode: PaddingMode = "circular",
        kernel_residual: bool = False,
        block: Callable[..., nnx.Module] = ConverseBlock,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        method: Method = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network.

        Args:
            channels: 3 for color images, 1 for gray.
            num_features: width.
            num_blocks: blocks of one iteration; all iterations share them.
            kernel_size: side of the kernels of each block's spatial operator.
            blur_size: side of the blur kernels it takes, in pixels.
            num_iterations: how often data module and blocks are applied.
            padding: padding of the spatial operator of each block; None is the block's own.
            padding_mode: padding mode of the spatial operator of each block; the data module does
                not pad.
            kernel_residual: learn the kernels of the data modules as differences, starting at 0.
            block: makes a block, with the arguments of `ConverseBlock`.
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the matrix products.
            method: method of all reverse convolutions, see `converse2d`.
            rngs: random streams; `params` is used.
        """
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        linear: Callable[..., nnx.Linear] = functools.partial(uniform_linear, rngs=rngs, **types)
        self.channels = channels
        self.blur_size = blur_size
        self.head = linear(channels, num_features)
        # The few operations on kernels stay in full precision: their spectrum is inverted.
        exact = types | {"dtype": None}
        self.kernel_net = KernelNet(blur_size, rngs=rngs, **exact)
        self.kernel_maps = nnx.List(
            uniform_linear(self.kernel_net.num_maps, num_features, rngs=rngs, **exact)
            for _ in range(num_iterations)
        )
        self.lam_logit = nnx.Param(jnp.zeros(num_features, param_dtype))
        self.data = nnx.List(Operator() for _ in range(num_iterations))
        self.body = nnx.List(
            block(
                num_features,
                kernel_size,
                **given(padding=padding),
                padding_mode=padding_mode,
                residual_scale=True,
                rngs=rngs,
                **types,
            )
            for _ in range(num_blocks)
        )
        self.tail = linear(num_features, channels)
        self.kernel_residual = kernel_residual
        if kernel_residual:
            nnx.update(self.kernel_maps, jax.tree.map(jnp.zeros_like, nnx.state(self.kernel_maps)))
            # The tail undoes the head, and the residual scales of the blocks start at 0.
            head: Any = nnx.state(self.head)
            inverse = jnp.linalg.pinv(head["kernel"][...])
            nnx.update(self.tail, {"kernel": inverse, "bias": -head["bias"][...] @ inverse})
        use_method(self, method)

    @property
    def lam(self) -> Float[Array, " C"]:
        """Regularization of the data module, `sigmoid(lam_logit - 9) + 1e-3`."""
        return lam_from_logit(self.lam_logit[...], 1e-3)

    def __call__(
        self,
        x: Float[Array | np.ndarray, "*batch H W C"],
        kernel: Float[Array | np.ndarray, "*kernels k k"] | None = None,
        *,
        scale: int = 1,
    ) -> Float[Array, "*batch sH sW C"]:
        """Deblur images `[..., H, W, channels]` in [0, 1]; the result is not clipped.

        Args:
            x: images.
            kernel: blur kernels `[..., blur_size, blur_size]`, whose leading axes broadcast against
                those of x, so one for all images or one per image. A network prepared for a kernel
                takes none.
            scale: also enlarge by this factor (in the first iteration).

        Raises:
            ValueError: a kernel that is missing, of a wrong size, or given to a prepared network.
        """
        check_blur(kernel, self.blur_size, self.data[0])
        kernel = None if kernel is None else jnp.asarray(kernel)
        embedded = None if kernel is None else self.kernel_net(kernel)
        y = self.head(jnp.asarray(x))
        start = kernel
        for kernel_map, operator in zip(self.kernel_maps, self.data, strict=True):
            maps = None if embedded is None else kernel_map(embedded)
            if self.kernel_residual and maps is not None and start is not None:
                maps = maps + start[..., None]
                start = jnp.zeros_like(start).at[..., *(self.blur_size // 2,) * 2].set(1)
            y = operator.operate(y, maps, self.lam, scale=scale)
            scale = 1
            for block in self.body:
                y = block(y)
        return self.tail(y)


@register(task="deblur", inputs=("kernel",))
class ConvUSRNet(nnx.Module):
    """Deblurring with a known kernel: reverse convolution of the image, then a denoiser, 5 times.

    `x = converse2d(y, kernel, lam, x0=z)`, the data step of half-quadratic splitting on the image
    y itself with the blur kernel itself, where z is the image so far and at first y;
    `z = denoiser(x)`: 1x1 in, 7 depthwise convolution blocks, 1x1 out, shared by all iterations.
    Lambda is learned for each iteration and channel, eps 1e-3.

    Source: the paper's section 5.3 says only that its data module works on the three channels of
    the image; the rest is our reading, after K. Zhang, L. Van Gool, R. Timofte, "Deep Unfolding
    Network for Image Super-Resolution", CVPR 2020, with the denoiser of `ConvNet`.
    """

    default_block: ClassVar[Callable[..., nnx.Module]] = ConvBlock
    kernel_in_transfers: ClassVar[bool] = True
    """Once prepared, the network is called without the kernel (see `register`)."""

    def __init__(
        self,
        channels: int = 3,
        *,
        num_features: int = 64,
        num_blocks: int = 7,
        kernel_size: int = 3,
        blur_size: int = 7,
        num_iterations: int = 5,
        padding_mode: PaddingMode | None = None,
        block: Callable[..., nnx.Module] | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        method: Method = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        """Make the network.

        Args:
            channels: 3 for color images, 1 for gray.
            num_features: width.
            num_blocks: blocks of the denoiser.
            kernel_size: side of the kernels of each block's spatial operator.
            blur_size: side of the blur kernels it takes, in pixels.
            num_iterations: how often data step and denoiser are applied.
            padding_mode: of the spatial operator of each block; None leaves the choice to the
                block.
            block: makes a block, with the arguments of `ConverseBlock`; None is `ConvBlock`.
            dtype: type of the computation.
            param_dtype: type of the parameters.
            precision: precision of the matrix products.
            method: method of the data step, see `converse2d`.
            rngs: random streams; `params` is used.
        """
        self.channels = channels
        self.blur_size = blur_size
        self.lam_logit = nnx.Param(jnp.zeros((num_iterations, channels), param_dtype))
        self.denoiser = ConvNet(
            channels,
            num_features=num_features,
            num_blocks=num_blocks,
            kernel_size=kernel_size,
            num_iterations=1,
            padding_mode=padding_mode,
            block=block,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            rngs=rngs,
        )
        self.data = nnx.List(Operator() for _ in range(num_iterations))
        use_method(self, method)

    def __call__(
        self,
        x: Float[Array | np.ndarray, "*batch H W C"],
        kernel: Float[Array | np.ndarray, "*kernels k k"] | None = None,
    ) -> Float[Array, "*batch H W C"]:
        """Deblur images `[..., H, W, channels]` in [0, 1]; the result is not clipped.

        Args:
            x: images.
            kernel: blur kernels `[..., blur_size, blur_size]`, whose leading axes broadcast against
                those of x. A network prepared for a kernel takes none.

        Raises:
            ValueError: a kernel that is missing, of a wrong size, or given to a prepared network.
        """
        check_blur(kernel, self.blur_size, self.data[0])
        y = z = jnp.asarray(x)
        blur = None
        if kernel is not None:
            taps = jnp.asarray(kernel)[..., None]
            blur = jnp.broadcast_to(taps, (*taps.shape[:-1], self.channels))
        for operator, logit in zip(self.data, self.lam_logit[...], strict=True):
            z = operator.operate(y, blur, lam_from_logit(logit, 1e-3), x0=z.astype(y.dtype))
            z = self.denoiser(z)
        return z
