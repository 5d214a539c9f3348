"""Cost against size and channels: the forward operator of both sides, and the exponents."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite import Operator
from benchmarks.timing import race

_KERNEL, _PADDING = 5, 4
_SIDES = (32, 45, 64, 93, 128, 185, 256, 365, 512)  # 45, 93, 185, 365 are prime when padded
_CHANNELS = (4, 8, 16, 32, 64, 128, 256)
_FIXED_CHANNELS, _FIXED_SIDE = 32, 64
_QUICK_SIDES, _QUICK_CHANNELS = _SIDES[:5], _CHANNELS[:5]

_COLOURS = {"ours": "#1b6ca8", "reference": "#c8553d"}
_NAMES = {"ours": "ours (JAX)", "reference": "Algorithm 1 (PyTorch)"}


def measure(setup: Any, *, quick: bool) -> dict[str, Any]:
    """Shortest milliseconds of both sides along both axes, and the exponents."""
    sides, channels = (_QUICK_SIDES, _QUICK_CHANNELS) if quick else (_SIDES, _CHANNELS)
    return {
        "kernel": _KERNEL,
        "padding": _PADDING,
        "side": {"channels": _FIXED_CHANNELS}
        | _along(sides, [_row(_FIXED_CHANNELS, side) for side in sides], setup, quick=quick),
        "channels": {"side": _FIXED_SIDE}
        | _along(channels, [_row(c, _FIXED_SIDE) for c in channels], setup, quick=quick),
    }


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The a of `time = c size^a`, by least squares of the logarithms.

    Of the larger half of the points: below, the time is that of a call, whatever its size.
    """
    half = len(sizes) // 2
    x, y = np.log(sizes[half:]), np.log(times[half:])
    return float(np.polyfit(x, y, 1)[0])


def draw(scaling: dict[str, Any], path: Path, machine: str) -> None:
    """Write the image."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for axis, name in zip(axes, ("side", "channels"), strict=True):
        _panel(axis, name, scaling[name])
    axes[0].set_title(f"{scaling['side']['channels']} channels", fontsize=11)
    side = scaling["channels"]["side"]
    axes[1].set_title(f"maps of {side} x {side}", fontsize=11)
    figure.suptitle(
        f"One call of the operator, kernel {scaling['kernel']}, padding {scaling['padding']}",
        fontsize=13,
    )
    figure.supxlabel(f"{machine}; exponents of the larger half", fontsize=8, color="0.4")
    try:
        figure.savefig(path, dpi=150)
    finally:
        plt.close(figure)


def _row(channels: int, side: int) -> Operator:
    return Operator("forward", 1, channels, side, _KERNEL, _PADDING)


def _along(
    values: Sequence[int], rows: Sequence[Operator], setup: Any, *, quick: bool
) -> dict[str, Any]:
    from benchmarks import operators

    ms: dict[str, list[float]] = {"ours": [], "reference": []}
    for row in rows:
        work = operators.build(row, replace(setup, compile=False))
        gc.collect()
        seconds = 0.3 if quick else 3.0
        turns = race(work.programs, seconds=seconds, min_rounds=3, max_rounds=20)
        for side, times in ms.items():
            # The shortest: a neighbor who takes a core in one point would bend the line.
            times.append(1e3 * min(turn.wall for turn in turns[side]))
    exponents = {side: exponent(values, times) for side, times in ms.items()}
    padded = [row.padded for row in rows]
    return {"values": list(values), "padded": padded, "ms": ms, "exponents": exponents}


def _panel(axis: Any, name: str, found: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = found["values"]
    for side, times in found["ms"].items():
        color, power = _COLOURS[side], found["exponents"][side]
        label = rf"{_NAMES[side]}, $\propto$ {name}$^{{\,{power:.2f}}}$"
        axis.plot(values, times, color=color, linewidth=1.8, label=label)
        for value, time, padded in zip(values, times, found["padded"], strict=True):
            face = "white" if name == "side" and _is_prime(padded) else color
            axis.plot(value, time, "o", color=color, markerfacecolor=face, markersize=6.5)
    if name == "side":
        axis.plot([], [], "o", color="0.4", mfc="white", label="padded side is prime")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(values, [str(v) for v in values])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(which="minor", length=0)
    axis.margins(y=0.12)
    axis.set_xlabel("side of the map in pixels" if name == "side" else "channels")
    axis.set_ylabel("milliseconds")
    axis.grid(True, color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))
