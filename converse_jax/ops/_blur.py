"""Circular blur and decimation, and its adjoint: what `converse2d` reverses."""

from __future__ import annotations

import functools

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from converse_jax.ops._checks import (
    check_fit,
    check_kernel,
    check_map,
    compute_dtype,
    floating,
    integer,
)
from converse_jax.ops._fft import analyze, channels_first, channels_last, synthesize
from converse_jax.ops._function import Function
from converse_jax.ops._groups import over_groups
from converse_jax.ops._otf import phase_otf


def blur_downsample(
    x: Float[ArrayLike, "*batch sH sW C"],
    kernel: Float[ArrayLike, "*kernels kh kw C"],
    *,
    scale: int = 1,
) -> Float[Array, "*broadcast H W C"]:
    """`Y = (X (*) K) down s`: circular convolution, then the upper-left pixel of each patch.

    Args:
        x: maps `[..., sH, sW, C]`.
        kernel: `[..., kh, kw, C]`, the element `(kh // 2, kw // 2)` at the origin; leading axes
            as for `converse2d`.
        scale: the stride s.

    Returns:
        `[..., H, W, C]` in the type of x.

    Raises:
        TypeError: x or kernel is not real floating-point.
        ValueError: a size that is no multiple of scale, or shapes that do not fit.

    Source: the paper's eq. 1.
    """
    scale = integer("scale", scale, 1)
    return _blur(*_checked("x", x, kernel, scale, adjoint=False), scale, False)


def blur_downsample_adjoint(
    y: Float[ArrayLike, "*batch H W C"],
    kernel: Float[ArrayLike, "*kernels kh kw C"],
    *,
    scale: int = 1,
) -> Float[Array, "*broadcast sH sW C"]:
    """`A^T y`, where `A x` is `blur_downsample`: `<A x, y> = <x, A^T y>` for all x and y.

    Args:
        y: maps `[..., H, W, C]`.
        kernel, scale: as for `blur_downsample`.

    Returns:
        `[..., sH, sW, C]` in the type of y: zeros between the pixels, then correlation with K.

    Raises:
        TypeError, ValueError: as `blur_downsample`.
    """
    scale = integer("scale", scale, 1)
    return _blur(*_checked("y", y, kernel, scale, adjoint=True), scale, True)


def _checked(
    name: str, maps: ArrayLike, kernel: ArrayLike, scale: int, *, adjoint: bool
) -> tuple[Array, Array]:
    maps, kernel = floating(name, maps), floating("kernel", kernel)
    check_map(name, maps)
    height, width = maps.shape[-3:-1]
    check_kernel(kernel, (scale * height, scale * width) if adjoint else (height, width))
    check_fit(name, maps, kernel.shape[-1], {"kernel": kernel.shape[:-3]})
    if not adjoint and (height % scale or width % scale):
        raise ValueError(
            f"{name}: got {height}x{width}; expected multiples of scale={scale}: crop it first"
        )
    return maps, kernel


@functools.partial(jax.jit, static_argnums=(2, 3))
def _blur(x: Array, kernel: Array, scale: int, adjoint: bool) -> Array:
    return over_groups(_filter(scale, adjoint), x, (kernel,), ("m a b c",))


@functools.cache
def _filter(scale: int, adjoint: bool) -> Function:
    def fn(x: Array, kernel: Array) -> Array:
        factor = 1 if adjoint else scale
        shape = (x.shape[2] // factor, x.shape[3] // factor)
        # Both filters take the conjugate: `analyze` conjugates what it is given, A^T is conjugate.
        re, im = phase_otf(kernel.astype(compute_dtype(x)), shape, scale)
        maps = channels_first(x.astype(re.dtype))
        result = (synthesize if adjoint else analyze)(maps, jax.lax.complex(re, -im))
        return channels_last(result).astype(x.dtype)

    return Function(
        fn,
        linear=(0,),
        transposed=lambda _, kernel, y: _filter(scale, not adjoint)(y, kernel),
        labels=(("m n h w c", "m a b c"), "m n i j c"),
    )
