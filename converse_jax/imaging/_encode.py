"""Encode an `Image`, or several, to the bytes of an image file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from converse_jax.imaging import _png
from converse_jax.imaging._exif import descriptive_tags, fitted, fitted_xmp
from converse_jax.imaging._image import Image, ImageError, fitting_profile
from converse_jax.messages import one_line

_MOST_IN_A_SEGMENT = 65533  # bytes of a JPEG's segment, without its length
_XMP_HEADER, _IPTC_HEADER = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_NO_GAMMA = struct.pack(">I", 45455)  # what the samples have anyway, and what everybody assumes


class _Format(NamedTuple):
    alpha: bool
    bits: int
    side: int
    metadata: frozenset[str]
    takes_quality: bool = False


_ALL = frozenset({"profile", "EXIF", "XMP", "resolution"})
_FORMATS = {
    "png": _Format(True, 16, 2**31 - 1, _ALL | {"text", "color"}),
    "jpeg": _Format(False, 8, 65500, _ALL | {"IPTC", "comment"}, takes_quality=True),
    "tiff": _Format(True, 32, 2**31 - 1, _ALL | {"IPTC"}),
    "webp": _Format(True, 8, 16383, _ALL - {"resolution"}, takes_quality=True),
    "bmp": _Format(False, 8, 2**31 - 1, frozenset({"resolution"})),
}


def check_encodable(
    image: Image,
    format: str,
    *,
    size: tuple[int, int] | None = None,
    pages: int = 1,
    quality: int | None = None,
) -> None:
    """Raise what `encode_image` would of this image, or of one that becomes `size`.

    Args:
        image: for its alpha and bits.
        format: see `encode_image`.
        size: `(height, width)`, by default the image's.
        pages: how many images go to the file.
        quality: see `encode_image`.

    Raises:
        ImageError: an unknown format, or one that cannot hold the alpha, the bits, the size or the
            pages, or that has no quality.
    """
    if format not in _FORMATS:
        raise ImageError(f"format: got {format!r}; expected one of {sorted(_FORMATS)}")
    name, holds = format.upper(), _FORMATS[format]
    if image.alpha is not None and not holds.alpha:
        raise ImageError(
            f"format: {name} holds no alpha channel, and the image has one; write PNG, TIFF or WebP"
        )
    if image.bits > holds.bits:
        has = "floats; write TIFF" if image.bits == 32 else "16; write PNG or TIFF"
        raise ImageError(f"format: {name} holds {holds.bits} bits, and the image has {has}")
    height, width = image.pixels.shape[:2] if size is None else size
    if max(height, width) > holds.side:
        raise ImageError(
            f"format: {name} holds at most {holds.side} pixels a side, and the image has "
            f"{width}x{height}; write PNG or TIFF"
        )
    if pages > 1 and format != "tiff":
        raise ImageError(f"format: {name} holds one image, and there are {pages}; write TIFF")
    if quality is not None:
        check_quality(format, quality)


def check_quality(format: str, quality: int) -> None:
    """Raise an ImageError if the format takes no quality, or if this is none."""
    if not _FORMATS[format].takes_quality:
        raise ImageError(
            f"quality: {format.upper()} is written without loss; leave it out, or write JPEG"
        )
    if not 1 <= quality <= 100:
        raise ImageError(f"quality: got {quality}; expected 1 to 100")


def dropped(image: Image, format: str) -> list[str]:
    """Names of what an image holds and a file of this format does not."""
    kept, lost = _FORMATS[format].metadata, []
    if image.icc_profile is not None and "profile" not in kept:
        lost.append("color profile")
    limit = _MOST_IN_A_SEGMENT if format == "jpeg" else None
    for what, value, header in (
        ("EXIF", image.exif, b""),
        ("XMP", image.xmp, _XMP_HEADER),
        ("IPTC", image.iptc, _IPTC_HEADER + bytes(14)),
    ):
        if value is not None and what not in kept:
            lost.append(what)
        elif value is not None and limit is not None and len(header) + len(value) > limit:
            lost.append(f"{what} ({len(value)} bytes, too long)")
    if image.resolution is not None and "resolution" not in kept:
        lost.append("resolution")
    if "text" not in kept:
        lost += [
            f"text {key!a}" for key in image.text if (key, "comment" in kept) != ("Comment", True)
        ]
    if "color" not in kept:
        # Samples without any of these are taken for sRGB.
        plain = "cHRM" not in image.color and image.color.get("gAMA") == _NO_GAMMA
        harmless = {"sRGB", "gAMA"} if plain else {"sRGB"}
        lost += [kind for kind in image.color if kind not in harmless]
    return lost


def encode_image(image: Image, format: str, *, quality: int | None = None) -> bytes:
    """Encode an image, losslessly except for rounding to `bits` and for JPEG.

    PNG, TIFF and WebP are lossless, JPEG has quality 95 without chroma subsampling. WebP has no
    gray: it comes back as RGB. The ICC profile is kept if it fits the channels. The values go up to
    `white`, and a TIFF says so. `bits=32` writes a TIFF of float32, whose values are not clipped.
    Metadata is kept where the format has a place for it; the size and resolution in EXIF and XMP
    become those of the image.

    Args:
        image: values outside [0, 1] are clipped, unless they are written as floats.
        format: "png", "jpeg", "tiff", "webp" or "bmp".
        quality: 1 to 100, for JPEG (default 95), and for WebP, which is then lossy.

    Returns:
        The whole file.

    Raises:
        ImageError: an unknown format, one that cannot hold the alpha or the bits or has no
            quality, pixels that are not finite, or a size beyond the format's limit.
    """
    return encode_pages([image], format, quality=quality)


def encode_pages(images: Iterable[Image], format: str, *, quality: int | None = None) -> bytes:
    """Encode images as the pages of a TIFF, or one as any format; see `encode_image`.

    They are taken one after the other, and each is kept in its encoded form only.
    """
    if format == "tiff":
        return _encode_tiff(images, quality)
    rest = iter(images)
    image = next(rest, None)
    if image is None:
        raise ImageError("images: got none; expected at least one")
    if next(rest, None) is not None:
        raise ImageError(f"format: {format.upper()} holds one image; write TIFF")
    check_encodable(image, format, quality=quality)
    samples = to_samples(image)
    try:
        if format == "png":
            return _png.with_metadata(_png_samples(samples), image)
        return _encode_pillow(samples, format, image, quality)
    except ImportError:
        raise
    except Exception as error:  # the encoders raise almost anything
        reason = one_line(error)
        height, width = samples.shape[:2]
        raise ImageError(
            f"format: {format.upper()} does not take this image of {width}x{height} pixels "
            f"({reason}); write another format"
        ) from None


def to_samples(image: Image) -> np.ndarray:
    """The samples `[H, W, 1..4]` of the file."""
    white = image.largest if image.white is None else image.white
    layers, scales = [image.pixels], [white] * image.pixels.shape[-1]
    if image.alpha is not None:
        layers.append(image.alpha[..., None])
        scales.append(image.largest)
    unit = np.concatenate(layers, axis=-1)
    if not np.isfinite(unit).all():
        raise ImageError("pixels: hold NaN or infinity; there is no such color to write")
    scale = np.array(scales, np.float32)
    if image.bits == 32:
        return unit * scale
    dtype = np.uint16 if image.bits == 16 else np.uint8
    return np.round(np.clip(unit, 0.0, 1.0) * scale).astype(dtype)


def _encode_pillow(samples: np.ndarray, format: str, image: Image, quality: int | None) -> bytes:
    """JPEG, WebP and BMP."""
    from PIL import Image as PilImage

    height, width = samples.shape[:2]
    lost = " ".join(dropped(image, format))
    options: dict[str, object] = {}
    if format != "bmp":
        options["icc_profile"] = fitting_profile(image.icc_profile, image.pixels.shape[-1])
        if image.exif is not None and "EXIF" not in lost:
            options["exif"] = fitted(image.exif, width, height, image.resolution)
        if image.xmp is not None and "XMP" not in lost:
            options["xmp"] = fitted_xmp(image.xmp, width, height)
    if format != "webp" and image.resolution is not None and image.resolution.unit == "inch":
        options["dpi"] = image.resolution[:2]
    if format == "jpeg":
        options |= {"quality": quality or 95, "subsampling": 0}
        if "Comment" in image.text:
            options["comment"] = image.text["Comment"].encode()[:_MOST_IN_A_SEGMENT]
        if image.iptc is not None and "IPTC" not in lost:
            options["extra"] = _iptc_segment(image.iptc)
    if format == "webp":
        # `exact`: colors under full transparency are kept, as everywhere else here.
        options |= {"exact": True, "lossless": quality is None}
        options |= {} if quality is None else {"quality": quality}
    out = io.BytesIO()
    encoded = PilImage.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
    encoded.save(out, format.upper(), **{k: v for k, v in options.items() if v is not None})
    return out.getvalue()


def _iptc_segment(iptc: bytes) -> bytes:
    """The segment of a JPEG that holds an IPTC record, as one of Photoshop's resources."""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
    body = _IPTC_HEADER + resource
    return b"\xff\xed" + struct.pack(">H", 2 + len(body)) + body


