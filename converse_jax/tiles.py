"""A function of images applied in overlapping tiles, for images that do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def in_tiles(
    fn: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    *,
    tile: int,
    overlap: int,
    scale: int = 1,
    align: int = 1,
    on_tile: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Apply a function to an image in overlapping tiles, and blend the results.

        out[x] = sum_k w_k[x] fn(tile_k)[x - s_k],   sum_k w_k[x] = 1,

    where w_k is separable and, along each axis, proportional to sin^2(pi d / (2 overlap)) at the
    distance d <= overlap from an edge of the tile inside the image, and constant further inside.
    All tiles have one size. They are spread evenly, so that neighbors share at least `overlap`
    pixels; what lies beyond the image, above all beyond one that is smaller than a tile, is its
    reflection. Besides image and result only one tile is in memory.

    Args:
        fn: maps `[tile, tile, C]` to `[scale tile, scale tile, C']`.
        image: `[H, W, C]`.
        tile: side of the tiles in pixels of the image.
        overlap: pixels of the image that neighboring tiles share, at most half of a tile.
        scale: enlargement of `fn`.
        align: tiles begin at multiples of this, for functions that see cells of pixels.
        on_tile: called with (done, total) before the first tile and after each.

    Returns:
        `[scale H, scale W, C']` in the dtype of the results of `fn`.

    Raises:
        ValueError: a tile that is no positive multiple of `align`, or an overlap that is negative
            or more than half of a tile.
    """
    check_tiles(tile, overlap, align)
    height, width = image.shape[:2]
    rows, columns = (_axis(n, tile, overlap, scale, align) for n in (height, width))
    size = (scale * height, scale * width)
    total, done, result = len(rows) * len(columns), 0, None
    if on_tile is not None:
        on_tile(done, total)
    for row in rows:
        for column in columns:
            values = np.asarray(fn(image[row.pixels[:, None], column.pixels]))
            if result is None:
                result = np.zeros((*size, values.shape[-1]), values.dtype)
            weight = row.weight[:, None, None] * column.weight[:, None]
            inside = values[row.inside, column.inside]
            result[row.into, column.into] += weight.astype(values.dtype) * inside
            done += 1
            if on_tile is not None:
                on_tile(done, total)
    assert result is not None
    return result


def check_tiles(tile: int, overlap: int, align: int = 1) -> None:
    """Raise the ValueError of `in_tiles`."""
    if tile < 1 or tile % align:
        multiple = f"a positive multiple of {align}" if align > 1 else "at least 1"
        raise ValueError(f"tile: got {tile}; expected {multiple}")
    if not 0 <= overlap <= tile // 2:
        raise ValueError(
            f"overlap: got {overlap}; expected 0 to {tile // 2}, half of a tile of {tile}"
        )


def tile_starts(length: int, tile: int, overlap: int, align: int = 1) -> list[int]:
    """Where the tiles of one axis begin; negative for one tile that is larger than the image."""
    if length <= tile:
        return [-((tile - length) // 2 // align * align)]
    last = -(-(length - tile) // align)
    step = max((tile - overlap) // align, 1)
    gaps = -(-last // step)
    return [align * (last * k // gaps) for k in range(gaps + 1)]


class _Part(NamedTuple):
    """A tile along one axis.

    Attributes:
        pixels: where in the image its pixels are taken, `[tile]`.
        into: the part of the result that it has a share in.
        inside: the same part of what `fn` returns for it.
        weight: its share there.
    """

    pixels: np.ndarray
    into: slice
    inside: slice
    weight: np.ndarray


def _axis(length: int, tile: int, overlap: int, scale: int, align: int) -> list[_Part]:
    """The tiles along an axis; their weights sum to 1 everywhere."""
    ramp = np.sin(np.pi / 2 * (np.arange(scale * overlap) + 0.5) / max(scale * overlap, 1)) ** 2
    total = np.zeros(scale * length)
    parts = []
    for start in tile_starts(length, tile, overlap, align):
        share = np.ones(scale * tile)
        if start > 0:
            share[: len(ramp)] *= ramp
        if start + tile < length:
            share[len(share) - len(ramp) :] *= ramp[::-1]
        begin, end = scale * max(start, 0), scale * min(start + tile, length)
        inside = slice(begin - scale * start, end - scale * start)
        total[begin:end] += share[inside]
        # Beyond its ends an axis is mirrored, again and again.
        pixels = (start + np.arange(tile)) % (2 * length)
        pixels = np.minimum(pixels, 2 * length - 1 - pixels)
        parts.append(_Part(pixels, slice(begin, end), inside, share[inside]))
    return [part._replace(weight=part.weight / total[part.into]) for part in parts]
