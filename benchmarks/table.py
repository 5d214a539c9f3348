"""A table that prints each row as soon as it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Table:
    """Columns of numbers beside a name; `columns` has the key and the format of each heading."""

    def __init__(self, name: str, columns: Mapping[str, tuple[str, str]], width: int = 56) -> None:
        self.columns = columns
        self.width = width
        self._print(name, columns)

    def add(self, name: str, values: Mapping[str, Any], note: str = "") -> None:
        """Print a row, with `-` for what is not there, and `note` at its end."""
        numbers = ((values.get(key), form) for key, form in self.columns.values())
        cells = ["-" if value is None else f"{value:{form}}" for value, form in numbers]
        self._print(name, cells, note)

    def _print(self, name: str, cells: Any, note: str = "") -> None:
        widths = (max(7, len(heading)) for heading in self.columns)
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        print(f"{name:<{self.width}} {' '.join(aligned)}  {note}".rstrip(), flush=True)
