"""Time the methods of our operator against each other.

`converse2d(..., method=)` offers several, all exact. Each that is valid is timed over sizes,
batches and channels, forward and gradient. Printed is from which size on the FFT is the fastest:
what "auto" should choose on this platform. JAX's default device is used.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from benchmarks import ours, process
from benchmarks.suite import Operator
from benchmarks.table import Table
from benchmarks.timing import Program, median_ms, race

_LARGEST = 2**25
"""Values of the largest map, enlarged: 134 MB."""
_TOLERANCE = 1e-4
_COLUMNS = {f"{method} ms": (method, ".2f") for method in ("fft", "dft", "direct")}


def main() -> int:
    """Parse the command line, measure, print."""
    parser = process.Parser("benchmarks.methods", __doc__, "--quick", "--threads", "--json")
    args = parser.parse_args()
    process.pin(args.threads, parser)
    rows: list[dict[str, Any]] = []
    crossovers: list[dict[str, Any]] = []
    found = {"rows": rows, "crossovers": crossovers, "platform": jax.default_backend()}
    found |= {"device": jax.devices()[0].device_kind, **process.circumstances(args.threads)}
    print(f"{found['machine']}; {found['platform']}; {args.threads} thread(s)")
    table = Table("operator", _COLUMNS)
    for case in cases(quick=args.quick):
        times = []
        for row in case:
            times.append(measure(row, quick=args.quick))
            rows.append({**asdict(row), "ms": times[-1]})
            table.add(row.name, times[-1])
        sides = [row.size for row in case]
        for other in case[0].methods[1:]:
            at = crossover(sides, [t["fft"] for t in times], [t[other] for t in times])
            crossovers.append({**asdict(case[0]), "over": other, "size": at})
            where = f"not up to {sides[-1]}" if at is None else f"from {at} on"
            print(f"  fft beats {other} {where}", flush=True)
        if args.json is not None:
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def cases(*, quick: bool) -> Iterator[list[Operator]]:
    """What is timed: operators that differ in the side of the map only."""
    sides = (16, 32, 64) if quick else (32, 64, 128, 256, 384, 512, 768)
    batches, channels = ((1,), (16,)) if quick else ((1, 8), (16, 128))
    operators = ((1, 5, 4), (2, 5, 4), (2, 2, 2))
    for (scale, k, padding), batch, c in itertools.product(operators, batches, channels):
        fit = [side for side in sides if batch * c * (scale * side) ** 2 <= _LARGEST]
        yield [Operator("forward", batch, c, side, k, padding, scale) for side in fit]
        yield [Operator("gradient", batch, c, side, k, padding, scale) for side in fit]


def measure(row: Operator, *, quick: bool) -> dict[str, float]:
    """Median milliseconds of every method that is valid here, timed in turn.

    Raises:
      ArithmeticError: they do not agree.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    args = [jax.random.normal(key, shape) for key, shape in zip(keys, row.shapes, strict=False)]
    args[1] = 0.8 * jax.nn.softmax(args[1], (0, 1))

    def program(method: str) -> Program:
        compiled = jax.jit(ours.operator(row, method)).lower(*args).compile()
        return lambda: jax.block_until_ready(compiled(*args))

    programs = {method: program(method) for method in row.methods}
    results = {method: run() for method, run in programs.items()}
    for method, result in results.items():
        for a, b in zip(results["fft"], result, strict=True):
            error = np.max(np.abs(a - b)) / np.max(np.abs(a))
            if not error <= _TOLERANCE:
                raise ArithmeticError(f"{row.name}: {method} differs by {error:.1e}")
    seconds, most = (0.2, 5) if quick else (1.0, 10)
    turns = race(programs, seconds=seconds, min_rounds=3, max_rounds=most)
    return {method: median_ms(times) for method, times in turns.items()}


def crossover(sides: Sequence[int], fft: Sequence[float], other: Sequence[float]) -> int | None:
    """The measured side from which on the FFT is faster; None if it is not at the largest."""
    first = None
    for side, fft_ms, other_ms in reversed(list(zip(sides, fft, other, strict=True))):
        if fft_ms >= other_ms:
            break
        first = side
    return first


if __name__ == "__main__":
    sys.exit(main())
