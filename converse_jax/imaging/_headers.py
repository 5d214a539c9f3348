"""Sizes and depths from the headers of formats whose decoders do not tell them beforehand."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np

from converse_jax.imaging._exif import ORIENTATION, PREFIX


class JpegFrame(NamedTuple):
    """What a JPEG says before its pixels."""

    bits: int
    width: int
    height: int
    lossless: bool
    exif: bytes | None
    huffman: bool

    def fits(self, length: int) -> bool:
        """Whether a file of so many bytes can hold all of these pixels.

        Every block of 8x8 has at least a bit, unless arithmetic coding makes it less.
        """
        return not self.huffman or self.width * self.height <= 64 * 8 * length


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """The frame header (ITU-T T.81, section B.2.2), None if there is none."""
    position, exif = 2, None
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = data[position + 4 : position + 2 + length]
        if marker == 0xE1 and body.startswith(PREFIX) and exif is None:
            exif = body
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", data, position + 4)
            lossless = marker in (0xC3, 0xC7, 0xCB, 0xCF)
            return JpegFrame(bits, width, height, lossless, exif, huffman=marker < 0xC8)
        position += 2 + length
    return None


def orientation(exif: bytes | None) -> int:
    """The orientation in an EXIF block."""
    from PIL import Image as PilImage

    block = PilImage.Exif()
    try:
        block.load(exif or b"")
        return int(block.get(ORIENTATION, 1))
    except Exception:  # a damaged block says nothing
        return 1


def avif_depth(data: bytes) -> int:
    """Bits per sample, from the AV1 configuration (AV1 in ISOBMFF, section 2.3.3)."""
    place = data.find(b"av1C")
    if place < 0 or place + 7 > len(data):
        return 8
    flags = data[place + 6]
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


class Jp2Frame(NamedTuple):
    """What the code stream of a JPEG 2000 says before its pixels."""

    bits: int
    width: int
    height: int


def jp2_frame(data: bytes) -> Jp2Frame:
    """The SIZ segment of the code stream (ITU-T T.800, section A.5.1), bare or in its box.

    Raises:
        ValueError: there is none.
    """
    start = 0 if data.startswith(_SIZ) else _box(data, (b"jp2c",))
    if not data.startswith(_SIZ, start):
        raise ValueError("its code stream is missing")
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    (bits,) = struct.unpack_from("B", data, start + 42)
    return Jp2Frame((bits & 0x7F) + 1, right - left, bottom - top)


_SIZ = b"\xff\x4f\xff\x51"


def _box(data: bytes, kinds: tuple[bytes, ...]) -> int:
    """Where the body of the first box of these kinds begins (ISO/IEC 14496-12, section 4.2)."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            header = 16
        if kind in kinds:
            return position + header
        if length < header:  # 0: to the end of the file
            break
        position += length
    raise ValueError("its code stream is missing")


class Netpbm(NamedTuple):
    """The header of a binary graymap, pixmap or float map."""

    width: int
    height: int
    channels: int
    dtype: np.dtype
    white: float
    start: int


def netpbm(data: bytes) -> Netpbm | None:
    """The header of P5, P6, Pf or PF; None for the other kinds.

    Source: the formats' manual pages in Netpbm.
    """
    channels = {b"P5": 1, b"P6": 3, b"Pf": 1, b"PF": 3}.get(data[:2])
    if channels is None:
        return None
    words: list[bytes] = []
    position = 2
    while len(words) < 3:
        if data[position : position + 1] == b"#":
            position = data.index(b"\n", position)
        elif data[position : position + 1].isspace():
            position += 1
        else:
            start = position
            while position < len(data) and not data[position : position + 1].isspace():
                position += 1
            if not 0 < position - start <= 32:
                raise ValueError("its header is cut short")
            words.append(data[start:position])
    start = position + 1  # one white space ends the header
    if data[1:2] in b"56":
        white = int(words[2])
        if not 0 < white < 65536:
            raise ValueError(f"its largest value is {white}")
        dtype: np.dtype = np.dtype("u1" if white < 256 else ">u2")
    else:
        scale = float(words[2])
        if scale == 0 or not math.isfinite(scale):
            raise ValueError(f"its scale is {scale}")
        white, dtype = 1, np.dtype("<f4" if scale < 0 else ">f4")
    return Netpbm(int(words[0]), int(words[1]), channels, dtype, white, start)


class _Bits:
    """Bits from the least significant on, as JPEG XL has them."""

    def __init__(self, data: bytes) -> None:
        self._value, self._position = int.from_bytes(data, "little"), 0

    def read(self, count: int) -> int:
        value = self._value >> self._position & (1 << count) - 1
        self._position += count
        return value


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG XL, bare or in a container (ISO/IEC 18181-1, annex D.2; 18181-2).

    Raises:
        ValueError: there is no code stream.
    """
    bits = _Bits(_jxl_codestream(data)[2:18])
    small = bits.read(1)

    def side() -> int:
        if small:
            return 8 * (1 + bits.read(5))
        return 1 + bits.read((9, 13, 18, 30)[bits.read(2)])

    height = side()
    ratio = bits.read(3)
    if not ratio:
        return side(), height
    numerator, denominator = _JXL_RATIOS[ratio - 1]
    return height * numerator // denominator, height


def _jxl_codestream(data: bytes) -> bytes:
    """The beginning of the code stream."""
    start = 0
    if not data.startswith(_JXL):
        start = _box(data, (b"jxlc", b"jxlp"))
        if not data.startswith(_JXL, start):
            start += 4  # the number of a part
    if not data.startswith(_JXL, start):
        raise ValueError("its code stream is missing")
    return data[start : start + 64]


_JXL = b"\xff\x0a"
