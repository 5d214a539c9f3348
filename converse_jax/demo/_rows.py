"""A row of the demo's sheet: a photograph degraded, restored, and as it was."""

from __future__ import annotations

import numpy as np

from converse_jax._sheet import ACCENT, Panel

DEFAULT_NAME = "converse-demo.png"

WIDTH = 384
"""Of a panel, in pixels."""

_MAGNIFIED = 3


def panels(
    images: tuple[np.ndarray, np.ndarray, np.ndarray],
    psnr: tuple[float, float],
    captions: tuple[str, str],
    detail: tuple[int, int, int],
    credit: str = "",
) -> list[Panel]:
    """The three panels of a row.

    Args:
        images: degraded, restored and original, floating point `[H, W, C]` in [0, 1], one shape.
        psnr: of the first two, in dB.
        captions: of the first two.
        detail: row, column and side of the square that is magnified.
        credit: caption below the original.
    """
    inset = _MAGNIFIED * detail[2]
    (before, after, clean), gain = images, f"{psnr[1]:.2f} dB ({psnr[1] - psnr[0]:+.2f})"
    return [
        Panel(before, detail, inset, captions[0], f"{psnr[0]:.2f} dB"),
        Panel(after, detail, inset, captions[1], gain, ACCENT),
        Panel(clean, detail, inset, "Original", credit, size=15),
    ]
