"""A run from top to bottom: for every row check, race, report."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import os
import sys
import warnings
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import ours
from benchmarks.command import Table, circumstances
from benchmarks.measure import Program, compare, race, relative_error, resident_growth
from benchmarks.sides import Sides, build, channels_last
from benchmarks.suite import Operator, Row
from converse_jax.messages import one_line

_TOLERANCE = 1e-3
"""Largest error of ours against Algorithm 1 in float64, relative to the largest value."""
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
    "error": ("error_ours", ".0e"),
    "Alg. 1 error": ("error_reference", ".0e"),
}


def run(rows: list[Row], args: argparse.Namespace, cores: str) -> int:
    """Time all rows, print and write what they give; the exit status."""
    gpu = args.device == "gpu"
    if gpu and not (jax.default_backend() == "gpu" and torch.cuda.is_available()):
        print("--device gpu: JAX and PyTorch do not both find a GPU", file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    settings = [cores, os.environ.get("GLIBC_TUNABLES", "malloc as the system sets it")]
    measured: list[dict[str, Any]] = []
    told = {"rows": measured, "device": args.device, "settings": settings, "quick": args.quick}
    told |= circumstances(args.threads)
    if gpu:
        told["machine"] = f"{torch.cuda.get_device_name()}; {told['machine']}"
    print(f"{told['machine']}; {args.threads} thread(s); {'; '.join(settings)}")
    print("Ratios are PyTorch / ours: above 1, ours is faster")
    table = Table("work", {heading: form for heading, (_, form) in _COLUMNS.items()})
    for row in rows:
        try:
            measured.append({"work": row.name, **_measure(row, args)})
        except (ArithmeticError, RuntimeError, OSError, KeyboardInterrupt) as problem:
            print(f"{row.name}: {one_line(problem)}", file=sys.stderr)
            return 130 if isinstance(problem, KeyboardInterrupt) else 1
        last = measured[-1] | {f"error_{name}": x for name, x in measured[-1]["errors"].items()}
        table.add(row.name, (last.get(key) for key, _ in _COLUMNS.values()))
        for name, note in last["notes"].items():
            print(f"  {name} does not work: {note}")
        if args.json is not None:  # after every row: an interrupted run keeps what it has
            args.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def _measure(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    on_cpu = args.device == "cpu"
    sides = build(row, "cpu" if on_cpu else "cuda")
    # In a quick run torch.compile would take most of the time of a network.
    compile = not args.no_compile and (isinstance(row, Operator) or not args.quick)
    programs, errors, notes = check(sides, compile=compile)
    reference_mb, ours_mb = (
        resident_growth(programs[side]) if on_cpu else None for side in ("reference", "ours")
    )
    gc.collect()
    seconds, most = (0.7, 10) if args.quick else (15.0, 30)
    times = compare(race(programs, seconds=seconds, max_rounds=most))
    return {
        **times,
        # Memory that XLA's threads have kept from earlier calls hides small growth.
        "peak_mb": max(ours_mb or 0.0, sides.ours[1]),
        "reference_peak_mb": reference_mb,
        "notes": notes,
        "errors": errors,
        "share": ours.bare_ms(ours.pieces(row), quick=args.quick) / times["ours_ms"],
    }


def check(
    sides: Sides, *, compile: bool
) -> tuple[dict[str, Program], dict[str, float], dict[str, str]]:
    """Programs, the errors of the eager ones, and why some under `torch.compile` are missing.

    Raises:
      ArithmeticError: ours, or one of the eager ones but Algorithm 1 itself, is wrong.
    """
    programs = {"ours": sides.ours[0], **{name: make(False) for name, make in sides.theirs.items()}}
    truth = _arrays(sides.exact())

    def error_of(name: str, program: Program, largest: float) -> float:
        error = relative_error(_arrays(program()), truth)
        if not error <= largest:
            raise ArithmeticError(f"{name} differs from Algorithm 1 by {error:.1e}, over {largest}")
        return error

    limit = dict.fromkeys(programs, _TOLERANCE) | {"reference": math.inf}
    errors = {name: error_of(name, program, limit[name]) for name, program in programs.items()}
    # Where Algorithm 1 itself is far off, its compiled form is as well, by another amount.
    largest = max(_TOLERANCE, 10 * errors["reference"])
    notes = {}
    for name, make in sides.theirs.items() if compile else ():
        torch._dynamo.reset()  # a function compiled for many shapes would fall back to eager
        logging.getLogger("torch").setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():  # that complex operators run as in eager mode
                warnings.simplefilter("ignore")
                program = make(True)
                error_of(name, program, largest)
            programs[f"{name}_compiled"] = program
        except Exception as problem:  # compilers fail in many ways; the race goes on without it
            notes[f"{name}_compiled"] = f"{type(problem).__name__}: {one_line(problem, 160)}"
    return programs, errors, notes


def _arrays(result: Any) -> list[np.ndarray]:
    several = result if isinstance(result, (list, tuple)) else [result]
    return [channels_last(a) if isinstance(a, torch.Tensor) else np.asarray(a) for a in several]
