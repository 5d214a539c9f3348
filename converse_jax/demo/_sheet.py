"""The demo's sheet: a row of three captioned panels for each result, on white."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converse_jax.imaging import Image, ImageError, to_uint8, write_image
from converse_jax.imaging._image import EXTENSIONS

if TYPE_CHECKING:
    from PIL import Image as PilImage
    from PIL import ImageDraw

DEFAULT_NAME = "converse-demo.png"

_PANEL, _GAP, _CAPTION, _TITLE = 384, 20, 54, 76  # the width of a panel; the rest are heights
_MAGNIFIED = 3
_INK, _SOFT, _ACCENT = (28, 28, 30), (110, 110, 115), (196, 76, 36)


@dataclass(frozen=True)
class Row:
    """One photograph degraded, restored, and as it was.

    Attributes:
        before, after, clean: floating point `[H, W, 1]` or `[H, W, 3]` in [0, 1], one shape.
        psnr_before, psnr_after: in dB.
        degraded, restored: captions.
        detail: row, column and side of the square that is magnified.
        credit: caption below the original.
    """

    before: np.ndarray
    after: np.ndarray
    clean: np.ndarray
    psnr_before: float
    psnr_after: float
    degraded: str
    restored: str
    detail: tuple[int, int, int]
    credit: str = ""


def check_target(target: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise an ImageError if the sheet could not be written; to be called before the work."""
    path = Path(target)
    if os.path.lexists(path) and not overwrite:
        raise ImageError(
            f"{path}: exists already; name another file, or overwrite it (--overwrite)"
        )
    if path.suffix.lower() not in EXTENSIONS:
        known = " ".join(EXTENSIONS)
        raise ImageError(f"{path}: the extension {path.suffix!r} is not one of {known}")
    if not os.path.isdir(path.parent):
        raise ImageError(f"{path}: there is no folder {path.parent}; create it first")


def write_sheet(
    target: str | os.PathLike[str],
    title: str,
    subtitle: str,
    rows: Sequence[Row],
    *,
    row_gap: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw the sheet and save it; panels keep the aspect ratio of their photograph.

    Args:
        target: the image to make.
        title: in large letters.
        subtitle: in small ones below.
        rows: from the top down.
        row_gap: extra pixels between a caption and the next row.
        overwrite: replace an existing file.

    Raises:
        ImageError: target exists or cannot be written.
    """
    from PIL import Image as PilImage
    from PIL import ImageDraw, ImageFont

    heights = [round(_PANEL * row.clean.shape[0] / row.clean.shape[1]) for row in rows]
    height = _TITLE + sum(heights) + len(rows) * _CAPTION + (len(rows) - 1) * row_gap + _GAP
    sheet = PilImage.new("RGB", (3 * _PANEL + 4 * _GAP, height), "white")
    draw = ImageDraw.Draw(sheet)
    fonts = {size: ImageFont.load_default(size) for size in (15, 17, 24)}
    draw.text((_GAP, 18), title, _INK, fonts[24])
    draw.text((_GAP, 48), subtitle, _SOFT, fonts[15])
    top = _TITLE
    for row, panel_height in zip(rows, heights, strict=True):
        gain = f"{row.psnr_after:.2f} dB ({row.psnr_after - row.psnr_before:+.2f})"
        panels = [
            (row.before, row.degraded, f"{row.psnr_before:.2f} dB", _SOFT, 17),
            (row.after, row.restored, gain, _ACCENT, 17),
            (row.clean, "Original", row.credit, _SOFT, 15),
        ]
        caption = top + panel_height
        for j, (pixels, text, figure, color, size) in enumerate(panels):
            left = _GAP + j * (_PANEL + _GAP)
            _draw_panel(sheet, draw, pixels, (left, top), row.detail)
            draw.text((left, caption + 6), text, _INK, fonts[17])
            draw.text((left, caption + 27), figure, color, fonts[size])
        top = caption + _CAPTION + row_gap
    write_image(target, Image(np.asarray(sheet, np.float32) / 255), overwrite=overwrite)


def _draw_panel(
    sheet: PilImage.Image,
    draw: ImageDraw.ImageDraw,
    pixels: np.ndarray,
    corner: tuple[int, int],
    detail: tuple[int, int, int],
) -> None:
    """Paste a photograph with its magnified detail; `corner` is (left, top)."""
    from PIL import Image as PilImage

    (left, top), (row, column, side) = corner, detail
    image = PilImage.fromarray(np.broadcast_to(to_uint8(pixels), (*pixels.shape[:2], 3)))
    ratio = _PANEL / image.width
    height = round(_PANEL * image.height / image.width)
    sheet.paste(image.resize((_PANEL, height), PilImage.Resampling.LANCZOS), (left, top))
    box = [left + column * ratio, top + row * ratio]
    draw.rectangle([*box, *(x + side * ratio for x in box)], outline="white", width=2)
    width = _MAGNIFIED * side
    x, y = left + _PANEL - width - 6, top + height - width - 6
    draw.rectangle([x - 2, y - 2, x + width + 1, y + width + 1], fill="white")
    part = image.crop((column, row, column + side, row + side))
    sheet.paste(part.resize((width, width), PilImage.Resampling.NEAREST), (x, y))
