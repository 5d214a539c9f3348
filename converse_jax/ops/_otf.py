"""Kernel -> transfer function: the taps of a kernel, seen as filters of the low-resolution map.

A map X of s times the resolution has s*s *phases* (its polyphase components),
`X_ij[n, m] = X[s n + i, s m + j]`. Blurring X and keeping the upper-left pixel of each s x s
patch is a sum of ordinary circular filters of the phases,
`(X (*) K) down s = sum_ij K_ij (*) X_ij` with `K_ij[p, q] = K[s p - i, s q - j]`: that is what
is transformed here. For s = 1 the only phase is the map itself.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from converse_jax.ops._constant import constant


def wave(numerator: Any, size: int, *, sine: bool, xp: Any) -> Any:
    """Cosine or sine of `2 pi numerator / size` for integers, by NumPy in double precision.

    The program of an unknown size computes them itself, in single precision: angles are brought
    into [-pi/4, pi/4] in integers, as they are rounded relative to their size.
    """
    if xp is np:
        angle = (numerator % size).astype(float) * (2 * np.pi / size)
        return xp.sin(angle) if sine else xp.cos(angle)
    turn = 4 * (numerator % size)
    quarters = (2 * turn + size) // (2 * size)
    angle = (turn - quarters * size).astype(float) * (np.pi / 2 / size)
    quarters = (quarters - sine) % 4  # sin a = cos(a - pi/2)
    value = xp.where(quarters % 2 == 1, -xp.sin(angle), xp.cos(angle))
    return xp.where(quarters >= 2, -value, value)


def phase_dft(size: int, taps: int, scale: int, half: bool, sine: bool, *, xp: Any = np) -> Any:
    """Cosines or sines of the DFT of each phase of a centered 1-D kernel: `[s, K, taps]`.

    Tap a lies at `a - taps // 2 = scale * shift - phase`: its phase sees it at this shift.
    """
    frequency = xp.arange(size // 2 + 1 if half else size)[:, None]
    offset = np.arange(taps) - taps // 2
    phase = -offset % scale
    shift = (offset + phase) // scale
    seen = phase == np.arange(scale)[:, None, None]
    return xp.where(seen, wave(frequency * shift, size, sine=sine, xp=xp), 0)


def phase_otf(
    kernel: Float[Array, "*batch kh kw C"], shape: tuple[int, int], scale: int
) -> tuple[Float[Array, "*batch C s s H K"], Float[Array, "*batch C s s H K"]]:
    """Transfer functions of the s*s phases of a kernel, `F[K_ij]`, as half spectra.

    The taps are multiplied by DFT matrices: for small kernels this is cheaper than an FFT of the
    zero-padded kernel, it rounds less, and its gradient returns to the taps without a full-size
    transform. The shape is that of the low-resolution map; `K = W // 2 + 1`.
    """
    kh, kw = kernel.shape[-3:-1]
    dot = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    rows_cos, rows_sin, cols_cos, cols_sin = (
        constant(phase_dft, size, taps, scale, half, sine, dtype=kernel.dtype)
        for size, taps, half in ((shape[0], kh, False), (shape[1], kw, True))
        for sine in (False, True)
    )
    half_re = dot("...abc,iha->...cihb", kernel, rows_cos)
    half_im = -dot("...abc,iha->...cihb", kernel, rows_sin)
    # Complex products as real ones of twice the depth: one pass over each result, laid out as used.
    half = jnp.concatenate([half_re, half_im], axis=-1)
    cols = functools.partial(dot, "...cihb,jkb->...cijhk", half)
    return (
        cols(jnp.concatenate([cols_cos, cols_sin], axis=-1)),
        cols(jnp.concatenate([-cols_sin, cols_cos], axis=-1)),
    )
