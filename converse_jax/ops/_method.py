"""Which of the exact evaluations of the operator is the fastest where."""

from __future__ import annotations

from types import ModuleType
from typing import get_args

import jax

from converse_jax.ops import _dft, _direct, _fft
from converse_jax.ops._options import Method

METHODS: dict[str, ModuleType] = {"fft": _fft, "dft": _dft, "direct": _direct}
"""Each has ``transfer(kernel, lam, shape, options)``, and ``apply(options)`` and
``solve(options)``, functions of groups of maps: ``solve = apply o transfer``."""

# The products grow with the third power of the side, the transforms with little more than the
# second, and with the largest prime factor of the side. Measured on two cores (`python -m
# benchmarks.methods`): the products are faster up to this many pixels on the longer padded side,
# where both sides have small factors only, and where they have not.
_LONGEST_DFT = {
    "cpu": (448, 720),
    # Not measured, but several TPUs gather the whole batch for an FFT, and not for a product.
    "tpu": (2048, 2048),
}
# Not measured: no accelerator was at hand. By the operations and the bytes that are counted for an
# H100 (`python -m benchmarks.aot h100`) the two meet somewhere between 180 and 270.
_LONGEST_DFT_ELSEWHERE = (256, 256)
_SMALL_FACTOR = 11


def choose_method(method: str, kernel: tuple[int, ...], padded: tuple[int, int], scale: int) -> str:
    """Resolve "auto" for the default device, or check that a method can be used.

    Args:
      method: of `Method`.
      kernel: ``(kh, kw)``.
      padded: ``(H, W)`` of the padded map.
      scale: s.

    Raises:
      ValueError: an unknown method, or "direct" where it does not hold.
    """
    if method not in get_args(Method):
        raise ValueError(
            f"method must be one of {', '.join(map(repr, get_args(Method)))}, got {method!r}"
        )
    small = max(kernel) <= scale
    if method == "direct" and not small:
        raise ValueError(
            f"method='direct' needs a kernel of at most scale={scale} taps on each side, got "
            f"{kernel[0]}x{kernel[1]}: use method='auto'"
        )
    if method != "auto":
        return method
    if small:
        return "direct"
    smooth, awkward = _LONGEST_DFT.get(jax.default_backend(), _LONGEST_DFT_ELSEWHERE)
    longest = smooth if all(map(_has_small_factors, padded)) else awkward
    return "dft" if max(padded) <= longest else "fft"


def _has_small_factors(size: int) -> bool:
    for factor in range(2, _SMALL_FACTOR + 1):
        while size % factor == 0:
            size //= factor
    return size == 1
