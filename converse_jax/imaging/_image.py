"""An image in memory with all that a restored file must keep: alpha, bits, profile, EXIF."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_PIXELS = 256_000_000
"""Images with more pixels than this are refused from their header, before decoding."""

EXTENSIONS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".bmp": "bmp",
}
"""The file name extensions that are read and written, and their formats."""


class ImageError(ValueError):
    """An image file that cannot be read or written: which one, why, and what to do, in a line."""


@dataclass(frozen=True, eq=False)
class Image:
    r"""A still image and what its file said about it.

    Attributes:
        pixels: float32 `[H, W, C]` in [0, 1], C = 1 (gray) or 3 (RGB), upright, not premultiplied.
        alpha: float32 `[H, W]` in [0, 1], or None if the file has no transparency.
        bits: bits per sample in the file, 8 or 16.
        icc_profile: the color profile that `pixels` are in, or None.
        exif: the EXIF block, beginning with `Exif\0\0`, its orientation 1; or None.

    Raises:
        ImageError: wrong shapes, dtypes or bit depth.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8
    icc_profile: bytes | None = None
    exif: bytes | None = None

    def __post_init__(self) -> None:
        p, a = self.pixels, self.alpha
        if p.ndim != 3 or p.shape[-1] not in (1, 3) or 0 in p.shape:
            raise ImageError(f"pixels: got shape {p.shape}; expected [H, W, 1] or [H, W, 3]")
        if p.dtype != np.float32:
            raise ImageError(f"pixels: got dtype {p.dtype}; expected float32 in [0, 1]")
        if a is not None and (a.shape != p.shape[:2] or a.dtype != np.float32):
            raise ImageError(
                f"alpha: got {a.dtype} {a.shape}; expected float32 {p.shape[:2]} or None"
            )
        if self.bits not in (8, 16):
            raise ImageError(f"bits: got {self.bits!r}; expected 8 or 16")


def fitting_profile(profile: bytes | None, channels: int) -> bytes | None:
    """The profile, if it describes gray (1 channel) or RGB (3); a CMYK one no longer applies.

    Bytes 16 to 20 of a profile name its color space (ICC.1:2010, table 13).
    """
    space = b"GRAY" if channels == 1 else b"RGB "
    return profile if profile and len(profile) >= 128 and profile[16:20] == space else None
