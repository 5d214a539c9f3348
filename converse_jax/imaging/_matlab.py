"""Numeric matrices of MATLAB files of version 5 to 7.

Not SciPy's reader: a wrong type number in a file makes that read outside of its own tables, which
ends the process or worse.

Source: MathWorks, "MAT-File Format", Level 5. A header of 128 bytes, then elements: each a type, a
length, and its content; a matrix is an element of elements (flags, dimensions, name, numbers), and
may be compressed by zlib as a whole.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_MATRIX, _COMPRESSED = 14, 15
_DTYPES = dict(
    zip(
        (1, 2, 3, 4, 5, 6, 7, 9, 12, 13),
        ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"],
        strict=True,
    )
)
_NUMERIC_CLASSES = range(6, 16)  # double, single, and integers; logical is one of these
_COMPLEX = 0x0800
_HEAD = 4096  # bytes that the flags, dimensions and name of a matrix take at most


@dataclass(frozen=True)
class Matrix:
    """A numeric matrix that is read when it is asked for.

    Attributes:
        shape: rows and columns.
        order: of its bytes, "<" or ">".
        content: the element, without its type and length; with them where it is packed.
        packed: whether it is compressed.
        complex: whether imaginary parts follow the real ones.
    """

    shape: tuple[int, int]
    order: str
    content: bytes
    packed: bool
    complex: bool

    def array(self, most: int) -> np.ndarray:
        """Its numbers `[rows, columns]`, in the type that they are stored in.

        Raises:
            ValueError: it is damaged.
            OverflowError: it unpacks to more than `most` bytes.
        """
        content = self.content
        if self.packed:
            content = zlib.decompressobj().decompress(content, most + 1)[8:]
            if len(content) > most - 8:
                raise OverflowError(f"unpacks to more than {most >> 20} MiB")
        _, _, _, *parts = itertools.islice(_elements(content, 0, self.order), 4 + self.complex)
        if len(parts) != 1 + self.complex:
            raise ValueError("its numbers are cut short")
        real, *imaginary = (self._numbers(kind, data) for kind, data in parts)
        return real + 1j * imaginary[0] if imaginary else real

    def _numbers(self, kind: int, data: bytes) -> np.ndarray:
        if kind not in _DTYPES:
            raise ValueError(f"its numbers are of the unknown type {kind}")
        return np.frombuffer(data, self.order + _DTYPES[kind]).reshape(self.shape, order="F")


def matrices(data: bytes) -> dict[str, Matrix]:
    """The numeric matrices of two dimensions in a file, by their names.

    Raises:
        ValueError: it is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("its header is damaged")
    found: dict[str, Matrix] = {}
    for kind, content in _elements(data, 128, order):
        packed = kind == _COMPRESSED
        head = content
        if packed:
            head = zlib.decompressobj().decompress(content, _HEAD)
            (kind,) = struct.unpack_from(order + "I", head)
            head = head[8:]
        if kind != _MATRIX:
            continue
        (_, flags), (_, sides), (_, name) = itertools.islice(_elements(head, 0, order), 3)
        (flag,) = struct.unpack_from(order + "I", flags)
        shape = np.frombuffer(sides, order + "i4")
        if flag & 0xFF in _NUMERIC_CLASSES and len(shape) == 2 and (shape > 0).all():
            size = int(shape[0]), int(shape[1])
            found[name.decode("latin-1")] = Matrix(
                size, order, content, packed, bool(flag & _COMPLEX)
            )
    return found


def _elements(data: bytes, at: int, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of the elements from a place on."""
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if kind >> 16:  # at most four bytes, in place of the length
            kind, length, start = kind & 0xFFFF, kind >> 16, at + 4
            at += 8
        else:
            at = start + length + (0 if kind == _COMPRESSED else -length % 8)
        if start + length > len(data):
            raise ValueError("it is cut short")
        yield kind, data[start : start + length]
