"""Sheets of captioned panels on white, each with a magnified detail."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converse_jax.imaging import Image, ImageError, to_uint8, write_image
from converse_jax.imaging._files import format_of
from converse_jax.messages import exists_already, no_folder

if TYPE_CHECKING:
    from PIL import Image as PilImage
    from PIL import ImageDraw

_GAP, _CAPTION, _TITLE = 20, 54, 76  # the last two are heights
INK, SOFT, ACCENT = (28, 28, 30), (110, 110, 115), (196, 76, 36)


@dataclass(frozen=True)
class Panel:
    """An image of a sheet.

    Attributes:
        pixels: floating point `[H, W, 1]` or `[H, W, 3]` in [0, 1].
        detail: row, column and side of the square that is magnified.
        inset: side of the magnified square, in pixels of the sheet.
        caption: first line below.
        figure: second line.
        color: of the second line.
        size: of the letters in it, 15 or 17.
        smooth: magnify with cubic interpolation, for an image smaller than that beside it, or where
            pixels would not all become equally large.
    """

    pixels: np.ndarray
    detail: tuple[float, float, float]
    inset: int
    caption: str
    figure: str = ""
    color: tuple[int, int, int] = SOFT
    size: int = 17
    smooth: bool = False


def check_target(target: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise an ImageError if the sheet could not be written; to be called before the work."""
    path = Path(target)
    if os.path.lexists(path) and not overwrite:
        raise ImageError(exists_already(path))
    format_of(path)
    if not os.path.isdir(path.parent):
        raise ImageError(no_folder(path))


def write_sheet(
    target: str | os.PathLike[str],
    title: str,
    subtitle: str,
    rows: Sequence[Sequence[Panel]],
    *,
    width: int,
    row_gap: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw the sheet and save it; panels keep the aspect ratio of their image.

    Args:
        target: the image to make.
        title: in large letters.
        subtitle: in small ones below.
        rows: from the top down, as many panels in each.
        width: of a panel, in pixels.
        row_gap: extra pixels between a caption and the next row.
        overwrite: replace an existing file.

    Raises:
        ImageError: target exists or cannot be written.
    """
    from PIL import Image as PilImage
    from PIL import ImageDraw, ImageFont

    heights = [panel_height(row[-1].pixels, width) for row in rows]
    height = _TITLE + sum(heights) + len(rows) * _CAPTION + (len(rows) - 1) * row_gap + _GAP
    across = len(rows[0])
    sheet = PilImage.new("RGB", (across * width + (across + 1) * _GAP, height), "white")
    draw = ImageDraw.Draw(sheet)
    fonts = {size: ImageFont.load_default(size) for size in (15, 17, 24)}
    draw.text((_GAP, 18), title, INK, fonts[24])
    draw.text((_GAP, 48), subtitle, SOFT, fonts[15])
    top = _TITLE
    for row, row_height in zip(rows, heights, strict=True):
        caption = top + row_height
        for j, panel in enumerate(row):
            left = _GAP + j * (width + _GAP)
            _draw_panel(sheet, draw, panel, (left, top, width, row_height))
            draw.text((left, caption + 6), panel.caption, INK, fonts[17])
            draw.text((left, caption + 27), panel.figure, panel.color, fonts[panel.size])
        top = caption + _CAPTION + row_gap
    write_image(target, Image(np.asarray(sheet, np.float32) / 255), overwrite=overwrite)


def panel_height(pixels: np.ndarray, width: int) -> int:
    """The height of an image in a panel of this width."""
    return max(1, round(width * pixels.shape[0] / pixels.shape[1]))


def _draw_panel(
    sheet: PilImage.Image,
    draw: ImageDraw.ImageDraw,
    panel: Panel,
    place: tuple[int, int, int, int],
) -> None:
    """Paste an image with its magnified detail; `place` is (left, top, width, height)."""
    from PIL import Image as PilImage

    (left, top, width, height), (row, column, side) = place, panel.detail
    pixels = to_uint8(panel.pixels)
    image = PilImage.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    sheet.paste(image.resize((width, height), PilImage.Resampling.LANCZOS), (left, top))
    ratio = width / image.width
    box = [left + column * ratio, top + row * ratio]
    draw.rectangle([*box, *(x + side * ratio for x in box)], outline="white", width=2)
    inset = panel.inset
    x, y = left + width - inset - 6, top + height - inset - 6
    draw.rectangle([x - 2, y - 2, x + inset + 1, y + inset + 1], fill="white")
    way = PilImage.Resampling.BICUBIC if panel.smooth else PilImage.Resampling.NEAREST
    part = image.resize((inset, inset), way, (column, row, column + side, row + side))
    sheet.paste(part, (x, y))


def write_comparison(
    target: str | os.PathLike[str],
    before: np.ndarray,
    after: np.ndarray,
    title: str,
    subtitle: str,
    *,
    overwrite: bool = False,
) -> None:
    """Draw an image beside its restoration, with a detail where there is most to see.

    Args:
        target: the image to make.
        before: floating point `[H, W, C]` in [0, 1].
        after: the same image in any size.
        title, subtitle: see `write_sheet`.
        overwrite: replace an existing file.

    Raises:
        ImageError: target exists or cannot be written.
    """
    height, width = before.shape[:2]
    # A tall image gets a narrow panel: 640x960 at most.
    panel = max(1, round(min(640.0, 960.0 * width / height)))
    # A pixel of the larger image is shown at least three times as large, and clearly larger than in
    # the panel.
    ratio = after.shape[1] / width
    larger = max(round(ratio), 1)
    magnified = larger * max(3, math.ceil(2 * panel / (larger * width)))
    limit = 0.4 * min(panel, panel_height(before, panel))
    side = min(max(int(limit / magnified), 1), height, width)
    row, column = busiest_square(before, side)
    inset = magnified * side
    smooth = ratio > 1, ratio < 1 or ratio != larger
    details = (row, column, side), (ratio * row, ratio * column, ratio * side)
    panels = [
        Panel(x, detail, inset, name, f"{x.shape[1]}x{x.shape[0]} pixels", smooth=cubic)
        for x, name, detail, cubic in zip(
            (before, after), ("Before", "After"), details, smooth, strict=True
        )
    ]
    # A name of bytes that are no text cannot be drawn.
    title = title.encode(errors="replace").decode()
    write_sheet(target, title, subtitle, [panels], width=panel, overwrite=overwrite)


def busiest_square(pixels: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column of the square with the steepest edges, of a grid of such squares.

    The lower right quarter, where the magnified square covers the image, is left out.
    """
    gray = pixels.mean(axis=-1)
    steps = np.zeros_like(gray)
    steps[:-1] += np.abs(np.diff(gray, axis=0))
    steps[:, :-1] += np.abs(np.diff(gray, axis=1))
    rows, columns = (n // side for n in gray.shape)
    grid = steps[: rows * side, : columns * side].reshape(rows, side, columns, side).mean((1, 3))
    if rows > 1 and columns > 1:
        grid[rows // 2 :, columns // 2 :] = -1
    row, column = np.unravel_index(np.argmax(grid), grid.shape)
    return int(row) * side, int(column) * side
