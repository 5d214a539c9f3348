"""Which of the exact evaluations of the operator is the fastest where."""

from __future__ import annotations

import contextvars
from typing import Any, Literal, get_args

import jax
import numpy as np

Method = Literal["auto", "fft", "dft", "direct", "fused"]

PREPARED = ("auto", "fft", "dft")
"""Those of `converse2d_transfer`."""

LONGEST_FUSED = 128
"""Pixels on a side of a map, before padding, up to which it stays on the chip."""

target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)
"""The platform that programs are compiled for, where it is not the default device's."""

# The products grow with the third power of the side, the transforms with little more than the
# second, and with the largest prime factor of the side. Measured on two cores (`python -m
# benchmarks.methods`): the products are faster up to this many pixels on the longer padded side,
# where both sides have small factors only, and where they have not.
_LONGEST_DFT = {
    "cpu": (448, 720),
    # Not measured, but several TPUs gather the whole batch for an FFT, and not for a product.
    "tpu": (2048, 2048),
}
# Not measured: no accelerator was at hand. Up to here both are bound by memory, and the products
# pass over the maps less often.
_LONGEST_DFT_ELSEWHERE = (256, 256)
_SMALL_FACTOR = 11


def check_fused(shape: tuple[int, ...], scale: int, dtype: Any) -> None:
    """Whether the method "fused" holds for maps of ``(H, W)`` before padding, computed in `dtype`.

    Raises:
      ValueError: it does not.
    """
    if scale != 1 or max(shape) > LONGEST_FUSED or dtype != np.float32:
        raise ValueError(
            f"method='fused' needs scale=1, maps of at most {LONGEST_FUSED}x{LONGEST_FUSED} and "
            f"float32 or less, got scale={scale}, {shape[0]}x{shape[1]} and {np.dtype(dtype)}: "
            "use method='auto'"
        )


def is_direct(kernel: tuple[int, ...], scale: int) -> bool:
    """Whether the method "direct" holds for a kernel of ``(kh, kw)`` taps."""
    return max(kernel) <= scale


def choose_method(
    method: str, kernel: tuple[int, ...] | None, padded: tuple[int, int], scale: int
) -> Any:
    """Resolve "auto", or check that a method can be used.

    Args:
      method: of `Method`.
      kernel: ``(kh, kw)``; None where a transfer function is prepared, which not all have.
      padded: ``(H, W)`` of the padded map.
      scale: s.

    Raises:
      ValueError: an unknown method, or "direct" where it does not hold.
    """
    methods = [m for m in get_args(Method) if kernel is not None or m in PREPARED]
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(map(repr, methods))}, got {method!r}")
    small = kernel is not None and is_direct(kernel, scale)
    if method == "direct" and not small:
        assert kernel is not None
        raise ValueError(
            f"method='direct' needs a kernel of at most scale={scale} taps on each side, got "
            f"{kernel[0]}x{kernel[1]}: use method='auto'"
        )
    if method != "auto":
        return method
    if small:
        return "direct"
    platform = target.get() or jax.default_backend()
    smooth, awkward = _LONGEST_DFT.get(platform, _LONGEST_DFT_ELSEWHERE)
    longest = smooth if all(map(_has_small_factors, padded)) else awkward
    return "dft" if max(padded) <= longest else "fft"


def _has_small_factors(size: int) -> bool:
    for factor in range(2, _SMALL_FACTOR + 1):
        while size % factor == 0:
            size //= factor
    return size == 1
