"""What a run found: a line and a table for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import process


@dataclass
class Report:
    """The rows so far, and how they came about."""

    args: argparse.Namespace
    device: str
    settings: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    scaling: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Ask the machine and the checkout once."""
        self.machine = process.machine_name(self.device)
        self._commit = process.commit()

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "rows": self.rows,
            "machine": self.machine,
            "threads": self.args.threads,
            "commit": self._commit,
            "device": self.device,
            "settings": self.settings,
            "tf32": self.args.tf32,
            "quick": self.args.quick,
            "scaling": self.scaling,
            "versions": process.versions(),
        }

    def write(self) -> None:
        """Write the file of `--json`, after every row: an interrupted run keeps what it has."""
        if self.args.json is not None:
            self.args.json.write_text(json.dumps(self.to_dict(), indent=1) + "\n")


def line(row: dict[str, Any]) -> str:
    """A row in one line, as soon as it is there."""
    text = (
        f"{row['work']}: {row['reference_ms']:.1f} / {row['ours_ms']:.1f} ms = "
        f"{row['ratio']:.1f}x; errors {row['error']:.0e}, Algorithm 1 {row['reference_error']:.0e}"
    )
    note = row["compiled_note"]
    return text + (f"\n  torch.compile does not work: {note}" if note else "")


def table(rows: list[dict[str, Any]]) -> Table:
    """All rows."""
    found = Table(title="Algorithm 1 (PyTorch) / ours (JAX): above 1, ours is faster")
    found.add_column("work", overflow="fold")
    for column in (
        "ours ms",
        "Alg. 1 ms",
        "ratio",
        "min-max",
        "cpu",
        "compiled ms",
        "ratio",
        "share",
        "roofline",
        "peak MB",
        "Alg. 1 MB",
    ):
        found.add_column(column, justify="right")
    for row in rows:
        found.add_row(
            row["work"],
            f"{row['ours_ms']:.1f}",
            f"{row['reference_ms']:.1f}",
            f"{row['ratio']:.1f}x",
            f"{row['ratio_min']:.1f}-{row['ratio_max']:.1f}",
            f"{row['ratio_cpu']:.1f}x",
            _number(row["compiled_ms"], ".1f"),
            _number(row["ratio_compiled"], ".1f", "x"),
            _number(row["share"], ".2f"),
            _number(row["roofline"], ".3f"),
            _number(row["peak_mb"], ".1f"),
            _number(row["reference_peak_mb"], ".1f"),
        )
    return found


def show(console: Console, report: Report) -> None:
    """Print the table, and what the columns mean that do not say so themselves."""
    if report.rows:
        console.print(table(report.rows))
        console.print(
            "cpu: the ratio in processor time. share: bare real FFTs and 1x1 products / ours. "
            "roofline: what must be read and written, at the speed of a copy / ours. "
            "MB: what one call takes, results included"
        )
    for axis, found in (report.scaling or {}).items():
        if axis in ("side", "channels"):
            exponents = ", ".join(
                f"{side} {found['exponents'][side]:.2f}" for side in found["exponents"]
            )
            console.print(f"cost grows with the {axis} to the power of: {exponents}")


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
