"""Read the JSON files of runs and users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
