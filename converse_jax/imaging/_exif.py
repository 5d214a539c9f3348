"""EXIF and XMP: made upright, fitted to a size, moved in and out of a TIFF's own directory."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from converse_jax.imaging._image import Resolution

if TYPE_CHECKING:
    from PIL import Image

PREFIX = b"Exif\x00\x00"
ORIENTATION = 0x0112
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_EXIF_DIRECTORY, _GPS_DIRECTORY, _INTEROP = 0x8769, 0x8825, 0xA005
# What TIFF shares with EXIF and describes the photograph, not the layout of the file:
# description, make, model, software, date, artist, copyright.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 33432)


def upright(raw: bytes | None) -> bytes | None:
    """The EXIF block with orientation 1 and without its thumbnail's directory.

    Only the bytes concerned are changed, in place: rewriting an EXIF block would break the offsets
    inside camera makers' notes. A block that cannot be parsed is dropped (None). The thumbnail
    would show the image before it was turned and restored.
    """
    if not raw:
        return None
    data = bytearray(raw)
    while data.startswith(PREFIX):
        del data[: len(PREFIX)]
    try:
        order, first = _first_directory(data)
        for entry, tag, kind, length in _entries(data, order, first):
            if tag == ORIENTATION and kind == _SHORT and length == 1:
                struct.pack_into(order + "H", data, entry + 8, 1)
        (count,) = struct.unpack_from(order + "H", data, first)
        struct.pack_into(order + "I", data, first + 2 + 12 * count, 0)
    except (struct.error, ValueError):
        return None
    return PREFIX + bytes(data)


def fitted(exif: bytes, width: int, height: int, resolution: Resolution | None) -> bytes:
    """The upright block with the size and the resolution of the image that it is written with.

    As in `upright` only these bytes are changed, where the block has them.
    """
    data = bytearray(exif.removeprefix(PREFIX))
    sizes = {_PIXEL_WIDTH: width, _PIXEL_HEIGHT: height}
    try:
        order, first = _first_directory(data)
        for entry, tag, kind, length in _entries(data, order, first):
            (value,) = struct.unpack_from(order + "I", data, entry + 8)
            if tag in (256, 257) and length == 1 and kind in (_SHORT, _LONG):
                size = (width, height)[tag - 256]
                struct.pack_into(order + "HII", data, entry + 2, _LONG, 1, size)
            elif resolution and tag in (282, 283) and (kind, length) == (_RATIONAL, 1):
                per_unit = round(1000 * (resolution.x, resolution.y)[tag - 282])
                struct.pack_into(order + "II", data, value, per_unit, 1000)
            elif resolution and tag == 296 and kind == _SHORT:
                unit = 2 if resolution.unit == "inch" else 1
                struct.pack_into(order + "H", data, entry + 8, unit)
            elif tag == _EXIF_DIRECTORY:
                for inner, inner_tag, inner_kind, n in _entries(data, order, value):
                    if inner_tag in sizes and n == 1 and inner_kind in (_SHORT, _LONG):
                        struct.pack_into(order + "HII", data, inner + 2, _LONG, 1, sizes[inner_tag])
    except (struct.error, ValueError):  # a damaged part stays as it is
        return exif
    return PREFIX + bytes(data)


def _first_directory(data: bytearray) -> tuple[str, int]:
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(bytes(data[:4]))
    if order is None:
        raise ValueError("no EXIF block")
    return order, struct.unpack_from(order + "I", data, 4)[0]


def _entries(data: bytearray, order: str, directory: int) -> Iterator[tuple[int, int, int, int]]:
    """Each entry's place, tag, kind and count."""
    (count,) = struct.unpack_from(order + "H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        yield entry, *struct.unpack_from(order + "HHI", data, entry)


def upright_xmp(xmp: bytes) -> bytes:
    """The XMP packet with orientation 1."""
    return _xmp_number(xmp, rb"tiff:Orientation", 1)


def fitted_xmp(xmp: bytes, width: int, height: int) -> bytes:
    """The XMP packet with the size of the image that it is written with, where it says one."""
    for tag in (rb"exif:PixelXDimension", rb"tiff:ImageWidth"):
        xmp = _xmp_number(xmp, tag, width)
    for tag in (rb"exif:PixelYDimension", rb"tiff:ImageLength"):
        xmp = _xmp_number(xmp, tag, height)
    return xmp


def _xmp_number(xmp: bytes, tag: bytes, value: int) -> bytes:
    """Set a property that is an attribute or an element."""
    return re.sub(rb"(\b" + tag + rb"(?:\s*=\s*[\"']|>))\d+", rb"\g<1>%d" % value, xmp)


def turned(array: np.ndarray, orientation: object) -> np.ndarray:
    """The array turned upright by EXIF orientation 1..8; other values change nothing.

    Source: EXIF 2.32, tag 274: at which sides of the image the file's row 0 and column 0 are.
    """
    if orientation == 2:
        return array[:, ::-1]
    if orientation == 3:
        return array[::-1, ::-1]
    if orientation == 4:
        return array[::-1]
    if orientation == 5:
        return array.swapaxes(0, 1)
    if orientation == 6:
        return array.swapaxes(0, 1)[:, ::-1]
    if orientation == 7:
        return array.swapaxes(0, 1)[::-1, ::-1]
    if orientation == 8:
        return array.swapaxes(0, 1)[::-1]
    return array


def descriptive_tags(block: Image.Exif) -> dict[int, Any]:
    """The tags of an EXIF block or TIFF directory that describe the photograph.

    The EXIF and GPS directories are dictionaries in it. The interoperability directory is left out:
    it is an offset into the original file.
    """
    tags: dict[int, Any] = {tag: block[tag] for tag in _DESCRIPTIVE if tag in block}
    for directory in (_EXIF_DIRECTORY, _GPS_DIRECTORY):
        if directory in block:
            inner = block.get_ifd(directory)
            tags[directory] = {tag: value for tag, value in inner.items() if tag != _INTEROP}
    return tags
