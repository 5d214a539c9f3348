"""Kernel -> transfer function: the taps of a kernel, seen as filters of the low-resolution map.

A map X of s times the resolution has s*s *phases* (its polyphase components),
``X_ij[n, m] = X[s n + i, s m + j]``. Blurring X and keeping the upper-left pixel of each s x s
patch is a sum of ordinary circular filters of the phases,
``(X (*) K) down s = sum_ij K_ij (*) X_ij`` with ``K_ij[p, q] = K[s p - i, s q - j]``: that is what
is transformed here. For s = 1 the only phase is the map itself.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def twiddle(numerator: Array, size: int, dtype: Any) -> tuple[Array, Array]:
    """``cos`` and ``-sin`` of ``2 pi numerator / size`` for integers 0 <= numerator < size.

    The angle is reduced to an eighth of a turn while it is an exact fraction: a rounded angle
    would cost a digit of the kernel's spectrum, and the filter amplifies its errors up to
    ``1 / (2 sqrt(lambda))`` times.
    """
    quadrant, rest = 4 * numerator // size, 4 * numerator % size
    flip = 2 * rest > size
    angle = jnp.where(flip, size - rest, rest).astype(dtype) * (np.pi / (2 * size))
    near, far = jnp.cos(angle), jnp.sin(angle)
    cos, sin = jnp.where(flip, far, near), jnp.where(flip, near, far)
    cos, sin = jnp.where(quadrant % 2 == 0, cos, -sin), jnp.where(quadrant % 2 == 0, sin, cos)
    sign = jnp.where(quadrant < 2, 1, -1).astype(dtype)
    return sign * cos, -sign * sin


def phase_dft(
    size: int, taps: int, scale: int, half: bool, dtype: Any
) -> tuple[Float[Array, "s K taps"], Float[Array, "s K taps"]]:
    """Real and imaginary part of the DFT of each phase of a centered 1-D kernel, as a matrix.

    Tap a lies at ``a - taps // 2 = scale * shift - phase``: its phase sees it at this shift.
    """
    # iota, not NumPy: functions that are partitioned over devices may hold no array constants.
    frequency = jnp.arange(size // 2 + 1 if half else size)[:, None]
    offset = jnp.arange(taps) - taps // 2
    phase = -offset % scale
    shift = (offset + phase) // scale
    real, imag = twiddle(frequency * (shift % size)[None] % size, size, dtype)
    seen = phase[None, None] == jnp.arange(scale)[:, None, None]
    return jnp.where(seen, real, 0), jnp.where(seen, imag, 0)


def phase_otf(
    kernel: Float[Array, "*batch kh kw C"], shape: tuple[int, int], scale: int
) -> tuple[Float[Array, "*batch C s s H K"], Float[Array, "*batch C s s H K"]]:
    """Transfer functions of the s*s phases of a kernel, ``F[K_ij]``, as half spectra.

    The taps are multiplied by DFT matrices: for small kernels this is cheaper than an FFT of the
    zero-padded kernel, it rounds less, and its gradient returns to the taps without a full-size
    transform. The shape is that of the low-resolution map; ``K = W // 2 + 1``.
    """
    kh, kw = kernel.shape[-3:-1]
    dot = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    rows_re, rows_im = phase_dft(shape[0], kh, scale, False, kernel.dtype)
    cols_re, cols_im = phase_dft(shape[1], kw, scale, True, kernel.dtype)
    half_re = dot("...abc,iha->...cihb", kernel, rows_re)
    half_im = dot("...abc,iha->...cihb", kernel, rows_im)
    # Complex products as real ones of twice the depth: one pass over each result, laid out as used.
    half = jnp.concatenate([half_re, half_im], axis=-1)
    cols = functools.partial(dot, "...cihb,jkb->...cijhk", half)
    return (
        cols(jnp.concatenate([cols_re, -cols_im], axis=-1)),
        cols(jnp.concatenate([cols_im, cols_re], axis=-1)),
    )
