"""Read the JSON files of runs and users; write these, and other text, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converse_jax.atomic import write_bytes
from converse_jax.messages import one_line
from train.errors import TrainError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a TrainError names what is wrong with it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainError(f"{path}: cannot be read as JSON ({one_line(error, 200)})") from None
    if not isinstance(values, dict):
        raise TrainError(f"{path}: got a {type(values).__name__}; expected a JSON object")
    return values


def write_object(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, see `write_text`."""
    write_text(path, json.dumps(values, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, in place of what is there, and its folder if need be.

    Raises:
        TrainError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, (text.rstrip() + "\n").encode(), overwrite=True)
    except OSError as error:
        raise TrainError(f"{path}: cannot be written ({error.strerror})") from None
