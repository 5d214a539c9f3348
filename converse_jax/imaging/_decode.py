"""Decode the bytes of an image file to its images.

Pillow decodes up to 8 bits per sample and reads the metadata; imagecodecs decodes what has more
(Pillow silently keeps the upper 8 bits of 16-bit RGB), and what Pillow does not know.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converse_jax.imaging import _headers, _png
from converse_jax.imaging._exif import ORIENTATION
from converse_jax.imaging._formats import sniff, why_not_read
from converse_jax.imaging._image import Image, ImageError, Resolution
from converse_jax.imaging._pages import Options, Pages, damage_as_image_error, several
from converse_jax.imaging._pixels import assembled, from_pillow, resolution, unit
from converse_jax.imaging._tiff import tiff_pages
from converse_jax.messages import one_line

if TYPE_CHECKING:
    from PIL import Image as PilImage

_READ = "PNG, JPEG, TIFF, WebP, BMP, GIF, AVIF, JPEG XL, JPEG 2000, PNM, PFM or TGA"
_LINEAR = 80000  # gAMA in 1/100000; that of sRGB is 45455
_IPTC = 0x0404  # the number of Photoshop's resource that holds it


def decode_pages(data: bytes, name: str, options: Options) -> Pages:
    """The images of one file; `name` is used in messages.

    Raises:
        ImageError: anything is wrong with the file; of its pixels, when they are asked for.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty; fetch or export the image again")
    if (reason := why_not_read(data, name)) is not None:
        raise ImageError(f"{name}: is {reason}")
    kind = sniff(data, name)
    if kind is None:
        raise ImageError(f"{name}: not an image; give a {_READ} file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "tiff":
            return tiff_pages(data, name, options)
    decode = _DECODERS.get(kind, _decode_by_pillow)
    return Pages(name, [lambda: _decode(decode, data, kind, name, options)])


def _decode(
    decode: Callable[[bytes, str, str, Options], Image],
    data: bytes,
    kind: str,
    name: str,
    options: Options,
) -> Image:
    with warnings.catch_warnings(), damage_as_image_error(name, kind):
        warnings.simplefilter("ignore")
        return decode(data, kind, name, options)


def _open(data: bytes, kind: str) -> PilImage.Image:
    """Pillow's reader of one format, its header parsed and no pixel decoded.

    Not `PilImage.open`: that guesses among formats nobody asked for, and its size limit is one
    module-wide variable. A JPEG is opened as JPEG even where a phone has appended
    previews or a gain map (MPO): the first image is the photograph.
    """
    from PIL import (
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TgaImagePlugin,
        WebPImagePlugin,
    )

    readers: dict[str, Any] = {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "gif": GifImagePlugin.GifImageFile,
        "avif": AvifImagePlugin.AvifImageFile,
        "jp2": Jpeg2KImagePlugin.Jpeg2KImageFile,
        "netpbm": PpmImagePlugin.PpmImageFile,
        "tga": TgaImagePlugin.TgaImageFile,
    }
    image: PilImage.Image = readers[kind](io.BytesIO(data))
    return image


def _decode_by_pillow(data: bytes, kind: str, name: str, options: Options) -> Image:
    """What has at most 8 bits, and the metadata of what has more."""
    notes: list[str] = []
    if kind == "png":
        data, dropped = _png.without_damaged_metadata(data)
        notes += dropped
    with _open(data, kind) as image:
        options.check_size(name, *image.size)
        if kind == "jp2":  # the box around it may say otherwise
            options.check_size(name, *_headers.jp2_frame(data)[1:])
        frames = getattr(image, "n_frames", 1)
        if frames != 1:
            raise several(name, frames)
        depth = _depth(data, kind)
        image.load()  # 16 bits: for the metadata alone, which may follow the pixels
        samples = _deep(data, kind) if depth > 8 else from_pillow(image, depth)
        parts = unit(samples, max(depth, 8), given=options.white_level)
        orientation = image.getexif().get(ORIENTATION, 1)
        metadata = _metadata(image, data, kind, notes)
    return assembled(parts, orientation, notes=notes, **metadata)


def _depth(data: bytes, kind: str) -> int:
    """Bits per sample in the file."""
    if kind == "png":
        return data[24]  # in IHDR, the first chunk by definition
    if kind == "avif":
        return _headers.avif_depth(data)
    return _headers.jp2_frame(data).bits if kind == "jp2" else 8


def _deep(data: bytes, kind: str) -> np.ndarray:
    """The samples of a file with more than 8 bits."""
    import imagecodecs

    decode = {"png": "png_decode", "avif": "avif_decode", "jp2": "jpeg2k_decode"}[kind]
    samples: np.ndarray = getattr(imagecodecs, decode)(data)
    if samples.dtype not in (np.uint8, np.uint16) or samples.ndim not in (2, 3):
        raise ImageError(f"its samples are {samples.dtype}, which is not read; convert it")
    return samples


def _metadata(image: PilImage.Image, data: bytes, kind: str, notes: list[str]) -> dict[str, Any]:
    """What a loaded file says besides its pixels; adds to the notes."""
    info = image.info
    found: dict[str, Any] = {
        "icc_profile": info.get("icc_profile"),
        "exif": info.get("exif"),
        "xmp": info.get("xmp"),
        "resolution": _resolution(info),
    }
    if kind == "png":
        found["text"] = {
            str(key): str(value)
            for key, value in getattr(image, "text", {}).items()
            if key != "XML:com.adobe.xmp" and not str(key).startswith("Raw profile type ")
        }
        found["color"] = _png.color_chunks(data)
        gamma = found["color"].get("gAMA", b"")
        if len(gamma) == 4 and struct.unpack(">I", gamma)[0] > _LINEAR:
            notes.append("its gAMA says linear light, where the networks know the values of sRGB")
        if found["icc_profile"] is None and _png.has_chunk(data, b"iCCP"):
            notes.append("its color profile is damaged and is dropped")
        raw = [key for key in getattr(image, "text", {}) if key.startswith("Raw profile type ")]
        if raw:
            notes.append(f"dropped: {', '.join(raw)}")
    elif info.get("comment") and kind != "jp2":  # there it names the encoder
        comment = info["comment"]
        found["text"] = {
            "Comment": comment.decode("utf-8", "replace") if isinstance(comment, bytes) else comment
        }
    if kind == "jpeg":
        resources = info.get("photoshop")
        iptc = resources.get(_IPTC) if isinstance(resources, dict) else None
        found["iptc"] = iptc if isinstance(iptc, bytes) and iptc else None
        if "mp" in info:
            notes.append("the further images in it (previews, a gain map, depth) are dropped")
    return found


def _resolution(info: dict[Any, Any]) -> Resolution | None:
    if isinstance(info.get("dpi"), tuple):
        x, y = info["dpi"]
        return resolution(x, y)
    if isinstance(info.get("aspect"), tuple):  # of a PNG
        x, y = info["aspect"]
        return resolution(x, y, "none")
    if isinstance(info.get("jfif_density"), tuple) and info.get("jfif_unit") == 0:
        x, y = info["jfif_density"]
        return resolution(x, y, "none")
    return None


def _decode_jpeg(data: bytes, kind: str, name: str, options: Options) -> Image:
    frame = _headers.jpeg_frame(data)
    if frame is None or frame.bits == 8:
        try:
            if frame is not None:
                options.check_size(name, frame.width, frame.height)
                if not frame.fits(len(data)):  # the decoder would make the rest up
                    raise OSError(f"{len(data)} bytes for {frame.width}x{frame.height} pixels")
            return _decode_by_pillow(data, kind, name, options)
        except OSError as error:
            if not options.tolerate_damage:
                raise ImageError(
                    f"{name}: the JPEG file is damaged or cut short ({one_line(error)}); fetch or "
                    "export it again, or restore what is there (--tolerate-damage)"
                ) from None
            # At the end marker the decoder fills up with gray; without one Pillow refuses.
            image = _decode_by_pillow(data + b"\xff\xd9", kind, name, options)
            note = "the file is cut short: what is missing at its end is gray or coarse"
            return replace(image, notes=(*image.notes, note))
    import imagecodecs

    options.check_size(name, frame.width, frame.height)
    if frame.lossless or frame.bits > 12:
        raise ImageError(
            f"{name}: a JPEG of {frame.bits} bits a sample{' without loss' * frame.lossless}, "
            "which is not read; convert it to a 16-bit TIFF or PNG"
        )
    samples = imagecodecs.jpeg8_decode(data)
    if samples.dtype != np.uint16 or samples.shape[:2] != (frame.height, frame.width):
        raise ValueError(f"it decodes to {samples.dtype} {samples.shape}")
    parts = unit(samples, frame.bits, given=options.white_level)
    block = frame.exif
    return assembled(parts, _headers.orientation(block), exif=block)


def _decode_jxl(data: bytes, kind: str, name: str, options: Options) -> Image:
    import imagecodecs

    options.check_size(name, *_headers.jxl_size(data))
    samples = imagecodecs.jpegxl_decode(data)
    # An animation has a leading axis of frames.
    if samples.ndim not in (2, 3) or (samples.ndim == 3 and samples.shape[-1] > 4):
        raise several(name, len(samples))
    parts = unit(samples, 8 * samples.dtype.itemsize, given=options.white_level)
    # The decoder turns the image upright, and gives nothing but pixels.
    notes = ("color profile, EXIF and XMP of a JPEG XL are not read",)
    return assembled(parts, notes=notes)


def _decode_netpbm(data: bytes, kind: str, name: str, options: Options) -> Image:
    header = _headers.netpbm(data)
    if header is None:  # ASCII or bilevel
        return _decode_by_pillow(data, kind, name, options)
    options.check_size(name, header.width, header.height)
    shape = header.height, header.width, header.channels
    count = header.height * header.width * header.channels
    samples = np.frombuffer(data, header.dtype, count, header.start).reshape(shape)
    if header.dtype.kind == "f":  # from the bottom up
        return assembled(unit(samples[::-1], 32, given=options.white_level))
    white = header.white if options.white_level is None else options.white_level
    return assembled(unit(samples, 8 * header.dtype.itemsize, given=white))


_DECODERS = {"jpeg": _decode_jpeg, "jxl": _decode_jxl, "netpbm": _decode_netpbm}
