"""Time the methods of our operator (`converse2d(..., method=)`) against each other.

Forward and gradient, over sizes, batches and channels, on JAX's default device. Prints the size
from which on the FFT is the fastest: what "auto" should choose on this platform.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import jax

from benchmarks import ours
from benchmarks.command import Parser, Table, circumstances, pin
from benchmarks.measure import median_ms, race, relative_error
from benchmarks.suite import Operator

_LARGEST = 2**25
"""Values of the largest map, enlarged: 134 MB."""
_TOLERANCE = 1e-4


def main() -> int:
    """Run the command; the exit status."""
    parser = Parser("benchmarks.methods", __doc__, "--quick", "--threads", "--json")
    args = parser.parse_args()
    pin(args.threads, parser)
    rows: list[dict[str, Any]] = []
    found = {"rows": rows, "device": jax.devices()[0].device_kind, **circumstances(args.threads)}
    print(f"{found['machine']}; {found['device']}; {args.threads} thread(s)")
    table = Table("operator", dict.fromkeys(("fft ms", "dft ms", "direct ms"), ".2f"))
    for case in cases(quick=args.quick):
        for row in case:
            rows.append({**asdict(row), "ms": measure(row, quick=args.quick)})
            table.add(row.name, rows[-1]["ms"].values())
        times = [row["ms"] for row in rows[-len(case) :]]
        sides = [row.size for row in case]
        for other in case[0].methods[1:]:
            at = crossover(sides, [t["fft"] for t in times], [t[other] for t in times])
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
    programs = {name: ours.compiled(ours.operator(row, name), *args)[0] for name in row.methods}
    results = {name: program() for name, program in programs.items()}
    for name, result in results.items():
        error = relative_error(result, results["fft"])
        if not error <= _TOLERANCE:
            raise ArithmeticError(f"{row.name}: {name} differs by {error:.1e}")
    seconds, most = (0.2, 5) if quick else (1.0, 10)
    turns = race(programs, seconds=seconds, max_rounds=most)
    return {name: median_ms(times) for name, times in turns.items()}


def crossover(sides: Sequence[int], fft: Sequence[float], other: Sequence[float]) -> int | None:
    """The measured side from which on the FFT is faster; None if it is not at the largest."""
    times = reversed(list(zip(sides, fft, other, strict=True)))
    faster = [side for side, *_ in itertools.takewhile(lambda row: row[1] < row[2], times)]
    return faster[-1] if faster else None


if __name__ == "__main__":
    sys.exit(main())
