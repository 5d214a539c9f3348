"""Make ``.pth`` files by hand, good ones and hostile ones, without PyTorch.

`assemble` writes the same opcodes as ``torch.save`` (pickle protocol 2), from a value in which
`Name`, `Call`, `Build`, `Persistent` and `Raw` stand for what Python objects cannot say.
"""

import struct
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

STORAGE_TYPES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}


@dataclass(frozen=True)
class Name:
    """GLOBAL: a module and a name in it."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """REDUCE: a function applied to arguments."""

    function: Any
    args: Any


@dataclass(frozen=True)
class Build:
    """BUILD: a state given to a target."""

    target: Any
    state: Any


@dataclass(frozen=True)
class Persistent:
    """BINPERSID: a reference to a storage."""

    id: Any


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    code: bytes


ORDERED_DICT = Call(Name("collections", "OrderedDict"), ())


@dataclass(frozen=True)
class Ordered:
    """An OrderedDict, with the ``_metadata`` that state dicts carry if `metadata` is given."""

    items: dict[str, Any]
    metadata: dict[str, Any] | None = None


def assemble(value: Any) -> bytes:
    """The pickle program, protocol 2, that builds `value`."""
    return b"\x80\x02" + _code(value, {}) + b"."


def _code(value: Any, memo: dict[Any, int]) -> bytes:
    def code(inner: Any) -> bytes:
        return _code(inner, memo)

    def once(key: Any, program: bytes) -> bytes:
        """Memoize strings and names as pickle does, so that PUT and GET are met in every file."""
        if key in memo:
            index = memo[key]
            return b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index)
        memo[key] = index = len(memo)
        put = b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index)
        return program + put

    def pairs(items: dict[Any, Any]) -> bytes:
        return b"(" + b"".join(code(key) + code(item) for key, item in items.items()) + b"u"

    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if 0 <= value < 256:
            return b"K" + bytes([value])
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(digits)]) + digits
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return once(value, b"X" + struct.pack("<I", len(text)) + text)
        case tuple() if len(value) in (1, 2, 3):
            return b"".join(map(code, value)) + (b"\x85", b"\x86", b"\x87")[len(value) - 1]
        case tuple():
            return b"(" + b"".join(map(code, value)) + b"t" if value else b")"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case dict():
            return b"}" + pairs(value)
        case Ordered():
            program = code(ORDERED_DICT) + pairs(value.items)
            state = {"_metadata": value.metadata}
            return program if value.metadata is None else program + code(state) + b"b"
        case Name():
            return once(value, b"c" + f"{value.module}\n{value.name}\n".encode())
        case Call():
            return code(value.function) + code(value.args) + b"R"
        case Build():
            return code(value.target) + code(value.state) + b"b"
        case Persistent():
            return code(value.id) + b"Q"
        case Raw():
            return value.code
    raise TypeError(type(value))


@dataclass
class PthFile:
    """The storages of one file, and the tensors in them."""

    byteorder: str | None = "little"
    storages: dict[str, bytes] = field(default_factory=dict)

    def storage(self, array: np.ndarray) -> Persistent:
        """Store the elements of `array` in C order."""
        key = str(len(self.storages))
        flat = np.ascontiguousarray(array).reshape(-1)
        bits = np.dtype(f"u{flat.dtype.itemsize}")
        stored = bits.newbyteorder(">" if self.byteorder == "big" else "<")
        self.storages[key] = flat.view(bits).astype(stored).tobytes()
        return reference(STORAGE_TYPES[flat.dtype], key, flat.size)

    def tensor(self, array: np.ndarray) -> Call:
        """A contiguous tensor with a storage of its own."""
        return view(self.storage(array), 0, array.shape, strides_of(array.shape))

    def write(self, path: Path, top: Any, *, root: str = "archive") -> Path:
        """Write the file, with `top` (a value for `assemble`) as what it holds."""
        return write_zip(path, self.members(top, root=root))

    def members(self, top: Any, *, root: str = "archive") -> list[tuple[str, bytes]]:
        """The members of the archive, in the order of ``torch.save``."""
        members = [(f"{root}/data.pkl", assemble(top))]
        if self.byteorder is not None:
            members.append((f"{root}/byteorder", self.byteorder.encode()))
        members += [(f"{root}/data/{key}", data) for key, data in self.storages.items()]
        return [*members, (f"{root}/version", b"3\n")]


def reference(kind: str, key: Any, numel: Any) -> Persistent:
    """The persistent id of a storage."""
    return Persistent(("storage", Name("torch", kind), key, "cpu", numel))


def view(storage: Any, offset: Any, size: Any, stride: Any, *metadata: Any) -> Call:
    """A tensor: a strided window of a storage."""
    args = (storage, offset, size, stride, False, ORDERED_DICT, *metadata)
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), args)


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a contiguous array."""
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def write_zip(
    path: Path, members: Iterable[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED
) -> Path:
    """Write an archive with the members as they are given, twice the same name included."""
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about duplicate names, which we want
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return path
