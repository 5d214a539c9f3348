"""Which of the exact evaluations of the operator is the fastest where."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
import numpy as np

Method = Literal["auto", "fft", "dft", "direct", "fused"]

# Those of `converse2d_transfer`.
_PREPARED = ("auto", "fft", "dft")

# Pixels on a side of a map, before padding, up to which it stays on the chip.
LONGEST_FUSED = 128

_target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)

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
# H100 (`python -m benchmarks.ahead h100`) the two meet somewhere between 180 and 270.
_LONGEST_DFT_ELSEWHERE = (256, 256)
_SMALL_FACTOR = 11


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """Have methods chosen for a platform other than the default device's, while one traces for it.

        with compiled_for("gpu"):
            exported = jax.export.export(jax.jit(model), platforms=["cuda"])(x)

    Args:
      platform: "cpu", "gpu" or "tpu", as of `jax.default_backend`.

    Raises:
      ValueError: another platform.
    """
    if platform not in ("cpu", "gpu", "tpu"):
        raise ValueError(f"platform must be 'cpu', 'gpu' or 'tpu', got {platform!r}")
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)


def is_fused(shape: tuple[int, ...], scale: int, dtype: Any = np.float32) -> bool:
    """Whether the method "fused" holds for maps of ``(H, W)`` pixels, computed in `dtype`."""
    return scale == 1 and max(shape) <= LONGEST_FUSED and dtype == np.float32


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
    methods = [m for m in get_args(Method) if kernel is not None or m in _PREPARED]
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
    platform = _target.get() or jax.default_backend()
    smooth, awkward = _LONGEST_DFT.get(platform, _LONGEST_DFT_ELSEWHERE)
    longest = smooth if all(map(_has_small_factors, padded)) else awkward
    return "dft" if max(padded) <= longest else "fft"


def _has_small_factors(size: int) -> bool:
    for factor in range(2, _SMALL_FACTOR + 1):
        while size % factor == 0:
            size //= factor
    return size == 1
