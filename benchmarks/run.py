"""A run from top to bottom: prepare the process, and for every row check, race, report."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from benchmarks import process, report
from benchmarks.memory import ResidentPeak, TorchPeak
from benchmarks.suite import Inference, Operator, Row, Training
from benchmarks.timing import Program, compare, race


class WrongError(Exception):
    """Ours and Algorithm 1 differ: nothing is timed."""


@dataclass(frozen=True)
class Budget:
    """How long a race lasts."""

    seconds: float
    min_rounds: int
    max_rounds: int

    def race(self, programs: dict[str, Program]) -> dict[str, Any]:
        """The fields that compare them."""
        gc.collect()
        limits = {"min_rounds": self.min_rounds, "max_rounds": self.max_rounds}
        return compare(race(programs, seconds=self.seconds, **limits))


FULL, QUICK = Budget(15.0, 3, 30), Budget(0.7, 3, 10)


def run(rows: list[Row], args: argparse.Namespace) -> int:
    """Time all rows, print and write what was found; the exit status."""
    try:
        settings = [process.set_memory(keep=args.keep_memory, huge_pages=args.huge_pages)]
        device = process.choose_device(args.device)
        if args.tf32 and device == "cpu":
            raise process.BadSetting("--tf32: processors have none, and no GPU was found")
        # On a GPU the host's cores only launch and compile.
        settings.append(process.pin(args.threads) if device == "cpu" else "cores not pinned")
    except process.BadSetting as problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 2

    import torch

    from benchmarks.sides import TOLERANCE, TOLERANCE_TF32, Setup

    torch.set_num_threads(args.threads)
    settings.append(process.set_precision(device, "jax", "torch", tf32=args.tf32))
    setup = Setup(device == "gpu", not args.no_compile, TOLERANCE_TF32 if args.tf32 else TOLERANCE)
    console = Console(width=None if sys.stdout.isatty() else 160)
    found = report.Report(args, device, settings)
    console.print(f"{found.machine}; {args.threads} thread(s); {'; '.join(settings)}")
    at = ""
    try:
        for row in rows:
            at = row.name
            with _status(console, at):
                found.rows.append(_measure(row, setup, args))
            console.print(report.line(found.rows[-1]))
            found.write()
        if args.png is not None:
            from benchmarks import scaling

            at = "scaling"
            with _status(console, "scaling"):
                found.scaling = scaling.measure(setup, quick=args.quick)
            found.write()
            scaling.draw(found.scaling, args.png, found.machine)
    except (WrongError, RuntimeError, OSError) as problem:
        console.print(f"[red]{at}: {problem}[/red]")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    finally:
        report.show(console, found)
    return 0


def _status(console: Console, text: str) -> contextlib.AbstractContextManager[Any]:
    return console.status(text) if console.is_terminal else contextlib.nullcontext()


def _measure(row: Row, setup: Any, args: argparse.Namespace) -> dict[str, Any]:
    # In a quick run torch.compile would take most of the time.
    if args.quick and not isinstance(row, Operator):
        setup = dataclasses.replace(setup, compile=False)
    if isinstance(row, Training):
        found = _training(row, setup, args)
    else:
        found = _in_this_process(row, setup, args)
    return {"work": row.name, "method": "auto", **found}


def _in_this_process(
    row: Operator | Inference, setup: Any, args: argparse.Namespace
) -> dict[str, Any]:
    from benchmarks import limits, networks, operators

    work = operators.build(row, setup) if isinstance(row, Operator) else networks.build(row, setup)
    _check(work.error, setup.tolerance)
    reference_mb = _growth(work.programs["reference"], TorchPeak if setup.on_gpu else ResidentPeak)
    # JAX counts no peak of a single call on a GPU; on the CPU, memory that XLA's threads have kept
    # from earlier calls hides small ones. What XLA plans is taken as well, in either case.
    grown_mb = None if setup.on_gpu else _growth(work.programs["ours"], ResidentPeak)
    times = (QUICK if args.quick else FULL).race(work.programs)
    if isinstance(row, Operator):
        pieces = limits.operator_pieces(row)
        roofline = limits.moved_mb(row) / limits.copy_mb_per_ms() / times["ours_ms"]
    else:
        pieces, roofline = limits.inference_pieces(row), None
    return {
        **times,
        "peak_mb": max((mb for mb in (grown_mb, work.planned_mb) if mb is not None), default=None),
        "reference_peak_mb": reference_mb,
        "compiled_note": work.compiled_note,
        "error": work.error,
        "reference_error": work.reference_error,
        "share": limits.bare_ms(pieces, quick=args.quick) / times["ours_ms"],
        "roofline": roofline,
    }


def _training(row: Training, setup: Any, args: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import limits, train_sides, train_step

    error, reference_error = train_sides.gradient_errors(row, setup.torch_device)
    _check(error, setup.tolerance)
    children = train_step.Children(
        threads=args.threads,
        on_gpu=setup.on_gpu,
        tf32=args.tf32,
        compile=setup.compile,
        keep_memory=args.keep_memory,
        rounds=1 if args.quick else 2,
    )
    found = train_step.measure(row, children)
    _check(found["loss_difference"], train_step.LOSS_TOLERANCE)
    share = limits.bare_ms(limits.training_pieces(row), quick=args.quick) / found["ours_ms"]
    errors = {"error": error, "reference_error": reference_error}
    return {**found, **errors, "share": share, "roofline": None}


def _check(error: float, tolerance: float) -> None:
    if not error <= tolerance:
        raise WrongError(f"ours differ from Algorithm 1 by {error:.1e}, more than {tolerance}")


def _growth(program: Program, counter: type[ResidentPeak | TorchPeak]) -> float | None:
    peak = counter()
    program()
    return peak.growth()
