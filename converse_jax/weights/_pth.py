"""Read a PyTorch state dict without PyTorch, and without running anything the file says.

A ``.pth`` file of ``torch.save`` (PyTorch 1.6 and later) is a zip archive whose members lie under
one root folder, uncompressed: ``data.pkl`` (a pickle of the state dict), ``byteorder``, and
``data/0``, ``data/1``, ... (the raw numbers of one storage each).

A pickle is a program. A ``pickle.Unpickler`` whose ``find_class`` is restricted still runs it: one
memo index can ask for gigabytes, a tuple built of itself and used as a key hashes for ever, and
BUILD writes into whatever ``find_class`` returned. `_interpret` therefore reads the few opcodes a
state dict needs, and builds only numbers, strings, tuples, lists, dicts and descriptions of
tensors; a name such as ``torch._utils._rebuild_tensor_v2`` is compared, never imported.

Source: the opcodes are those of ``pickletools``; the layout is PyTorch's "Serialization semantics".
"""

import math
import os
import pickletools
import re
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

_MAX_BYTES = 4 * 2**30  # of the file, and of all its tensors together
_MAX_PICKLE_BYTES = 2 * 2**20  # about 14 000 tensors
_MAX_COPIES = 16  # tied weights share a storage; more than this is an expansion attack
_MAX_NDIM = 32

_ORDERED_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_STORAGES: dict[str, np.dtype[Any]] = {
    "torch DoubleStorage": np.dtype(np.float64),
    "torch FloatStorage": np.dtype(np.float32),
    "torch HalfStorage": np.dtype(np.float16),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch LongStorage": np.dtype(np.int64),
    "torch IntStorage": np.dtype(np.int32),
    "torch ShortStorage": np.dtype(np.int16),
    "torch CharStorage": np.dtype(np.int8),
    "torch ByteStorage": np.dtype(np.uint8),
    "torch BoolStorage": np.dtype(np.bool_),
}
_GLOBALS = {_ORDERED_DICT, _TENSOR, _PARAMETER, *_STORAGES}
_WRAPPERS = ("state_dict", "params", "params_ema")

_ATOMS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_ASK_STATE_DICT = "ask for a file saved with torch.save(model.state_dict(), ...)"
_ASK_AGAIN = "the file is damaged or was altered, fetch it again"


