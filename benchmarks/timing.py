"""Two programs timed in turn, and the settings of the process that make the race a fair one."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_REST_S = 0.02


@dataclass(frozen=True)
class Race:
    """Median times, and reference / ours over the pairs of turns: above 1, ours is faster.

    `ratio_best` divides the shortest times, `ratio_cpu` is the median for processor time.
    The latter is the one to trust on a busy machine with one thread (with several it also counts
    the spinning of OpenMP's threads).
    """

    ours_ms: float
    reference_ms: float
    ratio: float
    ratio_min: float
    ratio_max: float
    ratio_best: float
    ratio_cpu: float
    pairs: int


def race(
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    *,
    seconds: float,
    min_pairs: int,
    max_pairs: int,
) -> Race:
    """Time two programs, which return only when their results are there, in turn for `seconds`.

    The ratio is taken pair by pair: a neighbour who takes a core slows both turns of a pair, not
    one side of the table.
    """
    for program in (ours, reference):
        program()
    turns: list[tuple[tuple[float, float], tuple[float, float]]] = []
    start = time.perf_counter()
    while len(turns) < min_pairs or (
        len(turns) < max_pairs and time.perf_counter() - start < seconds
    ):
        turns.append((_once(ours), _once(reference)))
    pairs = [(a, b) for (a, _), (b, _) in turns]
    cpu = [b / a for (_, a), (_, b) in turns]
    ratios = [b / a for a, b in pairs]
    return Race(
        ours_ms=1e3 * statistics.median(a for a, _ in pairs),
        reference_ms=1e3 * statistics.median(b for _, b in pairs),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        ratio_best=min(b for _, b in pairs) / min(a for a, _ in pairs),
        ratio_cpu=statistics.median(cpu),
        pairs=len(pairs),
    )


def _once(program: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the wall and of the processor, all threads together."""
    # OpenMP threads spin after their last task: without a rest they take the next turn's cores.
    time.sleep(_REST_S)
    wall, cpu = time.perf_counter(), time.process_time()
    result = program()
    elapsed = time.perf_counter() - wall, time.process_time() - cpu
    del result
    return elapsed


def pin(threads: int) -> str:
    """Confine the process to `threads` cores and say what was done.

    To be called before jax, torch or NumPy is imported: XLA sizes its CPU thread pool by the
    affinity it finds, and has no other public setting for it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return (
            f"no CPU affinity on {sys.platform}: XLA uses every core, PyTorch {threads} thread(s)"
        )
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        raise SystemExit(f"--threads {threads}: this process may use {len(cores)} core(s) only")
    os.sched_setaffinity(0, cores[:threads])
    return f"process pinned to core(s) {', '.join(map(str, cores[:threads]))}"


def keep_memory() -> str:
    """Ask glibc to keep freed memory, and say what was done.

    By default each large tensor is mapped and unmapped anew, and its page faults can cost more than
    the arithmetic. That would favour XLA, which asks for memory once a program, over PyTorch, which
    asks once a tensor. One arena: the others cannot hold more than 64 MB without a map.
    """
    if platform.libc_ver()[0] != "glibc":
        return "system malloc as it is (not glibc)"
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
    libc = ctypes.CDLL(None)
    if all(libc.mallopt(*s) for s in ((m_mmap_max, 0), (m_trim_threshold, -1), (m_arena_max, 1))):
        return "glibc malloc keeps freed memory"
    return "system malloc as it is (mallopt refused)"


def cpu_name() -> str:
    """The processor's name and the number of its cores, as far as the system tells."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
