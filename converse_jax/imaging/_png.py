"""PNG's chunks: damaged ancillary ones left out, those of colors kept, metadata written."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from converse_jax.imaging._exif import PREFIX, fitted, fitted_xmp
from converse_jax.imaging._image import Image, fitting_profile

_SIGNATURE = 8
COLOR_CHUNKS = ("gAMA", "cHRM", "sRGB", "cICP", "mDCV", "cLLI")
"""The chunks that describe what colors the samples are (PNG, section 11.3.2)."""

_INCH = 0.0254  # in meters, PNG's unit
_LONGEST_KEYWORD = 79


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes, bool]]:
    """Each whole chunk's start, end and kind, and whether its checksum is right."""
    start = _SIGNATURE
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            return
        body = memoryview(data)[start + 4 : end - 4]
        yield start, end, kind, zlib.crc32(body) == struct.unpack_from(">I", data, end - 4)[0]
        start = end


def without_damaged_metadata(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The file without the ancillary chunks whose checksum is wrong, and a note on them.

    No pixel depends on those (their names begin with a small letter; PNG, section 5.4).
    """
    bad = [(start, end, kind) for start, end, kind, right in _chunks(data) if not right]
    bad = [(start, end, kind) for start, end, kind in bad if kind[:1].islower()]
    for start, end, _ in reversed(bad):
        data = data[:start] + data[end:]
    kinds = sorted({ascii(kind.decode("latin-1"))[1:-1] for _, _, kind in bad})
    return data, (f"its damaged {', '.join(kinds)} is dropped",) if bad else ()


def color_chunks(data: bytes) -> dict[str, bytes]:
    """The bodies of the chunks that describe colors."""
    names = {name.encode(): name for name in COLOR_CHUNKS}
    return {
        names[kind]: data[start + 8 : end - 4]
        for start, end, kind, right in _chunks(data)
        if right and kind in names and end - start <= 64
    }


def has_chunk(data: bytes, wanted: bytes) -> bool:
    """Whether there is a whole chunk of a kind."""
    return any(kind == wanted for _, _, kind, _ in _chunks(data))


def _chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk: length, kind, body, CRC of kind and body (PNG, section 5.3)."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _text(keyword: str, text: str) -> bytes:
    """A text chunk; characters beyond Latin-1 need the international kind (PNG, 11.3.3)."""
    name = keyword.encode("latin-1", "replace")[:_LONGEST_KEYWORD].replace(b"\0", b" ") or b"Text"
    text = text.replace("\0", " ")
    try:
        return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode())


def with_metadata(data: bytes, image: Image) -> bytes:
    """A PNG of an image's samples with the rest of what the image holds."""
    height, width, channels = image.pixels.shape
    extra = b""
    profile = fitting_profile(image.icc_profile, channels)
    if profile is not None:
        # The profile's name, a null, and compression method 0 (PNG, section 11.3.2.3).
        extra += _chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(profile))
    for kind, body in image.color.items():
        extra += _chunk(kind.encode(), body)
    if image.resolution is not None:
        x, y, unit = image.resolution
        meter = 1.0 if unit == "none" else 1 / _INCH
        known = unit != "none"
        extra += _chunk(b"pHYs", struct.pack(">IIB", round(x * meter), round(y * meter), known))
    if image.exif is not None:
        block = fitted(image.exif, width, height, image.resolution)
        extra += _chunk(b"eXIf", block.removeprefix(PREFIX))
    for keyword, text in image.text.items():
        extra += _text(keyword, text)
    if image.xmp is not None:
        packet = fitted_xmp(image.xmp, width, height)
        extra += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    after_header = _SIGNATURE + 12 + 13  # length, kind and CRC of IHDR; its body
    return data[:after_header] + extra + data[after_header:]
