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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import process
from benchmarks.arguments import Parser, check_file
from benchmarks.timing import Program, median_ms, race

_PASSES = ("forward", "gradient")
_LARGEST = 2**25
"""Values of the largest map, enlarged: 134 MB."""
_TOLERANCE = 1e-4


class Case(NamedTuple):
    """Everything but the side of the map."""

    what: str
    scale: int
    kernel: int
    padding: int
    batch: int
    channels: int

    @property
    def name(self) -> str:
        """For people."""
        scale = f" x{self.scale}" if self.scale > 1 else ""
        return (
            f"{self.what}{scale}, {self.batch} x {self.channels} channels, "
            f"k{self.kernel} p{self.padding}"
        )


def cases(*, quick: bool) -> Iterator[tuple[Case, list[int]]]:
    """What is timed, each with its sides."""
    sides = (16, 32, 64) if quick else (32, 64, 128, 256, 384, 512, 768)
    batches, channels = ((1,), (16,)) if quick else ((1, 8), (16, 128))
    operators = ((1, 5, 4), (2, 5, 4), (2, 2, 2))
    for operator, batch, c, what in itertools.product(operators, batches, channels, _PASSES):
        case = Case(what, *operator, batch, c)
        values = batch * c * case.scale**2
        yield case, [side for side in sides if values * side * side <= _LARGEST]


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


def valid_methods(scale: int, kernel: int) -> list[str]:
    """The methods that hold for an operator, but for "auto"."""
    return ["fft", "dft"] + ["direct"] * (kernel <= scale)


def measure(case: Case, side: int, *, quick: bool) -> dict[str, float]:
    """Median milliseconds of every method that is valid here, timed in turn.

    Raises:
      ArithmeticError: they do not agree.
    """
    programs = _programs(case, side)
    first = [_flat(a) for a in _leaves(next(iter(programs.values()))())]
    for method, program in programs.items():
        for a, b in zip(first, map(_flat, _leaves(program())), strict=True):
            error = abs(a - b).max() / abs(a).max()
            if not error <= _TOLERANCE:
                raise ArithmeticError(f"{case.name}, {side}: {method} differs by {error:.1e}")
    seconds, most = (0.2, 5) if quick else (1.0, 10)
    turns = race(programs, seconds=seconds, min_rounds=3, max_rounds=most)
    return {method: median_ms(times) for method, times in turns.items()}


def _programs(case: Case, side: int) -> dict[str, Program]:
    import jax
    import jax.numpy as jnp

    from converse_jax import converse2d

    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (case.batch, side, side, case.channels))
    taps = jax.random.normal(keys[1], (case.kernel**2, case.channels))
    kernel = 0.8 * jax.nn.softmax(taps, 0).reshape(case.kernel, case.kernel, case.channels)
    lam = jax.nn.sigmoid(jax.random.normal(keys[2], (case.channels,)) - 9) + 1e-5
    enlarged = (case.batch, case.scale * side, case.scale * side, case.channels)
    cotangent = jax.random.normal(keys[3], enlarged)

    def program(method: str) -> Program:
        def forward(x: Any, kernel: Any, lam: Any) -> Any:
            pad: dict[str, Any] = {"padding": case.padding, "method": method}
            return converse2d(x, kernel, lam, scale=case.scale, **pad)

        def loss(x: Any, kernel: Any, lam: Any, cotangent: Any) -> Any:
            return jnp.sum(forward(x, kernel, lam) * cotangent)

        gradient = case.what == "gradient"
        args = (x, kernel, lam, cotangent) if gradient else (x, kernel, lam)
        function = jax.grad(loss, argnums=(0, 1, 2)) if gradient else forward
        compiled = jax.jit(function).lower(*args).compile()
        return lambda: jax.block_until_ready(compiled(*args))

    return {m: program(m) for m in valid_methods(case.scale, case.kernel)}


def _leaves(result: Any) -> list[Any]:
    import jax

    return jax.tree.leaves(result)


def _flat(array: Any) -> Any:
    import numpy as np

    return np.asarray(array).ravel()


def main() -> int:
    """Parse the command line, measure, print."""
    parser = Parser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few small maps")
    parser.add_argument("--threads", type=int, default=2, help="cores, on a CPU (default 2)")
    parser.add_argument("--json", type=Path, help="write what was found here")
    args = parser.parse_args()
    check_file(parser, "--json", args.json)
    try:
        process.pin(args.threads)
    except process.BadSetting as problem:
        parser.error(str(problem))

    import jax

    platform = jax.default_backend()
    found: dict[str, Any] = {
        "rows": [],
        "crossovers": [],
        "platform": platform,
        "machine": process.machine_name("cpu"),
        "device": jax.devices()[0].device_kind,
        "threads": args.threads,
        "commit": process.commit(),
        "versions": process.versions(),
    }
    print(f"{found['machine']}; {platform}; {args.threads} thread(s)")
    for case, sides in cases(quick=args.quick):
        times = []
        for side in sides:
            times.append(measure(case, side, quick=args.quick))
            found["rows"].append({**case._asdict(), "side": side, "ms": times[-1]})
            print(f"{case.name}, {side:4d}: {_line(times[-1])}", flush=True)
            _write(args.json, found)
        for other in ("dft", "direct"):
            if all(other in t for t in times):
                at = crossover(sides, [t["fft"] for t in times], [t[other] for t in times])
                found["crossovers"].append({**case._asdict(), "over": other, "side": at})
                where = f"not up to {sides[-1]}" if at is None else f"from {at} on"
                print(f"{case.name}: fft beats {other} {where} ({platform})", flush=True)
    _write(args.json, found)
    return 0


def _line(times: Mapping[str, float]) -> str:
    fastest = min(times, key=lambda method: times[method])
    return ", ".join(f"{m} {t:.2f} ms{' *' if m == fastest else ''}" for m, t in times.items())


def _write(path: Path | None, found: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
