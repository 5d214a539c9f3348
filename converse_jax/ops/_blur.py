"""Circular blur and decimation, and its adjoint: the thing that `converse2d` reverses."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops._checks import check_fit, check_map, check_operator, floating
from converse_jax.ops._fft import analyze, over_maps, synthesize
from converse_jax.ops._otf import phase_otf


def blur_downsample(
    x: Float[Array, "*batch sH sW C"], kernel: Float[Array, "kh kw C"], *, scale: int = 1
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
    x, kernel = floating("x", x), floating("kernel", kernel)
    check_map("x", x)
    if isinstance(scale, int) and scale > 1 and (x.shape[-3] % scale or x.shape[-2] % scale):
        raise ValueError(
            f"x of {x.shape[-3]}x{x.shape[-2]} is no multiple of scale={scale}: crop it first"
        )
    check_operator(kernel, jnp.ones(()), (x.shape[-3] // scale, x.shape[-2] // scale), scale, None)
    _check_shared(x, kernel)
    return _filter(x, kernel, scale, False)


def blur_downsample_adjoint(
    y: Float[Array, "*batch H W C"], kernel: Float[Array, "kh kw C"], *, scale: int = 1
) -> Float[Array, "*batch sH sW C"]:
    """``A^T y``, where ``A x`` is `blur_downsample`: ``<A x, y> = <x, A^T y>`` for all x and y.

    Args:
      y: maps ``[..., H, W, C]``.
      kernel: as for `blur_downsample`.
      scale: the stride s.

    Returns:
      ``[..., sH, sW, C]`` in the type of y: zeros between the pixels, then correlation with K.

    Raises:
      TypeError, ValueError: as `blur_downsample`.
    """
    y, kernel = floating("y", y), floating("kernel", kernel)
    check_map("y", y)
    check_operator(kernel, jnp.ones(()), (y.shape[-3], y.shape[-2]), scale, None)
    _check_shared(y, kernel)
    return _filter(y, kernel, scale, True)


def _check_shared(x: Array, kernel: Array) -> None:
    if kernel.ndim != 3:
        raise ValueError(f"kernel must have shape [kh, kw, C], got {kernel.shape}")
    check_fit(x, kernel.shape[-1], {"kernel": ()})


@functools.partial(jax.jit, static_argnums=(2, 3))
def _filter(x: Array, kernel: Array, scale: int, adjoint: bool) -> Array:
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    factor = 1 if adjoint else scale
    shape = (x.shape[-3] // factor, x.shape[-2] // factor)
    # Both filters take the conjugate: `analyze` conjugates what it is given, A^T is conjugate.
    re, im = phase_otf(kernel.astype(dtype), shape, scale)
    spectrum = jax.lax.complex(re, -im)
    maps = x.astype(dtype).reshape(1, -1, *x.shape[-3:])
    result = over_maps(synthesize if adjoint else analyze, plain=False)(maps, spectrum[None])
    return result.reshape(*x.shape[:-3], *result.shape[2:]).astype(x.dtype)
