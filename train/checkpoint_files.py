"""The small files of a checkpoint, read by hand: Orbax ends with any error where they are damaged.

Source: Orbax's layout, `_CHECKPOINT_METADATA` (JSON with `custom_metadata`) and `metrics/metrics`.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CRC = "crc32"


def steps_in(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending; others have other names."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def signed(details: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-serializable values with a checksum of their own."""
    return {**details, _CRC: _crc(details)}


def read_details(checkpoint: Path) -> dict[str, Any]:
    """The values that `signed` was given.

    Raises:
        ValueError: they are damaged or missing; of what an earlier version wrote, without a
            checksum, only what cannot be read is noticed.
        OSError: the file cannot be read.
    """
    values = _read_json(checkpoint / "_CHECKPOINT_METADATA")
    details = values.get("custom_metadata")
    if not isinstance(details, dict) or not isinstance(details.get("checksums"), dict):
        raise ValueError("its metadata is missing")
    crc = details.pop(_CRC, None)
    if crc is not None and crc != _crc(details):
        raise ValueError("its metadata is not what was written")
    return details


def read_psnr(checkpoint: Path) -> float | None:
    """The PSNR that was saved with it, if any.

    Raises:
        ValueError: it is damaged.
        OSError: the file cannot be read.
    """
    path = checkpoint / "metrics" / "metrics"
    if not path.parent.is_dir():
        return None
    psnr = _read_json(path).get("psnr")
    if not isinstance(psnr, float) or not math.isfinite(psnr):
        raise ValueError("its metrics are not what was written")
    return psnr


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        # Orbax deletes old checkpoints in place.
        raise ValueError(
            f"its {path.name} is missing, as if a run was killed while deleting it"
        ) from None
    except (ValueError, RecursionError):
        raise ValueError(f"its {path.name} cannot be read as JSON") from None
    if not isinstance(values, dict):
        raise ValueError(f"its {path.name} holds no JSON object")
    return values


def _crc(details: Mapping[str, Any]) -> int:
    # As it is read again: keys are strings, tuples are lists.
    values = json.loads(json.dumps(details))
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
