"""Samples as decoders give them, to colors and alpha in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converse_jax.imaging._exif import turned, upright, upright_xmp
from converse_jax.imaging._image import Image, ImageError, Resolution, fitting_profile
from converse_jax.imaging._levels import white_level

if TYPE_CHECKING:
    from PIL import Image as PilImage


_NO_NOTES: tuple[str, ...] = ()


def unit(
    samples: np.ndarray,
    bits: int,
    *,
    given: float | None = None,
    tagged: float | None = None,
) -> dict[str, Any]:
    """Samples `[H, W]` or `[H, W, 1..4]` as the pixels, alpha, bits and white of an `Image`.

    Args:
        samples: unsigned integers or floats; two or four channels have an alpha.
        bits: how many bits of integers can be filled.
        given: the user's white level.
        tagged: the file's.
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    colors = samples.shape[-1] - (samples.shape[-1] in (2, 4))
    floats = np.issubdtype(samples.dtype, np.floating)
    container = 32 if floats else 8 if bits <= 8 else 16
    full = 1.0 if floats else float(2**bits - 1)
    if colors < samples.shape[-1] and given is None and tagged is None and not floats:
        white, notes = full, _NO_NOTES  # alpha shows that the numbers are filled
    else:
        white, notes = white_level(samples[..., :colors], bits, given=given, tagged=tagged)
    pixels = samples.astype(np.float32)
    alpha = None
    if colors < samples.shape[-1]:
        alpha = np.clip(pixels[..., colors] / np.float32(full), 0, 1)
        if np.isnan(alpha).any():
            raise ImageError("its alpha holds NaN; give it values")
        pixels = pixels[..., :colors]
    pixels /= np.float32(white)
    largest = {8: 255, 16: 65535, 32: 1}[container]
    if 8 < bits < 16 and not floats:
        notes = (f"{bits} bits a sample: written with values up to {white:g} in 16", *notes)
    return {
        "pixels": pixels,
        "alpha": alpha,
        "bits": container,
        "white": None if white == largest else white,
        "notes": notes,
    }


def from_pillow(image: PilImage.Image, depth: int = 8) -> np.ndarray:
    """A loaded Pillow image of 8 bits a sample or less as 8-bit samples, alpha last.

    Args:
        image: the image.
        depth: bits per sample in the file.

    Raises:
        ImageError: a kind of pixels that is not read.
    """
    mode, key = image.mode, image.info.get("transparency")
    if mode in ("1", "L") and key is not None:
        # The key is given at the file's own depth, while the pixels are already scaled to 255.
        level = 255 * bool(key) if mode == "1" else int(key) * 255 // (2**depth - 1)
        gray = np.asarray(image.convert("L"))
        return np.stack([gray, np.where(gray == level, 0, 255).astype(np.uint8)], axis=-1)
    if image.has_transparency_data:
        target = "LA" if mode in ("LA", "La") else "RGBA"
    elif mode in ("1", "L"):
        target = "L"
    elif mode in ("RGB", "RGBX", "P", "CMYK", "YCbCr"):
        target = "RGB"
    else:
        raise ImageError(
            f"its pixels are of kind {mode}, which is not read; "
            "convert it to 8 or 16-bit gray, RGB or CMYK"
        )
    return np.asarray(image if mode == target else image.convert(target))


def assembled(
    parts: dict[str, Any],
    orientation: Any = 1,
    *,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    resolution: Resolution | None = None,
    **more: Any,
) -> Image:
    """The upright `Image` from what `unit` returned and the file's metadata."""
    notes = list(parts["notes"]) + list(more.pop("notes", ()))
    pixels, alpha = parts["pixels"], parts["alpha"]
    profile, block = fitting_profile(icc_profile, pixels.shape[-1]), upright(exif)
    if icc_profile and profile is None:
        notes.append("its color profile is not one of gray or RGB and is dropped")
    if exif and block is None:
        notes.append("its EXIF block is damaged and is dropped")
    if xmp and (b"hdrgm:" in xmp or b"GainMap" in xmp):
        xmp = None
        notes.append("its HDR gain map is dropped, with the XMP that describes it")
    if resolution and orientation in (5, 6, 7, 8):
        resolution = Resolution(resolution.y, resolution.x, resolution.unit)
    return Image(
        pixels=np.ascontiguousarray(turned(pixels, orientation)),
        alpha=None if alpha is None else np.ascontiguousarray(turned(alpha, orientation)),
        bits=parts["bits"],
        white=parts["white"],
        icc_profile=profile,
        exif=block,
        xmp=upright_xmp(xmp) if xmp else None,
        resolution=resolution,
        notes=tuple(notes),
        **more,
    )


def resolution(x: Any, y: Any, unit: str = "inch", factor: float = 1.0) -> Resolution | None:
    """What a file says of its resolution, if that makes sense."""
    try:
        values = float(x) * factor, float(y) * factor
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(0.01 <= value <= 1e6 for value in values):  # false for NaN
        return None
    return None if unit == "none" and values[0] == values[1] == 1 else Resolution(*values, unit)
