"""Read a PyTorch state dict without PyTorch, and without running anything the file says.

A `.pth` file of `torch.save` (PyTorch 1.6 and later) is a zip archive whose members lie under
one root folder, uncompressed: `data.pkl` (a pickle of the state dict), `byteorder`, and
`data/0`, `data/1`, ... (the raw numbers of one storage each).

The archive is checked here, the pickle in it is read by `interpret`.

Source: PyTorch's "Serialization semantics".
"""

import math
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from converse_jax.weights._errors import (
    ASK_AGAIN,
    ASK_STATE_DICT,
    WeightsError,
    check_file,
    shown,
    shown_path,
)
from converse_jax.weights._pickle import TensorView, interpret

_MAX_BYTES = 4 * 2**30  # of the file, and of all its tensors together
_MAX_PICKLE_BYTES = 2 * 2**20  # about 14 000 tensors
_MAX_COPIES = 16  # tied weights share a storage; more than this is an expansion attack

# The names of a state dict in what is saved; where both of BasicSR's are there, the averaged
# weights are the ones that its authors test.
_WRAPPERS = ("state_dict", "params", "params_ema", "model", "netG")
_BOTH, _AVERAGED = ["params", "params_ema"], "params_ema"
# What DataParallel, torch.compile, Lightning and GAN frameworks put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "netG.")


def read_pth(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the state dict of a zip-format `.pth` file: parameter names to arrays.

    A checkpoint that wraps its state dict under one of `state_dict`, `params`, `params_ema`,
    `model` or `netG` is unwrapped; of `params` and `params_ema` together the second is taken. The
    prefixes `module.`, `_orig_mod.`, `model.` and `netG.` are removed, once each, when every name
    carries them.

    Args:
        path: a file of `torch.save`, PyTorch 1.6 or later.

    Returns:
        Contiguous arrays in the machine's byte order that own their data, in the file's order and
        in PyTorch's layout; bfloat16 is `ml_dtypes.bfloat16`.

    Raises:
        WeightsError: anything is wrong with the file; nothing in it is ever executed.
    """
    return read_state(path)[0]


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], str | None]:
    """What `read_pth` returns, and a remark if one of several state dicts was taken."""
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
        # A hostile file may raise anything, even MemoryError: callers handle one type.
        problem = f"not a readable PyTorch file ({type(error).__name__})"
        raise WeightsError(f"{shown_path(path)}: {problem}: {ASK_AGAIN}") from error


def _read(file: BinaryIO) -> tuple[dict[str, np.ndarray], str | None]:
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
            raise WeightsError(f"data.pkl is over {_MAX_PICKLE_BYTES} bytes: {ASK_STATE_DICT}")
        tensors, chosen = _state_dict(interpret(archive.read(f"{root}/data.pkl")))
        return _arrays(archive, root, tensors, min(_MAX_BYTES, _MAX_COPIES * length)), chosen


def _check_archive(archive: zipfile.ZipFile, length: int) -> str:
    """Check every member's name, size and checksum before any is used; return the root folder."""
    members = archive.infolist()
    names = [member.filename for member in members]
    roots = {name.partition("/")[0] for name in names}
    for member in members:
        name = member.filename
        plain = name == member.orig_filename and "\\" not in name and ":" not in name
        if not plain or any(part in ("", ".", "..") for part in name.split("/")):
            raise WeightsError(f"member {shown(name)} is not a plain path: {ASK_AGAIN}")
        if member.flag_bits & 0x1:
            raise WeightsError(f"member {shown(name)} is encrypted: ask for an open file")
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored or member.file_size != member.compress_size:
            # torch.save never compresses; refusing to inflate rules out zip bombs.
            raise WeightsError(
                f"member {shown(name)} is compressed, which torch.save never does: "
                "re-save it with PyTorch, or zip the same folder again with zip -0"
            )
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise WeightsError(f"member {shown(twice)} is there twice: {ASK_AGAIN}")
    if len(roots) != 1 or f"{(root := roots.pop())}/data.pkl" not in names:
        raise WeightsError(f"no <folder>/data.pkl, so not a PyTorch file: {ASK_STATE_DICT}")
    if sum(member.file_size for member in members) > length:
        raise WeightsError(f"its members overlap: {ASK_AGAIN}")
    if (bad := archive.testzip()) is not None:
        raise WeightsError(f"member {shown(bad)} fails its checksum: fetch the file again")
    return root


def _state_dict(top: object) -> tuple[dict[str, TensorView], str | None]:
    """Find the state dict in what the pickle holds, tidy its names, and say which was taken."""
    if not isinstance(top, dict):
        raise WeightsError(f"holds {shown(top)}, not a state dict: {ASK_STATE_DICT}")
    wrappers = [key for key in _WRAPPERS if isinstance(top.get(key), dict)]
    chosen = None
    if wrappers == _BOTH:
        wrappers = [_AVERAGED]
        chosen = "params_ema, the averaged weights, of params and params_ema"
    if len(wrappers) > 1:
        raise WeightsError(
            f"holds several state dicts ({', '.join(wrappers)}): save the one wanted alone"
        )
    state = top[wrappers[0]] if wrappers else top
    if not state:
        raise WeightsError(f"the state dict is empty: {ASK_STATE_DICT}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, TensorView):
            raise WeightsError(
                f"entry {shown(name)} is {shown(value)}, not a tensor: {ASK_STATE_DICT}"
            )
    prefixes = list(_PREFIXES)
    while found := [p for p in prefixes if all(name.startswith(p) for name in state)]:
        state = {name.removeprefix(found[0]): value for name, value in state.items()}
        prefixes.remove(found[0])
    return state, chosen


def _arrays(
    archive: zipfile.ZipFile, root: str, tensors: dict[str, TensorView], max_bytes: int
) -> dict[str, np.ndarray]:
    """Copy each tensor out of its storage."""
    total = sum(math.prod(t.size) * t.storage.dtype.itemsize for t in tensors.values())
    if total > max_bytes:
        raise WeightsError(f"tensors of {total} bytes in all, over {max_bytes}: {ASK_AGAIN}")
    names = set(archive.namelist())
    order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in names else b"little"
    if order not in (b"little", b"big"):
        raise WeightsError(f"byteorder is neither little nor big: {ASK_AGAIN}")
    arrays: dict[str, np.ndarray] = {}
    storages: dict[str, bytes] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        member, itemsize = f"{root}/data/{storage.key}", storage.dtype.itemsize
        if member not in names:
            raise WeightsError(f"{shown(name)} lies in {shown(member)}, not there: {ASK_AGAIN}")
        if storage.key not in storages:
            storages[storage.key] = archive.read(member)
        data = storages[storage.key]
        if len(data) != storage.numel * itemsize:
            raise WeightsError(
                f"{shown(member)} has {len(data)} bytes where {shown(storage.numel)} elements of "
                f"{itemsize} bytes are announced: {ASK_AGAIN}"
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
