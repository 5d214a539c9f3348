"""A run from top to bottom: for every row check, race, report."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from typing import Any

import torch

from benchmarks import limits, networks, operators, process
from benchmarks.sides import Work, WrongError
from benchmarks.suite import Inference, Operator, Row
from benchmarks.table import Table
from benchmarks.timing import compare, race

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
    "error": ("error", ".0e"),
    "Alg. 1 error": ("reference_error", ".0e"),
}


def run(rows: list[Row], args: argparse.Namespace, device: str, cores: str) -> int:
    """Time all rows, print and write what they give; the exit status."""
    torch.set_num_threads(args.threads)
    settings = [cores, os.environ.get("GLIBC_TUNABLES", "malloc as the system sets it")]
    measured: list[dict[str, Any]] = []
    told = {"rows": measured, "device": device, "settings": settings, "quick": args.quick}
    told |= process.circumstances(args.threads)
    if device == "gpu":
        told["machine"] = f"{torch.cuda.get_device_name()}; {told['machine']}"
    print(f"{told['machine']}; {args.threads} thread(s); {'; '.join(settings)}")
    print("Ratios are PyTorch / ours: above 1, ours is faster")
    table = Table("work", _COLUMNS, width=max(len(row.name) for row in rows))
    for row in rows:
        try:
            measured.append({"work": row.name, **_measure(row, device, args)})
        except (WrongError, RuntimeError, OSError) as problem:
            print(f"{row.name}: {problem}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        last = measured[-1]
        errors = {"error": last["errors"]["ours"], "reference_error": last["errors"]["reference"]}
        table.add(row.name, {**last, **errors})
        for name, note in last["notes"].items():
            print(f"  {name} does not work: {note}")
        if args.json is not None:  # after every row: an interrupted run keeps what it has
            args.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def _measure(row: Row, device: str, args: argparse.Namespace) -> dict[str, Any]:
    on_cpu = device == "cpu"
    # In a quick run torch.compile would take most of the time of a network.
    compile = not args.no_compile and (isinstance(row, Operator) or not args.quick)
    work = _build(row, "cpu" if on_cpu else "cuda", compile=compile)
    peaks = [
        process.resident_growth(work.programs[side]) if on_cpu else None
        for side in ("reference", "ours")
    ]
    gc.collect()
    seconds, most = (0.7, 10) if args.quick else (15.0, 30)
    times = compare(race(work.programs, seconds=seconds, min_rounds=3, max_rounds=most))
    # Memory that XLA's threads have kept from earlier calls hides small growth: its plan counts.
    ours = (mb for mb in (peaks[1], work.planned_mb) if mb is not None)
    return {
        **times,
        "peak_mb": max(ours, default=None),
        "reference_peak_mb": peaks[0],
        "notes": work.notes,
        "errors": work.errors,
        "share": limits.bare_ms(limits.pieces(row), quick=args.quick) / times["ours_ms"],
    }


def _build(row: Row, device: str, *, compile: bool) -> Work:
    if isinstance(row, Operator):
        return operators.build(row, device, compile=compile)
    if isinstance(row, Inference):
        return networks.build_inference(row, device, compile=compile)
    return networks.build_training(row, device, compile=compile)
