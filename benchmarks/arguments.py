"""The command line: what all commands of this package share, checked before any work."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path
from typing import NoReturn

from benchmarks.suite import Row


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Without the usage, which hides the message."""
        self.exit(2, f"{self.prog}: {message}\n")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that races the two sides."""
    parser.add_argument("--threads", type=int, default=2, help="cores for both sides (default 2)")
    parser.add_argument(
        "--device",
        choices=("cpu", "gpu"),
        help="of both sides (default: the GPU if JAX and PyTorch find one)",
    )
    parser.add_argument("--tf32", action="store_true", help="on a GPU, for both sides")
    parser.add_argument(
        "--no-compile", action="store_true", help="no column for torch.compile, which takes long"
    )
    parser.add_argument(
        "--keep-memory", action="store_true", help="malloc keeps freed memory, for both sides"
    )
    parser.add_argument(
        "--huge-pages", action="store_true", help="malloc asks for huge pages, for both sides"
    )
    parser.add_argument("--json", type=Path, help="write the rows and circumstances here")
    parser.set_defaults(quick=False, png=None, only=None)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with one line for what cannot be done."""
    if args.threads < 1:
        parser.error(f"--threads: got {args.threads}; give 1 or more")
    if args.tf32 and args.device == "cpu":
        parser.error("--tf32: processors have none; it goes with --device gpu")
    check_file(parser, "--json", args.json)
    check_file(parser, "--png", args.png)


def check_packages(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End if something is not installed that the library itself does without."""
    for package in ("torch", "rich", *(["matplotlib"] if args.png is not None else [])):
        if importlib.util.find_spec(package) is None:
            parser.error(f'needs {package}: pip install -e ".[bench]"')


def check_file(parser: argparse.ArgumentParser, option: str, path: Path | None) -> None:
    """End unless a file can be written there."""
    if path is None:
        return
    if not path.parent.is_dir():
        parser.error(f"{option} {path}: there is no folder {path.parent}")
    if path.is_dir():
        parser.error(f"{option} {path}: is a folder; give a file")
    if not os.access(path.parent, os.W_OK):
        parser.error(f"{option} {path}: the folder cannot be written to")


def chosen(parser: argparse.ArgumentParser, rows: list[Row], args: argparse.Namespace) -> list[Row]:
    """The rows whose name contains `--only`; none of them for `scaling`, which `--png` draws."""
    if args.only is None:
        return rows
    found = [row for row in rows if args.only.lower() in row.name.lower()]
    if not found and not (args.png is not None and args.only == "scaling"):
        names = "; ".join(row.name for row in rows)
        parser.error(f"--only {args.only}: in no row; the rows are {names}; with --png scaling")
    return found