def _png_samples(samples: np.ndarray) -> bytes:
    """A PNG without metadata; Pillow does not write all kinds of 16 bits."""
    if samples.shape[-1] == 1:
        samples = samples[..., 0]
    if samples.dtype == np.uint16:
        import imagecodecs

        return bytes(imagecodecs.png_encode(samples))
    from PIL import Image as PilImage

    out = io.BytesIO()
    PilImage.fromarray(samples).save(out, "PNG")
    return out.getvalue()


def _encode_tiff(images: Iterable[Image], quality: int | None) -> bytes:
    """A little-endian TIFF whose pages are one deflated strip each, behind their directories.

    Pillow has no 16-bit RGB or 16-bit gray with alpha, and imagecodecs writes no EXIF, so the file
    is built here. Pillow lays out the directories.
    """
    out, link = bytearray(b"II*\x00\0\0\0\0"), 4
    for image in images:
        check_encodable(image, "tiff", quality=quality)
        start = len(out)
        page, entries = _tiff_page(image, start)
        if start + len(page) >= 2**32:
            raise ImageError(
                "format: TIFF holds 4 GiB, and the images need more; write them to several files"
            )
        struct.pack_into("<I", out, link, start)
        out += page
        out += bytes(len(out) % 2)  # directories begin at even places
        link = start + 2 + 12 * entries
    if link == 4:
        raise ImageError("images: got none; expected at least one")
    return bytes(out)