class WeightsError(ValueError):
    """A weights file was refused: one line with the file, what was found, and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class _Global:
    """The name of a class or function as the pickle writes it, "module name": only a label."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class _Storage:
    """A flat run of `numel` numbers in the member ``data/<key>``."""

    key: str
    dtype: np.dtype[Any]
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """A strided window of a storage, inside its bounds; offset and strides count elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_pth(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the state dict of a zip-format ``.pth`` file: parameter names to arrays.

    A checkpoint that wraps its state dict under one of ``state_dict``, ``params`` or ``params_ema``
    is unwrapped, and the prefix ``module.`` of DataParallel is removed when every name carries it.

    Args:
        path: a file of ``torch.save``, PyTorch 1.6 or later.

    Returns:
        Contiguous arrays in the machine's byte order that own their data, in the file's order and
        in PyTorch's layout; bfloat16 is ``ml_dtypes.bfloat16``.

    Raises:
        WeightsError: whatever is wrong with the file; nothing in it is ever executed.
    """
    path = Path(path)
    try:
        check_file(path)
        with path.open("rb") as file:
            return _read(file)
    except WeightsError as error:
        raise WeightsError(f"{shown_path(path)}: {error}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise WeightsError(f"{shown_path(path)}: cannot be read ({reason})") from error
    except Exception as error:
        # A hostile file may raise anything, MemoryError and RecursionError too: callers handle one.
        found = f"not a readable PyTorch file ({type(error).__name__})"
        raise WeightsError(f"{shown_path(path)}: {found}: {_ASK_AGAIN}") from error


def check_file(path: Path) -> None:
    """Raise a WeightsError unless `path` is a regular file with something in it."""
    if not path.exists():
        raise WeightsError("no such file: check the path")
    if path.is_dir():
        raise WeightsError("is a folder: name the weights file inside it")
    if not path.is_file():  # a named pipe would block for ever
        raise WeightsError("not a regular file: name a weights file")
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty: fetch it again")


def shown_path(path: Path) -> str:
    """The path for a one-line message: control characters are escaped."""
    return text if (text := str(path)).isprintable() else ascii(text)


def shown(value: object) -> str:
    """A short one-line description of something the file says; never recurses into it."""
    if not isinstance(value, str | int | float):
        return f"a {type(value).__name__}"
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    """Archive -> checked members -> pickle -> tensor descriptions -> arrays."""
    length = os.fstat(file.fileno()).st_size
    if length > _MAX_BYTES:
        raise WeightsError(f"{length} bytes, more than {_MAX_BYTES}: not weights of these networks")
    start = file.read(4)
    if start[:1] == b"\x80":
        raise WeightsError(
            "a pickle outside a zip archive, the format before PyTorch 1.6: re-save it with a "
            "recent PyTorch: torch.save(torch.load(f, weights_only=True), g)"
        )
    if start != b"PK\x03\x04":
        raise WeightsError(
            f"not a PyTorch zip file (starts with {start!r}): "
            "check that it is a .pth file and was fetched whole"
        )
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise WeightsError("the zip archive is incomplete or damaged: fetch it again") from None
    with archive:
        root = _check_archive(archive, length)
        if archive.getinfo(f"{root}/data.pkl").file_size > _MAX_PICKLE_BYTES:
            raise WeightsError(f"data.pkl is over {_MAX_PICKLE_BYTES} bytes: {_ASK_STATE_DICT}")
        tensors = _state_dict(_interpret(archive.read(f"{root}/data.pkl")))
        return _arrays(archive, root, tensors, min(_MAX_BYTES, _MAX_COPIES * length))


def _check_archive(archive: zipfile.ZipFile, length: int) -> str:
    """Check every member's name, size and checksum before any is used; return the root folder."""
    members = archive.infolist()
    names = [member.filename for member in members]
    roots = {name.partition("/")[0] for name in names}
    for member in members:
        name = member.filename
        plain = name == member.orig_filename and "\\" not in name and ":" not in name
        if not plain or any(part in ("", ".", "..") for part in name.split("/")):
            raise WeightsError(f"member {shown(name)} is not a plain path: {_ASK_AGAIN}")
        if member.flag_bits & 0x1:
            raise WeightsError(f"member {shown(name)} is encrypted: ask for an open file")
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored or member.file_size != member.compress_size:
            # torch.save never compresses; refusing to inflate ends the subject of zip bombs.
            raise WeightsError(
                f"member {shown(name)} is compressed, which torch.save never does: "
                "re-save it with PyTorch, or zip the same folder again with zip -0"
            )
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise WeightsError(f"member {shown(twice)} is there twice: {_ASK_AGAIN}")
    if len(roots) != 1 or f"{(root := roots.pop())}/data.pkl" not in names:
        raise WeightsError(f"no <folder>/data.pkl, so not a PyTorch file: {_ASK_STATE_DICT}")
    if sum(member.file_size for member in members) > length:
        raise WeightsError(f"its members overlap: {_ASK_AGAIN}")
    if (bad := archive.testzip()) is not None:
        raise WeightsError(f"member {shown(bad)} fails its checksum: fetch the file again")
    return root


def _interpret(program: bytes) -> object:
    """Run the pickle opcodes of a state dict on a stack of inert values; return the last one.

    Linear in the length of the program in time and memory, and not recursive.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []  # the stacks below each MARK
    memo: dict[int, Any] = {}
    arg: Any
    for opcode, arg, _ in pickletools.genops(program):
        name = opcode.name
        if name in _ATOMS:
            stack.append(arg)
            continue
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
            continue
        match name:
            case "PROTO" | "FRAME":
                pass
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marked.append(stack)
                stack = []
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "TUPLE":
                items, stack = stack, marked.pop()
                stack.append(tuple(items))
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "APPENDS":
                items, stack = stack, marked.pop()
                _extend(stack[-1], items)
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, item])
            case "SETITEMS":
                items, stack = stack, marked.pop()
                _set_items(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "GLOBAL":
                stack.append(_global(arg))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                if not (isinstance(module, str) and isinstance(attribute, str)):
                    raise WeightsError(f"data.pkl names a global by no string: {_ASK_AGAIN}")
                stack.append(_global(f"{module} {attribute}"))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                args, function = stack.pop(), stack.pop()
                stack.append(_call(function, args))
            case "BUILD":
                _check_build(stack[-2], stack.pop())
            case "STOP":
                if len(stack) != 1 or marked:
                    raise WeightsError(f"data.pkl ends with a stack in disorder: {_ASK_AGAIN}")
                return stack[0]
            case _:
                raise WeightsError(
                    f"data.pkl uses the opcode {name}, which no state dict needs; "
                    f"nothing was executed: {_ASK_STATE_DICT}"
                )
    raise WeightsError(f"data.pkl has no end: {_ASK_AGAIN}")


def _extend(target: object, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise WeightsError(f"data.pkl appends to {shown(target)}: {_ASK_AGAIN}")
    target.extend(items)


def _set_items(target: object, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise WeightsError(f"data.pkl sets items of {shown(target)}: {_ASK_AGAIN}")
    for key, item in zip(items[::2], items[1::2], strict=True):
        # Only keys that hash at once: the hash of a tuple of tuples of itself never ends.
        if not (isinstance(key, str) or (type(key) is int and abs(key) < 2**31)):
            raise WeightsError(f"data.pkl has {shown(key)} as a key: {_ASK_STATE_DICT}")
        target[key] = item


def _global(name: str) -> _Global:
    if name not in _GLOBALS:
        dotted = shown(name.replace(" ", "."))
        raise WeightsError(
            f"data.pkl asks for {dotted}, which no state dict needs; "
            f"nothing was executed: {_ASK_STATE_DICT}"
        )
    return _Global(name)


def _call(function: object, args: object) -> object:
    """What REDUCE makes of an allowed name and its arguments."""
    if not isinstance(function, _Global) or not isinstance(args, tuple):
        raise WeightsError(f"data.pkl calls {shown(function)}: {_ASK_STATE_DICT}")
    if function.name == _ORDERED_DICT and not args:
        return {}
    if function.name == _TENSOR and len(args) in (6, 7):
        if len(args) == 7 and args[6]:  # such a flag negates or conjugates the numbers
            raise WeightsError("a tensor has extra metadata: save tensor.resolve_neg() instead")
        return _tensor(*args[:4])
    if function.name == _PARAMETER and len(args) == 3 and isinstance(args[0], _Tensor):
        return args[0]
    raise WeightsError(
        f"data.pkl calls {shown(function.name.replace(' ', '.'))} with {len(args)} unexpected "
        f"arguments: {_ASK_STATE_DICT}"
    )


def _check_build(target: object, state: object) -> None:
    """Accept, and drop, the ``_metadata`` attribute of a state dict: the only state one has."""
    if not (isinstance(target, dict) and isinstance(state, dict) and set(state) <= {"_metadata"}):
        raise WeightsError(
            f"data.pkl sets attributes of {shown(target)} other than _metadata: {_ASK_STATE_DICT}"
        )


def _storage(persistent_id: object) -> _Storage:
    """The description behind ``("storage", type, key, location, numel)``."""
    if type(persistent_id) is not tuple or len(persistent_id) != 5:
        raise WeightsError(f"data.pkl refers to {shown(persistent_id)}, no storage: {_ASK_AGAIN}")
    tag, kind, key, _, numel = persistent_id
    dtype = _STORAGES.get(kind.name) if isinstance(kind, _Global) else None
    if not isinstance(tag, str) or tag != "storage" or dtype is None:
        raise WeightsError(f"data.pkl refers to {shown(tag)}, no known storage: {_ASK_AGAIN}")
    if not isinstance(key, str) or not re.fullmatch(r"\w[\w.-]*", key, re.ASCII):
        raise WeightsError(f"the storage key {shown(key)} is not a plain name: {_ASK_AGAIN}")
    if type(numel) is not int or numel < 0:
        raise WeightsError(f"storage {shown(key)} has {shown(numel)} elements: {_ASK_AGAIN}")
    return _Storage(key, dtype, numel)


def _tensor(storage: object, offset: object, size: object, stride: object) -> _Tensor:
    """The description of a tensor, once shown to lie inside its storage.

    With sizes n_i and strides s_i its last element is ``offset + sum_i (n_i - 1) s_i``.
    """
    if not isinstance(storage, _Storage):
        raise WeightsError(f"a tensor lies in {shown(storage)}, not in a storage: {_ASK_AGAIN}")
    size, stride = _counts(size, "size"), _counts(stride, "stride")
    (offset,) = _counts((offset,), "offset")
    if len(size) != len(stride) or len(size) > _MAX_NDIM:
        raise WeightsError(
            f"a tensor has {len(size)} sizes and {len(stride)} strides: {_ASK_AGAIN}"
        )
    count = math.prod(size)
    if count:
        if any(n > 1 and s == 0 for n, s in zip(size, stride, strict=True)):
            raise WeightsError("a tensor is expanded (stride 0): save tensor.contiguous() instead")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if max(last, count - 1) >= storage.numel:
            raise WeightsError(
                f"a tensor needs element {shown(max(last, count - 1))} of storage "
                f"{shown(storage.key)}, which has {shown(storage.numel)}: {_ASK_AGAIN}"
            )
    return _Tensor(storage, offset, size, stride)


def _counts(values: object, what: str) -> tuple[int, ...]:
    if type(values) is not tuple or not all(type(n) is int and n >= 0 for n in values):
        raise WeightsError(
            f"a tensor's {what} is not a tuple of non-negative whole numbers: {_ASK_AGAIN}"
        )
    return values


def _state_dict(top: object) -> dict[str, _Tensor]:
    """Find the state dict in what the pickle holds, and tidy its names."""
    if not isinstance(top, dict):
        raise WeightsError(f"holds {shown(top)}, not a state dict: {_ASK_STATE_DICT}")
    wrappers = [key for key in _WRAPPERS if isinstance(top.get(key), dict)]
    if len(wrappers) > 1:
        raise WeightsError(
            f"holds several state dicts ({', '.join(wrappers)}): save the one wanted alone"
        )
    state = top[wrappers[0]] if wrappers else top
    if not state:
        raise WeightsError(f"the state dict is empty: {_ASK_STATE_DICT}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise WeightsError(
                f"entry {shown(name)} is {shown(value)}, not a tensor: {_ASK_STATE_DICT}"
            )
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _arrays(
    archive: zipfile.ZipFile, root: str, tensors: dict[str, _Tensor], max_bytes: int
) -> dict[str, np.ndarray]:
    """Copy each tensor out of its storage."""
    total = sum(math.prod(t.size) * t.storage.dtype.itemsize for t in tensors.values())
    if total > max_bytes:
        raise WeightsError(f"tensors of {total} bytes in all, over {max_bytes}: {_ASK_AGAIN}")
    names = set(archive.namelist())
    order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in names else b"little"
    if order not in (b"little", b"big"):
        raise WeightsError(f"byteorder is neither little nor big: {_ASK_AGAIN}")
    arrays: dict[str, np.ndarray] = {}
    storages: dict[str, bytes] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        member, itemsize = f"{root}/data/{storage.key}", storage.dtype.itemsize
        if member not in names:
            raise WeightsError(f"{shown(name)} lies in {shown(member)}, not there: {_ASK_AGAIN}")
        if storage.key not in storages:
            storages[storage.key] = archive.read(member)
        data = storages[storage.key]
        if len(data) != storage.numel * itemsize:
            raise WeightsError(
                f"{shown(member)} has {len(data)} bytes where {shown(storage.numel)} elements of "
                f"{itemsize} bytes are announced: {_ASK_AGAIN}"
            )
        # As unsigned integers, so that no bit of a NaN, a bool or a bfloat16 is interpreted.
        bits = np.dtype(f"u{itemsize}")
        array = np.empty(tensor.size, storage.dtype)
        if array.size:
            # The stride of an axis of length 1 is never used, and may be too large for numpy.
            strides = [s if n > 1 else 0 for n, s in zip(tensor.size, tensor.stride, strict=True)]
            array.view(bits)[...] = np.ndarray(
                tensor.size,
                bits.newbyteorder("<" if order == b"little" else ">"),
                buffer=data,
                offset=tensor.offset * itemsize,
                strides=[s * itemsize for s in strides],
            )
        if storage.dtype == np.bool_:
            np.not_equal(array.view(bits), 0, out=array)  # any other byte would be undefined
        arrays[name] = array
    return arrays
