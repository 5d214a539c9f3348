"""PSNR and SSIM of images against others, without a model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypedDict

from converse_jax._report import (
    Failure,
    Pair,
    Row,
    matched_images,
    mean_of,
    measure_pairs,
    versions,
)
from converse_jax.imaging import ImageError, Score, measure, read_image, to_reference_uint8


class Comparison(TypedDict):
    """The figures: the JSON that `converse-jax compare` writes."""

    mean: Score
    images: list[Row]
    failed: list[Failure]
    a: str
    b: str
    border: int
    notes: list[str]
    versions: dict[str, str]


def compare(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    border: int = 0,
    on_result: Callable[[Row | Failure, int, int], None] | None = None,
) -> Comparison:
    """Measure two images, or the images of two folders that have one name (`matched_images`).

    All are measured in 8 bits; of a gray image and one in color, the gray one is taken as three
    equal channels. Transparency is ignored.

    Args:
        a, b: two images, or two folders, with their subfolders.
        border: pixels left out at every side.
        on_result: called after each pair with its figures or why there are none, its number from 1,
            and the total.

    Returns:
        The means over the pairs that were measured, and the figures of each.

    Raises:
        ImageError: the paths are not two images or two folders, nothing in them matches, or the
            two images, or all pairs, cannot be measured.
    """
    if border < 0:
        raise ImageError(f"border: got {border}; expected a number of pixels of at least 0")
    pairs = matched_images(a, b)
    notes: dict[str, None] = {}
    rows, failed = measure_pairs(
        pairs, lambda pair: _measured(pair, border, notes), on_result, error=ImageError
    )
    if not rows:
        raise ImageError(f"{a}: none of its images could be compared with those of {b}")
    return Comparison(
        mean=mean_of(rows),
        images=rows,
        failed=failed,
        a=str(a),
        b=str(b),
        border=border,
        notes=list(notes),
        versions=versions(),
    )


def _measured(pair: Pair, border: int, notes: dict[str, None]) -> Row:
    first, second = read_image(pair.a), read_image(pair.b)
    (height, width), (rows, columns) = first.pixels.shape[:2], second.pixels.shape[:2]
    if (height, width) != (rows, columns):
        raise ImageError(
            f"{pair.b}: got {columns}x{rows}; expected {width}x{height}, as {pair.a} has"
        )
    if first.bits != 8 or second.bits != 8:
        notes["images of more than 8 bits were measured in 8"] = None
    if first.alpha is not None or second.alpha is not None:
        notes["transparency was ignored"] = None
    channels = max(image.pixels.shape[-1] for image in (first, second))
    if first.pixels.shape != second.pixels.shape:
        notes["gray images were compared with images in color as three equal channels"] = None
    a, b = (to_reference_uint8(image.pixels, channels) for image in (first, second))
    return Row(name=pair.name, **measure(a, b, border=border))
