"""Programs timed in turn, and what their times say about each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_REST_S = 0.02

Program = Callable[[], Any]
"""Takes nothing, and returns only when its results are there."""


class Turn(NamedTuple):
    """Seconds of one run: on the wall, and of the processor, all threads together."""

    wall: float
    cpu: float


def race(
    programs: Mapping[str, Program], *, seconds: float, min_rounds: int, max_rounds: int
) -> dict[str, list[Turn]]:
    """Time programs that have run before, in turn (A, B, A, B, ...), for about `seconds`."""
    turns: dict[str, list[Turn]] = {name: [] for name in programs}
    start = time.perf_counter()
    for done in range(max_rounds):
        if done >= min_rounds and time.perf_counter() - start > seconds:
            break
        for name, program in programs.items():
            # OpenMP threads spin after their last task: they would take the next turn's cores.
            time.sleep(_REST_S)
            wall, cpu = time.perf_counter(), time.process_time()
            program()
            turns[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return turns


def compare(turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Median times, and theirs / ours over the rounds: above 1, ours is faster.

    A ratio is taken round by round: a neighbor who takes a core slows all turns of a round, not
    one side of the table. On a busy machine trust `ratio_cpu`, of processor time, with one thread
    (with several it also counts the spinning of OpenMP's threads).
    """
    ours, reference = turns["ours"], turns["reference"]
    ratios = [b.wall / a.wall for a, b in zip(ours, reference, strict=True)]
    found: dict[str, Any] = {
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratio_best": min(b.wall for b in reference) / min(a.wall for a in ours),
        "ratio_cpu": statistics.median(b.cpu / a.cpu for a, b in zip(ours, reference, strict=True)),
        "pairs": len(ratios),
    }
    for name, theirs in turns.items():
        found[f"{name}_ms"] = median_ms(theirs)
        if name not in ("ours", "reference"):
            walls = (b.wall / a.wall for a, b in zip(ours, theirs, strict=True))
            found[f"ratio_{name}"] = statistics.median(walls)
    return found


def time_alone(program: Program, *, seconds: float = 1.0) -> float:
    """Median milliseconds of one program: 3 to 20 runs after one that is not counted."""
    program()
    return median_ms(race({"it": program}, seconds=seconds, min_rounds=3, max_rounds=20)["it"])


def median_ms(turns: Sequence[Turn]) -> float:
    """The median time on the wall, in milliseconds."""
    return 1e3 * statistics.median(turn.wall for turn in turns)
