"""Write and read safetensors files, the format of the project's own weights.

Source: https://huggingface.co/docs/safetensors (eight bytes of header length, a JSON header, the
numbers). Equal weights give equal bytes, so that a card can pin their hash.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from converse_jax.atomic import write_bytes
from converse_jax.messages import one_line
from converse_jax.weights._errors import ASK_AGAIN, WeightsError, check_file, shown, shown_path

MAX_BYTES = 4 * 2**30
"""Files of more bytes are refused, as `.pth` files are."""

MAX_HEADER = 8 * 2**20
"""Bytes of the names, types and shapes of all arrays: about 80,000 of them."""


def write_safetensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> None:
    """Write arrays, bit for bit, with metadata; the file appears completely or not at all.

    Args:
        path: the file to make; its folder must exist.
        arrays: names to arrays of any layout and byte order.
        metadata: strings kept in the header.
        overwrite: replace an existing file.

    Raises:
        WeightsError: the file exists and `overwrite` is False, or it cannot be written, or an array
            or the metadata is of a kind that safetensors does not hold.
    """
    path = Path(path)
    where = shown_path(path)
    if not overwrite and (path.exists() or path.is_symlink()):
        raise WeightsError(f"{where}: already exists: name another file or pass overwrite=True")
    try:
        content = _serialize(arrays, metadata)
    except WeightsError as error:
        raise WeightsError(f"{where}: {error}") from None
    try:
        write_bytes(path, content, overwrite=overwrite)
    except FileExistsError:
        raise WeightsError(
            f"{where}: already exists: name another file or pass overwrite=True"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise WeightsError(
            f"{where}: cannot be written ({reason}): check the folder and the free space"
        ) from error


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file: its arrays, which own their data, and its metadata.

    Raises:
        WeightsError: the file is missing, incomplete, or not a safetensors file, or it or its
            header is too large.
    """
    path = Path(path)
    try:
        check_file(path)
        _check_sizes(path)
        with safe_open(path, framework="np") as file:
            names = file.keys()  # the file itself cannot be iterated
            arrays = {name: np.array(file.get_tensor(name), order="C") for name in names}
            return arrays, dict(sorted((file.metadata() or {}).items()))
    except WeightsError as error:
        raise WeightsError(f"{shown_path(path)}: {error}") from None
    except Exception as error:
        # SafetensorError, OSError, or a KeyError for a number type that numpy lacks.
        reason = one_line(error, 160)
        raise WeightsError(
            f"{shown_path(path)}: not a readable safetensors file ({reason}): fetch it again"
        ) from error


def _check_sizes(path: Path) -> None:
    """Refuse what would need much memory before any of it is allocated."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        header = int.from_bytes(file.read(8), "little")
    if length > MAX_BYTES:
        raise WeightsError(f"{length} bytes, more than {MAX_BYTES}: not weights of these networks")
    if MAX_HEADER < header <= length:  # a header longer than the file is a file cut short
        raise WeightsError(f"a header of {header} bytes, more than {MAX_HEADER}: {ASK_AGAIN}")


def _serialize(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The bytes of the file; equal input gives equal bytes."""
    if not arrays:  # safetensors 0.8.0 would write a header that is not JSON
        raise WeightsError("no arrays to write: pass at least one")
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise WeightsError(f"metadata {shown(key)} is {shown(text)}: pass strings only")
    contiguous = {}
    for name, array in arrays.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise WeightsError(f"{shown(name)} cannot name an array: use another string")
        # safetensors 0.8.0 writes any other layout in the wrong order, silently (its issue 825);
        # the reshape gives back the shape () that ascontiguousarray turns into (1,).
        array = np.asarray(array)
        native = array.dtype.newbyteorder("=")
        contiguous[name] = np.ascontiguousarray(array, dtype=native).reshape(array.shape)
    try:
        return _with_metadata(save(contiguous), metadata)
    except Exception as error:
        reason = one_line(error, 160)
        raise WeightsError(f"safetensors cannot hold this ({reason}): convert it first") from error


def _with_metadata(plain: bytes, metadata: Mapping[str, str]) -> bytes:
    """Put the metadata, sorted, into the header: safetensors itself writes it in random order.

    The offsets in the header count from its end, so they stay right.
    """
    size = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + plain[8 + size :]
