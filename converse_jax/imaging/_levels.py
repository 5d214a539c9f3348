"""Which value of a file is white: the values need not fill the numbers that hold them."""

from __future__ import annotations

import numpy as np

from converse_jax.imaging._image import ImageError

_DEPTHS = (8, 10, 12, 14)
# Floats in [0, 1] may overshoot, by sharpening or noise; those of 0 to 255 go far beyond.
_OVERSHOOT = 2.0
# What a remark is worth: beyond [0, 1] by more than this share.
_OUTSIDE = 0.1


def white_level(
    samples: np.ndarray, bits: int, *, given: float | None = None, tagged: float | None = None
) -> tuple[float, tuple[str, ...]]:
    """The value that is white, and notes on a guess.

    What the user gives comes first, then what the file says, then a guess from the largest value:
    the smallest depth of 8, 10, 12 and 14 bits that holds it, for integers of 16 bits; for floats,
    1, or the smallest of these depths and 16 bits.

    Args:
        samples: of the colors, any shape.
        bits: what the samples may fill, or 32 for floats.
        given: the user's.
        tagged: the file's; not believed if the image has larger values.

    Raises:
        ImageError: samples that are not finite, or larger than what is given.
    """
    floats = np.issubdtype(samples.dtype, np.floating)
    # Two passes instead of a mask of the whole image: NaN is passed on by both.
    low, peak = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(peak)):
        count = int((~np.isfinite(samples)).sum())
        raise ImageError(
            f"holds {count} samples that are NaN or infinite; give them values, e.g. of neighbors"
        )
    full = 1.0 if floats else float(2**bits - 1)
    if given is not None:
        if not 0 < given < float("inf"):
            raise ImageError(f"white_level: got {given:g}; expected a positive number")
        if not floats and peak > given:
            raise ImageError(f"white_level: got {given:g}, but it has values up to {peak:g}")
        return float(given), _outside(low / given, peak / given)
    if tagged is not None and 0 < peak <= tagged < full:
        return float(tagged), (f"white is {tagged:g}, as the file says",)
    if floats and peak > _OVERSHOOT:
        depth = next((n for n in (*_DEPTHS, 16) if peak <= 2**n - 1), None)
        white = peak if depth is None else float(2**depth - 1)
        guess = f"floats up to {peak:.6g}, so white is taken to be {white:g} (--white-level N)"
        return white, (guess, *_outside(low / white, 1.0))
    if not floats and bits == 16 and peak > 0:
        depth = next((n for n in _DEPTHS if peak < 2**n), None)
        if depth is not None:
            white = float(2**depth - 1)
            guess = f"values up to {peak:g} of 65535, so white is taken to be {white:g}"
            return white, (f"{guess} (--white-level N)",)
    return full, _outside(low / full, peak / full)


def _outside(low: float, high: float) -> tuple[str, ...]:
    if low >= -_OUTSIDE and high <= 1 + _OUTSIDE:
        return ()
    return (f"values from {low:.3g} to {high:.3g}, where the networks know 0 to 1",)
