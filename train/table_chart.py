"""A chart of each table: points over seeds, by row, test set and budget."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from train.measurements import Figures
from train.paper import ROWS, Row
from train.table_report import Report, chart_name


def draw_table(report: Report, table: int) -> None:
    """A column of panels for each set; full size with the paper's figures, then each budget."""
    from matplotlib import pyplot as plt

    rows = [row for row in ROWS if row.table == table]
    full = _points(rows, [report.of_authors(row) for row in rows])
    series = {"full size": {"authors' weights": full} if full else {}}
    for budget in report.experiments.budgets():
        seeds = [list(report.of_seeds(row, budget).values()) for row in rows]
        points: Points = {}
        for k in range(max(map(len, seeds))):
            of_seed = [figures[k] if k < len(figures) else {} for figures in seeds]
            for name, found in _points(rows, of_seed).items():
                points.setdefault(name, []).extend(found)
        if points:
            series.setdefault(budget.label, {})["ours"] = points
    if not any(series.values()):
        return
    measured = {name for drawn in series.values() for points in drawn.values() for name in points}
    names = [
        name for name in dict.fromkeys(n for row in rows for n in row.paper) if name in measured
    ]
    shape = (len(series), len(names))
    width = max(3.0, 0.45 * len(rows) + 1.2)
    size = (width * shape[1], 2.4 * shape[0] + 1.6)
    figure, axes = plt.subplots(
        *shape, figsize=size, squeeze=False, layout="constrained", sharex=True
    )
    for line, (label, drawn) in zip(axes, series.items(), strict=True):
        line[0].set_ylabel(f"{label}\nPSNR (dB)")
        for axis, name in zip(line, names, strict=True):
            if label == "full size":
                paper = [(i, row.paper[name]) for i, row in enumerate(rows) if name in row.paper]
                axis.plot(*zip(*paper, strict=True), "x", color="0.4", label="paper")
            for who, points in drawn.items():
                _panel(axis, points.get(name, []), who)
            if not axis.lines:
                axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center", color="0.4")
                axis.set_yticks([])
            axis.set_xticks(range(len(rows)), [row.name for row in rows], rotation=60, ha="right")
            axis.grid(axis="y", alpha=0.3)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name)
    columns = min(3, int(size[0] // 1.5))
    figure.legend(*_handles(axes.flat), loc="outside lower center", ncols=columns, fontsize="small")
    figure.savefig(report.out / chart_name(table), dpi=150)
    plt.close(figure)


Points = dict[str, list[tuple[int, float]]]
"""By set: number of the row, PSNR."""


def _points(rows: Sequence[Row], figures: Sequence[dict[str, Figures]]) -> Points:
    points: Points = {}
    for i, (row, sets) in enumerate(zip(rows, figures, strict=True)):
        for name in row.paper:
            if name in sets:
                points.setdefault(name, []).append((i, sets[name].psnr))
    return points


def _panel(axis: Any, points: Sequence[tuple[int, float]], who: str) -> None:
    """A point for each seed, and their mean."""
    if not points:
        return
    color = {"ours": "C0", "authors' weights": "C1"}[who]
    axis.plot(*zip(*points, strict=True), "o", color=color, alpha=0.6, markersize=4, label=who)
    means = {i: statistics.fmean(y for x, y in points if x == i) for i, _ in points}
    axis.plot(*zip(*means.items(), strict=True), "_", color=color, markersize=14)


def _handles(axes: Iterable[Any]) -> tuple[list[Any], list[str]]:
    """Each label once, over all panels."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
