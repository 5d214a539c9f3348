"""Damage of files and of JSON, the same for the same seed."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

_NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
_VALUES: list[Any] = [
    *[None, True, False, 0, -1, 1.5, 10**9, 10**400, float("nan"), float("inf"), "", "x"],
    *["\x1b[2J\x07", "A" * 3000, [], [1], {}, {"a": 1}, [[[[]]]], "float16", "circular"],
]


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """The bytes with one to four damages; containers are sometimes repaired around them."""
    if data.startswith(b"PK") and rng.random() < 0.7:
        return _in_zip(data, rng, others)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _damage(out, rng, others)
    if out.startswith(b"\x89PNG") and rng.random() < 0.7:
        return _with_checksums(bytes(out))
    return bytes(out)


def _damage(out: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    # Structure is at the beginning, and of some formats at the end.
    reach = rng.choice((64, 256, len(out), len(out)))
    at = rng.randrange(min(reach, len(out))) if out else 0
    length = rng.choice((1, 2, 4, 8, 16, 64, 256))
    match rng.randrange(10):
        case 0 if out:
            out[at] ^= 1 << rng.randrange(8)
        case 1 if out:
            out[at] = rng.randrange(256)
        case 2 | 3:
            size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            number = rng.choice(_NUMBERS) % 256**size
            out[at : at + size] = number.to_bytes(size, order)
        case 4:
            del out[at:]
        case 5:
            del out[at : at + length]
        case 6:
            out[at:at] = out[at : at + length] * rng.choice((1, 1, 2, 100))
        case 7:
            out[at:at] = rng.randbytes(length)
        case 8:
            other = rng.choice(others)
            start = rng.randrange(len(other)) if other else 0
            out[at : at + length] = other[start : start + length]
        case 9:  # a number written in digits
            numbers = list(re.finditer(rb"\d+", out))
            if numbers:
                number = rng.choice(numbers)
                out[slice(*number.span())] = b"%d" % rng.choice([*_NUMBERS, 10**30])


def _in_zip(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage a member, or its name, within a whole archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        entries = old.infolist()
        chosen = rng.randrange(len(entries))
        for number, entry in enumerate(entries):
            content, name = bytearray(old.read(entry)), entry.filename
            if number == chosen:
                for _ in range(rng.choice((1, 1, 2, 4))):
                    _damage(content, rng, others)
                if rng.random() < 0.1:
                    name = rng.choice((".", "../x", "\x1b[2J", name * 50, "a/" * 100))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two members of one name
                new.writestr(zipfile.ZipInfo(name), bytes(content), entry.compress_type)
    return out.getvalue()


def undated(archive: bytes) -> bytes:
    """The zip archive without the time of its making, so that a case is the same every time."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            name = zipfile.ZipInfo(entry.filename)
            new.writestr(name, old.read(entry), entry.compress_type)
    return out.getvalue()


def _with_checksums(png: bytes) -> bytes:
    """The PNG with the right checksum in every chunk."""
    out, at = png[:8], 8
    while at + 8 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        chunk = png[at + 4 : at + 8 + length]
        out += png[at : at + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        at += 12 + length
    return out


def mutated_json(text: str, rng: random.Random) -> str:
    """JSON text in which values are others, missing, added, or nested too deep."""
    value = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place: Any = value
        while isinstance(place, dict) and place:
            key = rng.choice(sorted(place))
            if isinstance(place[key], dict) and place[key] and rng.random() < 0.7:
                place = place[key]
                continue
            match rng.randrange(8):
                case 0:
                    del place[key]
                case 1:
                    key = rng.choice((*place, "\x1b[2J", "rngs", "dtype", "padding"))
                    place[key] = copy.deepcopy(rng.choice(_VALUES))
                case _:
                    place[key] = copy.deepcopy(rng.choice(_VALUES))
            break
    written = json.dumps(value)
    if rng.random() < 0.05:
        depth = rng.choice((50, 900, 100_000))
        written = written.replace("[]", "[" * depth + "]" * depth)
    return written
