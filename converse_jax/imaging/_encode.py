"""Encode an `Image` to the bytes of an image file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np

from converse_jax.imaging._exif import PREFIX, descriptive_tags
from converse_jax.imaging._image import Image, ImageError, fitting_profile
from converse_jax.messages import one_line

# format -> (holds alpha, holds 16 bits)
_HOLDS = {
    "png": (True, True),
    "jpeg": (False, False),
    "tiff": (True, True),
    "webp": (True, False),
    "bmp": (False, False),
}


def encode_image(image: Image, format: str) -> bytes:
    """Encode an image, losslessly except for rounding to `bits` and for JPEG.

    PNG, TIFF and WebP are lossless, JPEG has quality 95 without chroma subsampling. WebP has no
    gray: it comes back as RGB. The ICC profile is kept if it fits the channels, EXIF if the format
    has a place for it (BMP has one for neither).

    Args:
        image: values outside [0, 1] are clipped.
        format: "png", "jpeg", "tiff", "webp" or "bmp".

    Returns:
        The whole file.

    Raises:
        ImageError: an unknown format, one that cannot hold the alpha or the 16 bits,
            pixels that are not finite, or a size beyond the format's limit.
    """
    if format not in _HOLDS:
        raise ImageError(f"format: got {format!r}; expected one of {sorted(_HOLDS)}")
    holds_alpha, holds_16 = _HOLDS[format]
    if image.alpha is not None and not holds_alpha:
        raise ImageError(
            f"format: {format.upper()} holds no alpha channel, and the image has one; "
            "write PNG, TIFF or WebP"
        )
    if image.bits == 16 and not holds_16:
        raise ImageError(
            f"format: {format.upper()} holds 8 bits, and the image has 16; "
            "write PNG or TIFF, or replace the image's bits by 8"
        )
    samples = _samples(image)
    profile = fitting_profile(image.icc_profile, image.pixels.shape[-1])
    try:
        if format == "tiff":
            return _encode_tiff(samples, profile, image.exif)
        if image.bits == 16:
            return _encode_png16(samples, profile, image.exif)
        return _encode_pillow(samples, format, profile, image.exif)
    except ImportError:
        raise
    except Exception as error:  # the encoders raise almost anything
        # For example, WebP ends at 16383 pixels a side, JPEG at 65535 and at 64 KiB of EXIF.
        reason = one_line(error)
        height, width = samples.shape[:2]
        raise ImageError(
            f"format: {format.upper()} does not take this image of {width}x{height} pixels "
            f"({reason}); write another format, or without icc_profile and exif"
        ) from None


def _samples(image: Image) -> np.ndarray:
    """The integer samples `[H, W, 1..4]` of the file."""
    layers = [image.pixels]
    if image.alpha is not None:
        layers.append(image.alpha[..., None])
    unit = np.concatenate(layers, axis=-1)
    if not np.isfinite(unit).all():
        raise ImageError("pixels: hold NaN or infinity; there is no such color to write")
    peak, dtype = (65535.0, np.uint16) if image.bits == 16 else (255.0, np.uint8)
    return np.round(np.clip(unit, 0.0, 1.0) * np.float32(peak)).astype(dtype)


def _encode_pillow(
    samples: np.ndarray, format: str, profile: bytes | None, exif: bytes | None
) -> bytes:
    """8-bit PNG, JPEG, WebP and BMP."""
    from PIL import Image as PilImage

    options: dict[str, object] = {}
    if format != "bmp":
        options = {"icc_profile": profile, "exif": exif}
        options = {key: value for key, value in options.items() if value is not None}
    if format == "jpeg":
        options |= {"quality": 95, "subsampling": 0}
    if format == "webp":
        # `exact`: colors under full transparency are kept, as everywhere else here.
        options |= {"lossless": True, "exact": True}
    out = io.BytesIO()
    image = PilImage.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
    image.save(out, format.upper(), **options)
    return out.getvalue()


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk: length, kind, body, CRC of kind and body (PNG, section 5.3)."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _encode_png16(samples: np.ndarray, profile: bytes | None, exif: bytes | None) -> bytes:
    """16-bit PNG, which Pillow does not write; the codec writes no metadata, so it is inserted."""
    import imagecodecs

    data = bytes(
        imagecodecs.png_encode(np.squeeze(samples, -1) if samples.shape[-1] == 1 else samples)
    )
    extra = b""
    if profile is not None:
        # The profile's name, a null, and compression method 0 (PNG, section 11.3.2.3).
        extra += _png_chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(profile))
    if exif is not None:
        extra += _png_chunk(b"eXIf", exif.removeprefix(PREFIX))
    after_header = 8 + 12 + 13  # signature; length, kind and CRC of IHDR; its body
    return data[:after_header] + extra + data[after_header:]


def _encode_tiff(samples: np.ndarray, profile: bytes | None, exif: bytes | None) -> bytes:
    """A little-endian TIFF of one deflated strip with horizontal differences (TIFF 6.0, sec. 14).

    Pillow has no 16-bit RGB or 16-bit gray with alpha, and imagecodecs writes no EXIF, so the file
    is built here. Pillow lays out the directory.
    """
    from PIL import Image as PilImage
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    height, width, channels = samples.shape
    difference = samples.astype(samples.dtype.newbyteorder("<"))
    difference[:, 1:] -= samples[:, :-1]  # modulo 2^bits, as the predictor is defined
    strip = zlib.compress(difference.tobytes())
    tags = ImageFileDirectory_v2()
    if exif is not None:
        block = PilImage.Exif()
        block.load(exif)
        for tag, value in descriptive_tags(block).items():
            tags[tag] = value
    colors = channels - (channels in (2, 4))
    tags[256], tags[257], tags[277] = width, height, channels
    tags[258] = (8 * samples.itemsize,) * channels
    tags[259] = 8  # deflate
    tags[262] = 1 if colors == 1 else 2  # black is zero; RGB
    tags[278], tags[279], tags[273] = height, len(strip), 0  # 273: counted from the directory's end
    tags[284] = 1  # channels last
    tags[317] = 2  # horizontal differences
    if channels != colors:
        tags[338] = 2  # alpha that the colors are not multiplied with
    if profile is not None:
        tags[34675] = profile
    return b"II*\x00\x08\x00\x00\x00" + tags.tobytes(8) + strip
