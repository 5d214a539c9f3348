"""EXIF blocks: made upright, and moved in and out of a TIFF's own directory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

PREFIX = b"Exif\x00\x00"
ORIENTATION = 0x0112
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
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(bytes(data[:4]))
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
            if tag == ORIENTATION and kind == 3 and length == 1:
                struct.pack_into(order + "H", data, entry + 8, 1)
        struct.pack_into(order + "I", data, first + 2 + 12 * count, 0)
    except struct.error:
        return None
    return PREFIX + bytes(data)


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
