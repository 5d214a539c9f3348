"""`python -m benchmarks.methods`: the ways to evaluate the operator against each other.

`converse2d(..., method=)` offers several, all exact. This times each that is valid, over sizes,
batches and channels, forward and gradient, and prints from which size on the FFT is the fastest:
what "auto" should choose on this platform. It needs no PyTorch. JAX's default device is used
(JAX_PLATFORMS=cpu is the CPU).
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import process
from benchmarks.suite import Operator
from benchmarks.timing import Program, median_ms, race

_LARGEST = 2**25
"""Values of the largest map, enlarged: 134 MB."""
_TOLERANCE = 1e-4


def cases(*, quick: bool) -> Iterator[list[Operator]]:
    """What is timed: operators that differ in the side of the map only."""
    sides = (16, 32, 64) if quick else (32, 64, 128, 256, 384, 512, 768)
    batches, channels = ((1,), (16,)) if quick else ((1, 8), (16, 128))
    operators = ((1, 5, 4), (2, 5, 4), (2, 2, 2))
    for (scale, k, padding), batch, c in itertools.product(operators, batches, channels):
        fit = [side for side in sides if batch * c * (scale * side) ** 2 <= _LARGEST]
        yield [Operator("forward", batch, c, side, k, padding, scale) for side in fit]
        yield [Operator("gradient", batch, c, side, k, padding, scale) for side in fit]


def crossover(sides: Sequence[int], fft: Sequence[float], other: Sequence[float]) -> int | None:
    """The side from which on the FFT is faster; None if it is not at the largest.

    Between two measured sides the logarithm of the ratio is taken to be linear in that of the side.
    """
    gain = [math.log(o / f) for f, o in zip(fft, other, strict=True)]
    slower = [i for i, value in enumerate(gain) if value <= 0]
    if not slower:
        return sides[0]
    i = slower[-1]
    if i == len(sides) - 1:
        return None
    part = -gain[i] / (gain[i + 1] - gain[i])
    return round(sides[i] * (sides[i + 1] / sides[i]) ** part)


def valid_methods(row: Operator) -> list[str]:
    """The methods that hold for an operator, but for "auto"."""
    return ["fft", "dft"] + ["direct"] * (row.kernel_size <= row.scale)


def measure(row: Operator, *, quick: bool) -> dict[str, float]:
    """Median milliseconds of every method that is valid here, timed in turn.

    Raises:
      ArithmeticError: they do not agree.
    """
    import numpy as np

    programs = _programs(row)
    first = programs["fft"]()
    for method, program in programs.items():
        for a, b in zip(first, program(), strict=True):
            error = np.max(np.abs(a - b)) / np.max(np.abs(a))
            if not error <= _TOLERANCE:
                raise ArithmeticError(f"{row.name}: {method} differs by {error:.1e}")
    seconds, most = (0.2, 5) if quick else (1.0, 10)
    turns = race(programs, seconds=seconds, min_rounds=3, max_rounds=most)
    return {method: median_ms(times) for method, times in turns.items()}


def _programs(row: Operator) -> dict[str, Program]:
    import jax

    from benchmarks.our_operator import our_operator, shapes

    keys = jax.random.split(jax.random.key(0), 4)
    args = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes(row), strict=False)]
    args[1] = 0.8 * jax.nn.softmax(args[1], (0, 1))

    def program(method: str) -> Program:
        compiled = jax.jit(our_operator(row, method)).lower(*args).compile()
        return lambda: jax.block_until_ready(compiled(*args))

    return {method: program(method) for method in valid_methods(row)}


def main() -> int:
    """Parse the command line, measure, print."""
    parser = process.Parser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few small maps")
    parser.add_argument("--threads", type=process.positive, default=2, help="cores, on a CPU")
    parser.add_argument("--json", type=process.output_file, help="write what was found here")
    args = parser.parse_args()
    try:
        process.pin(args.threads)
    except process.BadSetting as problem:
        parser.error(str(problem))

    import jax

    rows: list[dict[str, Any]] = []
    crossovers: list[dict[str, Any]] = []
    found = {"rows": rows, "crossovers": crossovers, "platform": jax.default_backend()}
    found |= {"device": jax.devices()[0].device_kind, **process.circumstances(args.threads)}
    print(f"{found['machine']}; {found['platform']}; {args.threads} thread(s)")
    for case in cases(quick=args.quick):
        times = []
        for row in case:
            times.append(ms := measure(row, quick=args.quick))
            rows.append({**asdict(row), "ms": ms})
            said = (f"{m} {t:.2f} ms{' *' * (t == min(ms.values()))}" for m, t in ms.items())
            print(f"{row.name}: {', '.join(said)}", flush=True)
        sides = [row.size for row in case]
        for other in valid_methods(case[0])[1:]:
            at = crossover(sides, [t["fft"] for t in times], [t[other] for t in times])
            crossovers.append({**asdict(case[0]), "over": other, "size": at})
            where = f"not up to {sides[-1]}" if at is None else f"from {at} on"
            print(f"{case[0].name} and larger: fft beats {other} {where}", flush=True)
        if args.json is not None:
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
