"""The before/after image of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converse_jax.imaging import Image, to_uint8, write_image

_PANEL, _GAP, _CAPTION = 256, 12, 26
_INK = (28, 28, 30)


def enlarge(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Repeat pixels until a low-resolution image has this size; others are returned as is."""
    rows, columns = height // image.shape[0], width // image.shape[1]
    return image.repeat(rows, 0).repeat(columns, 1)


def sheet(rows: Sequence[Sequence[tuple[str, np.ndarray]]]) -> np.ndarray:
    """Labeled panels, row by row.

    Args:
        rows: rows of `(caption, float32 [H, W, 1 or 3])`.

    Returns:
        float32 `[H, W, 3]` in [0, 1].
    """
    from PIL import Image as PilImage
    from PIL import ImageDraw, ImageFont

    columns = max(len(row) for row in rows)
    size = columns * (_PANEL + _GAP) + _GAP, len(rows) * (_PANEL + _CAPTION + _GAP) + _GAP
    page = PilImage.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for i, row in enumerate(rows):
        for j, (caption, pixels) in enumerate(row):
            left, top = _GAP + j * (_PANEL + _GAP), _GAP + i * (_PANEL + _CAPTION + _GAP)
            rgb = np.broadcast_to(to_uint8(pixels), (*pixels.shape[:2], 3))
            panel = PilImage.fromarray(np.ascontiguousarray(rgb))
            # Enlarge without interpolation, to show noise as it is.
            larger = max(panel.size) > _PANEL
            method = PilImage.Resampling.LANCZOS if larger else PilImage.Resampling.NEAREST
            page.paste(panel.resize((_PANEL, _PANEL), method), (left, top))
            draw.text((left, top + _PANEL + 4), caption, _INK, font)
    return np.asarray(page, np.float32) / 255


def write_sheet(path: Path, rows: Sequence[Sequence[tuple[str, np.ndarray]]]) -> None:
    """Write labeled panels as an image file, replacing an older one."""
    write_image(path, Image(sheet(rows)), overwrite=True)