def _tiff_page(image: Image, start: int) -> tuple[bytes, int]:
    """A directory that begins at byte `start` and its strip; and the number of its entries."""
    from PIL import Image as PilImage
    from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

    samples = to_samples(image)
    height, width, channels = samples.shape
    stored = samples.astype(samples.dtype.newbyteorder("<"))
    if image.bits < 32:
        # Horizontal differences (TIFF 6.0, section 14), modulo 2^bits.
        stored[:, 1:] -= samples[:, :-1]
    strip = zlib.compress(stored)
    tags = ImageFileDirectory_v2()
    if image.exif is not None:
        block = PilImage.Exif()
        block.load(fitted(image.exif, width, height, image.resolution))
        for tag, value in descriptive_tags(block).items():
            tags[tag] = value
    colors = channels - (channels in (2, 4))
    tags[256], tags[257], tags[277] = width, height, channels
    tags[258] = (8 * samples.itemsize,) * channels
    tags[259] = 8  # deflate
    tags[262] = 1 if colors == 1 else 2  # black is zero; RGB
    tags[278], tags[279], tags[273] = height, len(strip), 0  # 273: counted from the directory's end
    tags[284] = 1  # channels last
    tags[317] = 1 if image.bits == 32 else 2
    tags[339] = (3 if image.bits == 32 else 1,) * channels
    if image.resolution is not None:
        x, y, unit = image.resolution
        tags[282], tags[283] = (IFDRational(round(1000 * v), 1000) for v in (x, y))
        tags[296] = 2 if unit == "inch" else 1
    if channels != colors:
        tags[338] = 2  # alpha that the colors are not multiplied with
    if image.white is not None and image.bits == 16:
        tags.tagtype[341] = 3
        tags[341] = (round(image.white),) * colors + (65535,) * (channels - colors)
    if image.xmp is not None:
        tags.tagtype[700] = 1
        tags[700] = fitted_xmp(image.xmp, width, height)
    if image.iptc is not None:
        tags.tagtype[33723] = 7
        tags[33723] = image.iptc
    profile = fitting_profile(image.icc_profile, image.pixels.shape[-1])
    if profile is not None:
        tags[34675] = profile
    directory = tags.tobytes(start)
    return directory + strip, len(tags)
