"""Image files made by hand or by Pillow, for the tests of reading and writing."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image as PilImage


def samples(shape: tuple[int, ...], bits: int = 8, seed: int = 0) -> np.ndarray:
    """Random integer samples; 16-bit ones have low bytes that 8-bit decoding would lose."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits, shape).astype(np.uint16 if bits == 16 else np.uint8)


def pillow(image: PilImage.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def profile(space: bytes) -> bytes:
    """Something that says it is a profile of a color space, long enough to be one."""
    return bytes(16) + space + bytes(range(200))


def exif(orientation: int | None = None, *, order: str = "<") -> bytes:
    """An EXIF block: maker "Nobody", the orientation, and an EXIF directory with an ISO number."""
    entries = [(271, 2, 7, None)]
    if orientation is not None:
        entries.append((274, 3, 1, struct.pack(order + "HH", orientation, 0)))
    entries.append((0x8769, 4, 1, None))
    after = 8 + 2 + 12 * len(entries) + 4
    body = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    body += struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        if value is None:
            value = struct.pack(order + "I", after if tag == 271 else after + 8)
        body += struct.pack(order + "HHI", tag, kind, count) + value
    body += struct.pack(order + "I", 0) + b"Nobody\0\0"
    iso = struct.pack(order + "HHIHH", 0x8827, 3, 1, 400, 0)
    return b"Exif\0\0" + body + struct.pack(order + "H", 1) + iso + struct.pack(order + "I", 0)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, depth: int, color: int, rows: bytes, *chunks: tuple[bytes, bytes]
) -> bytes:
    """A PNG from its packed rows, each beginning with its filter byte."""
    out = b"\x89PNG\r\n\x1a\n"
    out += png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    for kind, body in chunks:
        out += png_chunk(kind, body)
    return out + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The array a camera stores for an upright image, from EXIF's table of tag 274.

    The table says at which side of the image the stored row 0 and column 0 are.
    """
    sides = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    height, width = upright.shape[:2]
    swapped = sides[0] in ("left", "right")
    shape = (width, height) if swapped else (height, width)
    stored = np.zeros((*shape, *upright.shape[2:]), upright.dtype)
    for row in range(shape[0]):
        for column in range(shape[1]):
            place = {}
            for side, n in zip(sides, (row, column), strict=True):
                place["y" if side in ("top", "bottom") else "x"] = {
                    "top": n,
                    "bottom": height - 1 - n,
                    "left": n,
                    "right": width - 1 - n,
                }[side]
            stored[row, column] = upright[place["y"], place["x"]]
    return stored
