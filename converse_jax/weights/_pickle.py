"""The pickle of a state dict, read as data: no name in it is imported, nothing in it is called.

A pickle is a program. A `pickle.Unpickler` whose `find_class` is restricted still runs it: one
memo index can ask for gigabytes, a tuple built from itself and used as a key hashes forever, and
BUILD writes into whatever `find_class` returned. `interpret` therefore reads the few opcodes a
state dict needs, and builds only numbers, strings, tuples, lists, dicts and descriptions of
tensors; a name such as `torch._utils._rebuild_tensor_v2` is compared, never imported.

Source: the opcodes are those of `pickletools`.
"""

import math
import pickletools
import re
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from converse_jax.weights._errors import ASK_AGAIN, ASK_STATE_DICT, WeightsError, shown

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

_ATOMS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclass(frozen=True, slots=True, eq=False)
class _Global:
    """The name of a class or function as the pickle writes it, "module name": only a label."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A flat run of `numel` numbers in the member `data/<key>`."""

    key: str
    dtype: np.dtype[Any]
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorView:
    """A strided window of a storage, inside its bounds; offset and strides count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def interpret(program: bytes) -> object:
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
                    raise WeightsError(f"data.pkl names a global by no string: {ASK_AGAIN}")
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
                    raise WeightsError(f"data.pkl ends with a stack in disorder: {ASK_AGAIN}")
                return stack[0]
            case _:
                raise WeightsError(
                    f"data.pkl uses the opcode {name}, which no state dict needs; "
                    f"nothing was executed: {ASK_STATE_DICT}"
                )
    raise WeightsError(f"data.pkl has no end: {ASK_AGAIN}")


def _extend(target: object, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise WeightsError(f"data.pkl appends to {shown(target)}: {ASK_AGAIN}")
    target.extend(items)


def _set_items(target: object, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise WeightsError(f"data.pkl sets items of {shown(target)}: {ASK_AGAIN}")
    for key, item in zip(items[::2], items[1::2], strict=True):
        # Only keys that hash at once: the hash of a tuple of tuples of itself never ends.
        if not (isinstance(key, str) or (type(key) is int and abs(key) < 2**31)):
            raise WeightsError(f"data.pkl has {shown(key)} as a key: {ASK_STATE_DICT}")
        target[key] = item


def _global(name: str) -> _Global:
    if name not in _GLOBALS:
        dotted = shown(name.replace(" ", "."))
        raise WeightsError(
            f"data.pkl asks for {dotted}, which no state dict needs; "
            f"nothing was executed: {ASK_STATE_DICT}"
        )
    return _Global(name)


def _call(function: object, args: object) -> object:
    """What REDUCE makes of an allowed name and its arguments."""
    if not isinstance(function, _Global) or not isinstance(args, tuple):
        raise WeightsError(f"data.pkl calls {shown(function)}: {ASK_STATE_DICT}")
    if function.name == _ORDERED_DICT and not args:
        return {}
    if function.name == _TENSOR and len(args) in (6, 7):
        if len(args) == 7 and args[6]:  # such a flag negates or conjugates the numbers
            raise WeightsError("a tensor has extra metadata: save tensor.resolve_neg() instead")
        return _tensor(*args[:4])
    if function.name == _PARAMETER and len(args) == 3 and isinstance(args[0], TensorView):
        return args[0]
    raise WeightsError(
        f"data.pkl calls {shown(function.name.replace(' ', '.'))} with {len(args)} unexpected "
        f"arguments: {ASK_STATE_DICT}"
    )


def _check_build(target: object, state: object) -> None:
    """Accept, and drop, the `_metadata` attribute of a state dict: the only state one has."""
    if not (isinstance(target, dict) and isinstance(state, dict) and set(state) <= {"_metadata"}):
        raise WeightsError(
            f"data.pkl sets attributes of {shown(target)} other than _metadata: {ASK_STATE_DICT}"
        )


def _storage(persistent_id: object) -> Storage:
    """The description behind `("storage", type, key, location, numel)`."""
    if type(persistent_id) is not tuple or len(persistent_id) != 5:
        raise WeightsError(f"data.pkl refers to {shown(persistent_id)}, no storage: {ASK_AGAIN}")
    tag, kind, key, _, numel = persistent_id
    dtype = _STORAGES.get(kind.name) if isinstance(kind, _Global) else None
    if not isinstance(tag, str) or tag != "storage" or dtype is None:
        raise WeightsError(f"data.pkl refers to {shown(tag)}, no known storage: {ASK_AGAIN}")
    if not isinstance(key, str) or not re.fullmatch(r"\w[\w.-]*", key, re.ASCII):
        raise WeightsError(f"the storage key {shown(key)} is not a plain name: {ASK_AGAIN}")
    if type(numel) is not int or numel < 0:
        raise WeightsError(f"storage {shown(key)} has {shown(numel)} elements: {ASK_AGAIN}")
    return Storage(key, dtype, numel)


def _tensor(storage: object, offset: object, size: object, stride: object) -> TensorView:
    """The description of a tensor, once shown to lie inside its storage.

    With sizes n_i and strides s_i its last element is `offset + sum_i (n_i - 1) s_i`.
    """
    if not isinstance(storage, Storage):
        raise WeightsError(f"a tensor lies in {shown(storage)}, not in a storage: {ASK_AGAIN}")
    size, stride = _counts(size, "size"), _counts(stride, "stride")
    (offset,) = _counts((offset,), "offset")
    if len(size) != len(stride) or len(size) > _MAX_NDIM:
        raise WeightsError(f"a tensor has {len(size)} sizes and {len(stride)} strides: {ASK_AGAIN}")
    count = math.prod(size)
    if count:
        if any(n > 1 and s == 0 for n, s in zip(size, stride, strict=True)):
            raise WeightsError("a tensor is expanded (stride 0): save tensor.contiguous() instead")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if max(last, count - 1) >= storage.numel:
            raise WeightsError(
                f"a tensor needs element {shown(max(last, count - 1))} of storage "
                f"{shown(storage.key)}, which has {shown(storage.numel)}: {ASK_AGAIN}"
            )
    return TensorView(storage, offset, size, stride)


def _counts(values: object, what: str) -> tuple[int, ...]:
    if type(values) is not tuple or not all(type(n) is int and n >= 0 for n in values):
        raise WeightsError(
            f"a tensor's {what} is not a tuple of non-negative whole numbers: {ASK_AGAIN}"
        )
    return values
