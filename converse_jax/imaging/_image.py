"""An image in memory with all that a restored file must keep: alpha, bits, profile, metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

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
"""The file name extensions that are written, and their formats."""

READ_EXTENSIONS = (
    *EXTENSIONS,
    *(".avif", ".gif", ".jp2", ".j2k", ".jpe", ".jxl", ".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
    ".tga",
)
"""The file name extensions of images that are read."""


class ImageError(ValueError):
    """An image file that cannot be read or written: which one, why, and what to do, in a line."""


class Resolution(NamedTuple):
    """Pixels per unit of length along x and y; the unit is "inch", or "none" (unknown)."""

    x: float
    y: float
    unit: str = "inch"

    def enlarged(self, factor: float) -> Resolution:
        """That of an image with more pixels in the same size in print."""
        return Resolution(self.x * factor, self.y * factor, self.unit)


@dataclass(frozen=True, eq=False)
class Image:
    r"""A still image and what its file said about it.

    Attributes:
        pixels: float32 `[H, W, C]`, C = 1 (gray) or 3 (RGB), upright, not premultiplied; in [0, 1],
            except that floating-point files may hold a little less and more.
        alpha: float32 `[H, W]` in [0, 1], or None if the file has no transparency.
        bits: bits per sample in the file: 8 or 16, or 32 for floating-point samples.
        icc_profile: the color profile that `pixels` are in, or None.
        exif: the EXIF block, beginning with `Exif\0\0`, its orientation 1; or None.
        white: the value in the file that is 1 in `pixels`; None if that is the largest that `bits`
            can hold (1.0 for floating-point samples). 12 bits in 16 have 4095.
        resolution: pixels per inch, or None.
        xmp: the XMP packet, its orientation 1; or None.
        iptc: the IPTC-NAA record, or None.
        text: comments by keyword, as PNG has them; that of a JPEG has the keyword "Comment".
        color: bodies of the PNG chunks that describe colors: gAMA, cHRM, sRGB, cICP, mDCV, cLLI.
        notes: what was guessed, or dropped, when the file was read.

    Raises:
        ImageError: wrong shapes, dtypes or bit depth.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8
    icc_profile: bytes | None = None
    exif: bytes | None = None
    white: float | None = None
    resolution: Resolution | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    color: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
        if self.bits not in (8, 16, 32):
            raise ImageError(f"bits: got {self.bits!r}; expected 8, 16, or 32 for floats")
        if self.white is not None and not 0 < self.white < float("inf"):
            raise ImageError(f"white: got {self.white!r}; expected a positive number or None")

    @property
    def largest(self) -> float:
        """The largest value that `bits` can hold; 1 for floating-point samples."""
        return {8: 255.0, 16: 65535.0, 32: 1.0}[self.bits]


def fitting_profile(profile: bytes | None, channels: int) -> bytes | None:
    """The profile, if it describes gray (1 channel) or RGB (3); a CMYK one no longer applies.

    Bytes 16 to 20 of a profile name its color space (ICC.1:2010, table 13).
    """
    space = b"GRAY" if channels == 1 else b"RGB "
    return profile if profile and len(profile) >= 128 and profile[16:20] == space else None
