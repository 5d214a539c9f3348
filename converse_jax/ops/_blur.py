"""Circular blur and decimation, and its adjoint: what `converse2d` reverses."""

from __future__ import annotations

import functools

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from converse_jax.ops._checks import check_fit, check_kernel, check_map, compute_dtype, floating
from converse_jax.ops._fft import analyze, over_maps, synthesize
from converse_jax.ops._otf import phase_otf


def blur_downsample(
    x: Float[ArrayLike, "*batch sH sW C"], kernel: Float[ArrayLike, "kh kw C"], *, scale: int = 1
) -> Float[Array, "*batch H W C"]:
    """``Y = (X (*) K) down s``: circular convolution, then the upper-left pixel of each patch.

    Args:
      x: maps ``[..., sH, sW, C]``.
      kernel: ``[kh, kw, C]``, the element ``(kh // 2, kw // 2)`` at the origin.
      scale: the stride s.

    Returns:
      ``[..., H, W, C]`` in the type of x.

    Raises:
      TypeError: x or kernel is not real floating-point.
      ValueError: a size that is no multiple of scale, or shapes that do not fit.

    Source: the paper's eq. 1.
    """
    return _filter(*_checked("x", x, kernel, scale, adjoint=False), scale, False)


def blur_downsample_adjoint(
    y: Float[ArrayLike, "*batch H W C"], kernel: Float[ArrayLike, "kh kw C"], *, scale: int = 1
) -> Float[Array, "*batch sH sW C"]:
    """``A^T y``, where ``A x`` is `blur_downsample`: ``<A x, y> = <x, A^T y>`` for all x and y.

    Args:
      y: maps ``[..., H, W, C]``.
      kernel, scale: as for `blur_downsample`.

    Returns:
      ``[..., sH, sW, C]`` in the type of y: zeros between the pixels, then correlation with K.

    Raises:
      TypeError, ValueError: as `blur_downsample`.
    """
    return _filter(*_checked("y", y, kernel, scale, adjoint=True), scale, True)


def _checked(
    name: str, maps: ArrayLike, kernel: ArrayLike, scale: int, *, adjoint: bool
) -> tuple[Array, Array]:
    maps, kernel = floating(name, maps), floating("kernel", kernel)
    check_map(name, maps)
    height, width = maps.shape[-3:-1]
    check_kernel(kernel, scale, (scale * height, scale * width) if adjoint else (height, width))
    if kernel.ndim != 3:
        raise ValueError(f"kernel: got shape {kernel.shape}; expected [kh, kw, C]")
    check_fit(name, maps, kernel.shape[-1], {"kernel": ()})
    if not adjoint and (height % scale or width % scale):
        raise ValueError(
            f"{name}: got {height}x{width}; expected multiples of scale={scale}: crop it first"
        )
    return maps, kernel


@functools.partial(jax.jit, static_argnums=(2, 3))
def _filter(x: Array, kernel: Array, scale: int, adjoint: bool) -> Array:
    factor = 1 if adjoint else scale
    shape = (x.shape[-3] // factor, x.shape[-2] // factor)
    # Both filters take the conjugate: `analyze` conjugates what it is given, A^T is conjugate.
    re, im = phase_otf(kernel.astype(compute_dtype(x)), shape, scale)
    spectrum = jax.lax.complex(re, -im)
    maps = x.astype(re.dtype).reshape(1, -1, *x.shape[-3:])
    result = over_maps(synthesize if adjoint else analyze, plain=False)(maps, spectrum[None])
    return result.reshape(*x.shape[:-3], *result.shape[2:]).astype(x.dtype)
