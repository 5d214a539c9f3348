"""The table of figures that `evaluate` and `compare` print, and its JSON file."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from converse_jax.cli._arguments import UsageError
from converse_jax.messages import printable, say
from converse_jax.progress import progress_bar

if TYPE_CHECKING:
    from converse_jax._report import Failure, Row


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", metavar="OUT.JSON", help="JSON file for the figures")


def check_json(args: argparse.Namespace) -> None:
    """Refuse a file of `--json` that could not be written, before the work."""
    from converse_jax._report import check_report_path

    if args.json is not None:
        check_report_path(args.json, overwrite=args.overwrite)
    elif args.overwrite:
        raise UsageError("--overwrite is for the file of --json, and there is none")


class Table(contextlib.ExitStack):
    """Lines of figures, a bar below them where a person looks on, and at the end the means."""

    def __init__(self, what: str) -> None:
        """Make it; `what` is said beside the bar."""
        super().__init__()
        self._what, self._begun = what, False

    def __enter__(self) -> Self:
        self._advance = self.enter_context(progress_bar(self._what))
        return super().__enter__()

    def add(self, result: Row | Failure, number: int, total: int) -> None:
        """Print the figures of an image, or why there are none."""
        if (reason := result.get("reason")) is not None:
            say(f"failed: {reason}")
        else:
            self._print(result["name"], result)
        self._advance(number, total)

    def end(self, report: Mapping[str, Any], args: argparse.Namespace) -> int:
        """Print the means and the notes, write the file of `--json`, return the exit status."""
        from converse_jax._report import write_report

        images, failed = report["images"], report["failed"]
        self._print(f"mean of {len(images)}", report["mean"])
        for note in report["notes"]:
            say(note)
        if failed:
            say(f"{len(images)} measured, {len(failed)} failed")
        if args.json is not None:
            write_report(args.json, report, overwrite=args.overwrite)
        return 1 if failed else 0

    def _print(self, name: str, figures: Mapping[str, Any]) -> None:
        from converse_jax._report import METRICS

        if not self._begun:
            print(f"{'':<32}" + "".join(f"{metric:>9}" for metric in METRICS), flush=True)
            self._begun = True
        values = (f"{figures[m]:>9.{4 if m.startswith('ssim') else 2}f}" for m in METRICS)
        print(f"{printable(name):<32}" + "".join(values), flush=True)
