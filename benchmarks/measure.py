"""What is measured: times of programs that take turns, memory of a call, errors."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_REST_S = 0.02
_MIN_ROUNDS = 3

Program = Callable[[], Any]
"""Takes nothing, and returns only when its results are there."""


class Turn(NamedTuple):
    """Seconds of one run: wall time, and processor time of all threads together."""

    wall: float
    cpu: float


def race(
    programs: Mapping[str, Program], *, seconds: float, max_rounds: int
) -> dict[str, list[Turn]]:
    """Time programs that have run before, in turn (A, B, A, B, ...), for about `seconds`."""
    turns: dict[str, list[Turn]] = {name: [] for name in programs}
    start = time.perf_counter()
    for done in range(max_rounds):
        if done >= _MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
        for name, program in programs.items():
            # OpenMP threads spin after their last task: they would take the next turn's cores.
            time.sleep(_REST_S)
            wall, cpu = time.perf_counter(), time.process_time()
            program()
            turns[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return turns


def compare(turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Median times, and the ratios of the others' times to `ours`: above 1, ours is faster.

    A ratio is taken within a round: a neighbor who takes a core slows all turns of that round, not
    one side of the table. On a busy machine trust `ratio_cpu`, of processor time, with one thread
    (with several it also counts the spinning of OpenMP's threads).
    """
    ours, reference = turns["ours"], turns["reference"]
    ratios = {
        name: [b.wall / a.wall for a, b in zip(ours, theirs, strict=True)]
        for name, theirs in turns.items()
        if name != "ours"
    }
    against_reference = ratios.pop("reference")
    return {
        **{f"{name}_ms": median_ms(each) for name, each in turns.items()},
        **{f"ratio_{name}": statistics.median(each) for name, each in ratios.items()},
        "ratio": statistics.median(against_reference),
        "ratio_min": min(against_reference),
        "ratio_max": max(against_reference),
        "ratio_best": min(b.wall for b in reference) / min(a.wall for a in ours),
        "ratio_cpu": statistics.median(b.cpu / a.cpu for a, b in zip(ours, reference, strict=True)),
        "pairs": len(ours),
    }


def median_ms(turns: Sequence[Turn]) -> float:
    """The median wall time, in milliseconds."""
    return 1e3 * statistics.median(turn.wall for turn in turns)


def resident_growth(call: Program) -> float | None:
    """MB by which a call raises the peak of resident memory; None if the system cannot tell."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        # Memory that malloc kept from earlier calls would hide what this one asks for.
        ctypes.CDLL(None).malloc_trim(0)
    process = Path("/proc/self")
    try:
        (process / "clear_refs").write_text("5")  # resets the peak
        pages = int((process / "statm").read_text().split()[1])
    except OSError:
        return None
    call()
    peak_kb = int((process / "status").read_text().partition("VmHWM:")[2].split()[0])
    return max(0.0, (peak_kb * 1024 - pages * os.sysconf("SC_PAGE_SIZE")) / 1e6)


def relative_error(found: Sequence[Any], truth: Sequence[Any]) -> float:
    """The largest of `max|a - truth| / max|truth|`; axes of length 1 do not count."""
    errors = []
    for a, b in zip(found, truth, strict=True):
        a, b = (np.squeeze(np.asarray(value, np.float64)) for value in (a, b))
        if a.shape != b.shape:
            raise ValueError(f"the two sides disagree on a shape: {a.shape} and {b.shape}")
        errors.append(np.max(np.abs(a - b)) / np.max(np.abs(b)))
    return float(np.max(errors))
