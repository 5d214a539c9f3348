"""What a run found: a line and a table for people, JSON for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = {
    "ours ms": ("ours_ms", ".1f"),
    "Alg. 1 ms": ("reference_ms", ".1f"),
    "ratio": ("ratio", ".1f"),
    "min": ("ratio_min", ".1f"),
    "max": ("ratio_max", ".1f"),
    "cpu": ("ratio_cpu", ".1f"),
    "compiled": ("ratio_reference_compiled", ".1f"),
    "tuned": ("ratio_tuned", ".1f"),
    "its compiled": ("ratio_tuned_compiled", ".1f"),
    "share": ("share", ".2f"),
    "MB": ("peak_mb", ".1f"),
    "Alg. 1 MB": ("reference_peak_mb", ".1f"),
}


def line(row: dict[str, Any]) -> str:
    """A row in one line, as soon as it is there, and a line for each note."""
    errors = ", ".join(f"{name} {error:.0e}" for name, error in row["errors"].items())
    text = (
        f"{row['work']}: {row['reference_ms']:.1f} / {row['ours_ms']:.1f} ms = "
        f"{row['ratio']:.1f}x; errors: {errors}"
    )
    notes = (f"\n  {name} does not work: {note}" for name, note in row["notes"].items())
    return text + "".join(notes)


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print all rows, and what the columns mean that do not say so themselves."""
    table = Table(title="PyTorch / ours (JAX): above 1, ours is faster")
    table.add_column("work", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for row in rows:
        values = ((row.get(key), form) for key, form in _COLUMNS.values())
        table.add_row(row["work"], *("-" if v is None else f"{v:{form}}" for v, form in values))
    console.print(table)
    console.print(
        "ratio, min, max: of Algorithm 1 to ours, cpu: in processor time, compiled: under "
        "torch.compile. tuned, its compiled: ratio of a tuned operator in PyTorch to ours. "
        "share: bare real FFTs and 1x1 products / ours. "
        "MB: what one call takes, results included"
    )
