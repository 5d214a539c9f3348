"""A function of images applied in overlapping tiles, for images that do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

Beyond = Literal["circular", "replicate", "reflect"]
"""What lies beyond an image: its other end, its last pixel, or its mirror image."""


def in_tiles(
    fn: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    *,
    tile: int,
    overlap: int,
    scale: int = 1,
    align: int = 1,
    padding_mode: Beyond = "reflect",
    outside: int = 0,
    on_tile: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Apply a function to an image in overlapping tiles, and blend the results.

        out[x] = sum_k w_k[x] fn(tile_k)[x - s_k],   sum_k w_k[x] = 1,

    where w_k is separable and, along each axis, proportional to sin^2(pi d / (2 overlap)) at the
    distance d <= overlap from an edge shared with another tile, and constant further inside. All
    tiles have one size and are spread evenly, so that neighbors share at least `overlap` pixels. An
    image that is smaller than a tile is continued on all sides. Besides image and result only one
    tile is in memory.

    Args:
        fn: maps `[tile, tile, C]` to `[scale tile, scale tile, C']`.
        image: `[H, W, C]`.
        tile: side of the tiles in pixels of the image.
        overlap: pixels of the image that neighboring tiles share, at most half of a tile.
        scale: enlargement of `fn`.
        align: tiles begin at multiples of this, for functions that see cells of pixels.
        padding_mode: what lies beyond the image where a tile does.
        outside: the tiles cover so many pixels beyond the image too, at least half of the overlap
            if `fn` takes its ends for neighbors. With 0 they end where a large image does.
        on_tile: called with (done, total) before the first tile and after each.

    Returns:
        `[scale H, scale W, C']` in the dtype of the results of `fn`.

    Raises:
        ValueError: a tile that is no positive multiple of `align`, an overlap that is negative or
            more than half of a tile, or an unknown padding mode.
    """
    check_tiles(tile, overlap, align)
    if padding_mode not in get_args(Beyond):
        expected = ", ".join(get_args(Beyond))
        raise ValueError(f"padding_mode: got {padding_mode!r}; expected {expected}")
    height, width = image.shape[:2]
    rows, columns = (
        _axis(
            tile_starts(length, tile, overlap, align, outside=outside),
            *(length, tile, overlap, scale, padding_mode),
        )
        for length in (height, width)
    )
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
    if overlap < 0:
        raise ValueError(f"overlap: got {overlap}; expected at least 0")
    least = max(2 * overlap, 1)
    if tile < least or tile % align:
        twice = f" (twice the overlap of {overlap})" if overlap else ""
        cells = f", a multiple of {align}" if align > 1 else ""
        raise ValueError(f"tile: got {tile}; expected at least {least}{twice}{cells}")


def tile_starts(
    length: int, tile: int, overlap: int, align: int = 1, *, outside: int = 0
) -> list[int]:
    """Where the tiles of one axis begin, to cover it and `outside` pixels at both ends."""
    begin = -(-(-outside // align) * align)
    last = -(-(length + outside - tile) // align) * align
    if last <= begin:
        return [-((tile - length) // 2 // align * align)]
    steps = (last - begin) // align
    gaps = -(-steps // max((tile - overlap) // align, 1))
    return [begin + align * (steps * k // gaps) for k in range(gaps + 1)]


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


def _axis(
    starts: list[int], length: int, tile: int, overlap: int, scale: int, padding_mode: Beyond
) -> list[_Part]:
    """The tiles along an axis; their weights sum to 1 everywhere."""
    ramp = np.sin(np.pi / 2 * (np.arange(scale * overlap) + 0.5) / max(scale * overlap, 1)) ** 2
    total = np.zeros(scale * length)
    parts = []
    for start in starts:
        share = np.ones(scale * tile)
        if start != starts[0]:
            share[: len(ramp)] *= ramp
        if start != starts[-1]:
            share[len(share) - len(ramp) :] *= ramp[::-1]
        begin, end = scale * max(start, 0), scale * min(start + tile, length)
        inside = slice(begin - scale * start, end - scale * start)
        total[begin:end] += share[inside]
        pixels = _continued(start + np.arange(tile), length, padding_mode)
        parts.append(_Part(pixels, slice(begin, end), inside, share[inside]))
    return [part._replace(weight=part.weight / total[part.into]) for part in parts]


def _continued(index: np.ndarray, length: int, padding_mode: Beyond) -> np.ndarray:
    """Indices inside an axis, for some that may lie far outside."""
    if padding_mode == "replicate":
        return np.clip(index, 0, length - 1)
    if padding_mode == "circular":
        return index % length
    index = index % max(2 * length - 2, 1)
    return np.minimum(index, 2 * length - 2 - index)


def measure_overlap(
    restore: Callable[..., np.ndarray],
    image: np.ndarray,
    *,
    tile: int = 512,
    psnr: float = 60.0,
    border: int = 16,
    overlaps: Sequence[int] = (8, 16, 24, 32, 48, 64, 96, 128),
    **options: Any,
) -> int | None:
    """The smallest overlap at which an image restored in tiles agrees with the whole.

    The inverse filter has no finite reach: a network's overlap is measured, not derived.

    Args:
        restore: a `Restorer`, or any function called as `restore(image, tile=, overlap=)`, where
            `tile=0` restores the whole image.
        image: of the kind that the network restores, some tiles large.
        tile: side of the tiles; larger ones agree better at the same overlap.
        psnr: agreement asked for, in dB of a peak of 1.
        border: pixels at the borders of the image that are not compared: a network that treats the
            image as periodic sees its other end there, which tiles do not.
        overlaps: those tried, in ascending order.
        options: passed to `restore`, e.g. the kernel.

    Returns:
        The first of `overlaps` that reaches `psnr`; None if none does.
    """
    whole = restore(image, tile=0, **options)
    border *= whole.shape[0] // image.shape[0]
    inside = np.s_[border : whole.shape[0] - border, border : whole.shape[1] - border]
    for overlap in overlaps:
        tiles = restore(image, tile=tile, overlap=overlap, **options)
        error = float(np.square((tiles - whole)[inside], dtype=np.float64).mean())
        if error <= 10 ** (-psnr / 10):
            return overlap
    return None
