"""Extend the borders of a photograph for networks that treat it as periodic."""

from __future__ import annotations

import numpy as np

from converse_jax.imaging import circular_blur

Borders = tuple[tuple[int, int], tuple[int, int]]
"""Pixels above and below, left and right."""


def extend_periodically(
    image: np.ndarray, borders: Borders, *, kernel: np.ndarray | None = None
) -> np.ndarray:
    """Extend an image beyond its borders so that its periodic repetition has no edges.

    Outside, the mirror images at both ends of an axis are blended into each other,

        e[H - 1 + t] = (1 - w_t) x[H - t] + w_t x[g - t],   w_t = (1 - cos(pi (t - 1/2) / g)) / 2

    for t = 1..g in the gap of g pixels before the next repetition. With a kernel, the extension is
    then blurred, so that it is consistent with a blurred image ("edge taper").

    Args:
        image: `[H, W, C]`; unchanged in the middle of the result.
        borders: pixels above and below, left and right; each axis' sum is its gap.
        kernel: the blur of `image`, `[kh, kw]`, or None if it is unknown.

    Returns:
        The larger image, in the dtype of `image`.

    Source: blending in the manner of R. Liu and J. Jia, "Reducing boundary artifacts in image
    deconvolution", ICIP 2008.
    """
    extended = _extend_rows(image, *borders[0])
    extended = _extend_rows(extended.swapaxes(0, 1), *borders[1]).swapaxes(0, 1)
    if kernel is not None:
        extended = circular_blur(extended, kernel)
        (top, _), (left, _) = borders
        extended[top : top + image.shape[0], left : left + image.shape[1]] = image
    return np.ascontiguousarray(extended)


def _extend_rows(image: np.ndarray, before: int, after: int) -> np.ndarray:
    length, gap = image.shape[0], before + after
    step = np.arange(gap)

    def mirrored(row: np.ndarray) -> np.ndarray:
        row = row % (2 * length)
        return image[np.where(row < length, row, 2 * length - 1 - row)]

    weight = 0.5 - 0.5 * np.cos(np.pi * (step + 0.5) / gap)
    weight = weight.astype(image.dtype).reshape(-1, *(1,) * (image.ndim - 1))
    between = (1 - weight) * mirrored(length + step) + weight * mirrored(step - gap)
    return np.concatenate([between[after:], image, between[:after]])
