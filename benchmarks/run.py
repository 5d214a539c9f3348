"""A run from top to bottom: prepare the process, and for every row check, race, report."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from typing import Any

from rich.console import Console

from benchmarks import process, report
from benchmarks.memory import resident_growth
from benchmarks.suite import Inference, Operator, Row, Training
from benchmarks.timing import compare, race

_LOSS_TOLERANCE = 1e-3
"""Largest relative difference of the losses of two sides; gradients are compared before."""


def run(rows: list[Row], args: argparse.Namespace) -> int:
    """Time all rows, print and write what was found; the exit status."""
    try:
        device = process.choose_device(args.device)
        # On a GPU the host's cores only launch and compile.
        settings = [process.pin(args.threads) if device == "cpu" else "cores not pinned"]
    except process.BadSetting as problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 2
    settings.append(os.environ.get("GLIBC_TUNABLES", "malloc as the system sets it"))

    import torch

    from benchmarks.sides import WrongError

    torch.set_num_threads(args.threads)
    found: list[dict[str, Any]] = []
    told = {"rows": found, "device": device, "settings": settings, "quick": args.quick}
    told |= process.circumstances(args.threads)
    if device == "gpu":
        told["machine"] = f"{torch.cuda.get_device_name()}; {told['machine']}"
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"{told['machine']}; {args.threads} thread(s); {'; '.join(settings)}")
    at = ""
    try:
        for row in rows:
            at = row.name
            with console.status(at):
                found.append({"work": row.name, **_measure(row, device, args)})
            console.print(report.line(found[-1]))
            if args.json is not None:  # after every row: an interrupted run keeps what it has
                args.json.write_text(json.dumps(told, indent=1) + "\n")
    except (WrongError, RuntimeError, OSError) as problem:
        console.print(f"[red]{at}: {problem}[/red]")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    finally:
        report.show(console, found)
    return 0


def _measure(row: Row, device: str, args: argparse.Namespace) -> dict[str, Any]:
    # In a quick run torch.compile would take most of the time of a network.
    compile = not args.no_compile and (isinstance(row, Operator) or not args.quick)
    if isinstance(row, Training):
        return _training(row, device, args, compile=compile)
    return _in_this_process(row, device, quick=args.quick, compile=compile)


def _in_this_process(
    row: Operator | Inference, device: str, *, quick: bool, compile: bool
) -> dict[str, Any]:
    from benchmarks import limits, networks, operators

    place = "cuda" if device == "gpu" else "cpu"
    build = operators.build if isinstance(row, Operator) else networks.build
    work = build(row, place, compile=compile)  # type: ignore[arg-type]
    on_cpu = device == "cpu"
    peaks = [resident_growth(work.programs[s]) if on_cpu else None for s in ("reference", "ours")]
    gc.collect()
    seconds, most = (0.7, 10) if quick else (15.0, 30)
    times = compare(race(work.programs, seconds=seconds, min_rounds=3, max_rounds=most))
    pieces = limits.pieces(row)
    # Memory that XLA's threads have kept from earlier calls hides small growth: its plan counts.
    ours = (mb for mb in (peaks[1], work.planned_mb) if mb is not None)
    return {
        **times,
        "peak_mb": max(ours, default=None),
        "reference_peak_mb": peaks[0],
        "notes": work.notes,
        "errors": work.errors,
        "share": limits.bare_ms(pieces, quick=quick) / times["ours_ms"],
    }


def _training(
    row: Training, device: str, args: argparse.Namespace, *, compile: bool
) -> dict[str, Any]:
    from benchmarks import limits, sides, train_step

    errors = train_step.gradient_errors(row, "cuda" if device == "gpu" else "cpu")
    sides.check(errors["ours"], sides.TOLERANCE)
    how = {"threads": args.threads, "device": device, "compile": compile}
    found = train_step.measure(row, **how, rounds=1 if args.quick else 2)
    sides.check(found["loss_difference"], _LOSS_TOLERANCE, "the loss")
    share = limits.bare_ms(limits.pieces(row), quick=args.quick) / found["ours_ms"]
    return {**found, "errors": errors, "share": share}
