"""The tables as they stand: results.json, tables.md, and a chart of each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from converse_jax import WeightsError, load
from converse_jax.messages import one_line
from converse_jax.weights import weights_file
from train.errors import TrainError
from train.experiments import Experiment, Experiments
from train.json_file import read_object, write_object, write_text
from train.measurements import Figures, Measurements, sha256
from train.paper import ROWS, TITLES, Budget, Row, sized

NOT_RUN = "not run"


class Report:
    """What there is of every row, and its files."""

    def __init__(self, experiments: Experiments, measurements: Measurements, out: Path) -> None:
        """Take the runs, the figures, and the folder to write to, which need not exist."""
        self.experiments, self.measurements, self.out = experiments, measurements, out
        self._authors_file = out / "authors.json"
        self._authors: dict[str, dict[str, str]] = {}
        if self._authors_file.is_file():
            self._authors = read_object(self._authors_file)
        self._take(out / "results.json")

    def _take(self, path: Path) -> None:
        """Take over what results.json holds of runs and figures that were made elsewhere."""
        if not path.is_file():
            return
        try:
            known = {(kept["table"], kept["row"]): kept for kept in read_object(path)["rows"]}
            for row in ROWS:
                kept = known.get((row.table, row.label), {"ours": [], "authors": None})
                for run in kept["ours"]:
                    if run["done"]:
                        experiment = Experiment(row, Budget(**run["budget"]), run["seed"])
                        self.experiments.take(experiment, run)
                        self.measurements.take(run["sha256"], run["sets"])
                if (of := kept["authors"]) is not None:
                    weights = {"file": of["file"], "path": "", "sha256": of["sha256"]}
                    self._authors.setdefault(row.authors or "", weights)
                    self.measurements.take(of["sha256"], of["sets"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise TrainError(
                f"{path}: holds no results ({type(error).__name__}: {one_line(error, 200)}); "
                "move it away"
            ) from None

    def add_authors(self, files: Sequence[str]) -> None:
        """Take weight files of the authors.

        Raises:
            TrainError: one cannot be read, or belongs to no row.
        """
        known = {row.authors for row in ROWS if row.authors}
        for file in files:
            try:
                _, card = load(file)
            except WeightsError as error:
                raise TrainError(f"--authors: {error}") from None
            if card.architecture not in known:
                raise TrainError(
                    f"--authors: {file} is a {card.architecture}; expected one of "
                    f"{', '.join(sorted(known))}"
                )
            path = weights_file(file)
            self._authors[card.architecture] = {
                "file": path.name,
                "path": str(path.resolve()),
                "sha256": sha256(path),
            }
        if files:
            write_object(self._authors_file, self._authors)

    def authors_weights(self, row: Row) -> Path | None:
        """The authors' file of a row, if it was given and still lies there."""
        known = self._authors.get(row.authors or "")
        return Path(known["path"]) if known and Path(known["path"]).is_file() else None

    def of_authors(self, row: Row) -> dict[str, Figures]:
        """Figures of the authors' weights by set."""
        known = self._authors.get(row.authors or "")
        return {} if known is None else self.measurements.of(known["sha256"])

    def of_seeds(self, row: Row, budget: Budget) -> dict[int, dict[str, Figures]]:
        """Figures of our weights by seed and set, of the runs that are done."""
        found = {}
        for seed in self.experiments.seeds(row, budget):
            digest = self.experiments.digest(Experiment(row, budget, seed))
            if digest is not None:
                found[seed] = self.measurements.of(digest)
        return found

    def state(self, row: Row, budget: Budget) -> str:
        """How far the runs of a row are, in words."""
        seeds = self.experiments.seeds(row, budget)
        words = []
        for seed in seeds:
            experiment = Experiment(row, budget, seed)
            record = self.experiments.record(experiment) or {}
            if self.experiments.digest(experiment) is not None:
                words.append("done")
            elif "failed" in record:
                words.append("failed")
            else:
                words.append(f"{self.experiments.steps_done(experiment)} of {record['steps']}")
        if not words:
            return NOT_RUN
        named = (f"{word} (seed {seed})" for seed, word in zip(seeds, words, strict=True))
        return words[0] if len(words) == 1 else ", ".join(named)

    def write(self) -> None:
        """Write results.json and tables.md."""
        results = {"rows": [self._result(row) for row in ROWS]}
        write_object(self.out / "results.json", results)
        write_text(self.out / "tables.md", markdown(self))

    def _result(self, row: Row) -> dict[str, Any]:
        authors = self.of_authors(row)
        ours = []
        for budget in self.experiments.budgets():
            for seed in self.experiments.seeds(row, budget):
                experiment = Experiment(row, budget, seed)
                record = self.experiments.record(experiment) or {}
                digest = self.experiments.digest(experiment)
                figures = {} if digest is None else self.measurements.of(digest)
                ours.append(
                    {
                        "budget": budget.label,
                        "run": experiment.key,
                        **record,
                        "done": digest is not None,
                        "steps_done": self.experiments.steps_done(experiment),
                        "hours": round(self.experiments.hours(experiment), 8),
                        "sha256": digest,
                        "sets": {name: _shown(f) for name, f in figures.items()},
                    }
                )
        known = self._authors.get(row.authors or "")
        return {
            "table": row.table,
            "row": row.label,
            "paper": row.paper,
            "note": row.note,
            "authors": None
            if known is None
            else {
                "file": known["file"],
                "sha256": known["sha256"],
                "sets": {n: _shown(f) for n, f in authors.items() if n in row.paper},
            },
            "ours": ours,
        }

    def draw(self) -> list[str]:
        """Draw a chart of each table that has figures; return what to tell the user."""
        try:
            import matplotlib
        except ModuleNotFoundError:
            return ['no charts: matplotlib is not installed (pip install -e ".[figures]")']
        matplotlib.use("agg")
        from train.table_chart import draw_table

        for table in sorted(TITLES):
            draw_table(self, table)
        return [f"{self.out}: results.json, tables.md and charts"]


def chart_name(table: int) -> str:
    """File name of the chart of a table."""
    return f"table{table}.png"


def _shown(figures: Figures) -> dict[str, Any]:
    return {
        "psnr": figures.psnr,
        "ssim": figures.ssim,
        "of": figures.of,
        "protocol": figures.protocol,
        "images": figures.images,
    }


def listing(report: Report, rows: Sequence[Row]) -> str:
    """A line for each row: the paper's first figure, the authors' weights, and our runs."""
    budgets = report.experiments.budgets()
    head = ["table", "row", "paper", "authors' weights", *(b.label for b in budgets)]
    lines = [head]
    for row in rows:
        first = next(iter(row.paper))
        authors = report.of_authors(row)
        measured = [name for name in row.paper if name in authors]
        lines.append(
            [
                str(row.table),
                row.label,
                f"{row.paper[first]:.2f} {first}",
                f"{len(measured)} of {len(row.paper)} sets" if row.authors else "none released",
                *(report.state(row, budget) for budget in budgets),
            ]
        )
    if not budgets:
        lines = [[*line, "ours" if i == 0 else NOT_RUN] for i, line in enumerate(lines)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(report: Report) -> str:
    """All tables."""
    return "\n".join(
        ["# The paper's tables, PSNR in dB", "", *(_table(report, table) for table in TITLES)]
    )


def _table(report: Report, table: int) -> str:
    rows = [row for row in ROWS if row.table == table]
    # At full size there is always a column, which says that nothing was run.
    budgets = [
        budget
        for budget in report.experiments.budgets()
        if not budget.full and any(report.experiments.seeds(row, budget) for row in rows)
    ]
    columns = [Budget(), *budgets]
    head = ["row", "set", "paper", "authors' weights, measured here"]
    head += [f"ours, {budget.label}" for budget in columns]
    lines = [f"## Table {table}. {TITLES[table]}", ""]
    if (report.out / chart_name(table)).is_file():
        lines += [f"![Table {table}, drawn]({chart_name(table)})", ""]
    lines += [*_line(head), "|" + "---|" * len(head)]
    ours = {(row.label, budget): report.of_seeds(row, budget) for row in rows for budget in columns}
    notes = {row.note: f"({i})" for i, row in enumerate([r for r in rows if r.note], 1)}
    for row in rows:
        authors = report.of_authors(row)
        for name, paper in row.paper.items():
            mark = f" {notes[row.note]}" if row.note else ""
            cells = [row.label + mark, name, f"{paper:.2f}"]
            cells.append(
                _cell([authors[name]]) if name in authors else NOT_RUN if row.authors else "none"
            )
            for budget in columns:
                figures = [sets[name] for sets in ours[row.label, budget].values() if name in sets]
                cells.append(_cell(figures) if figures else _without(report, row, budget))
            lines += _line(cells)
    lines += ["", *(f"{mark} {note}." for note, mark in notes.items())]
    lines += _orders(rows, columns, ours)
    lines += _costs(report, rows, columns)
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def _without(report: Report, row: Row, budget: Budget) -> str:
    state = report.state(row, budget)
    return "not measured" if "done" in state else state


def _cell(figures: Sequence[Figures]) -> str:
    """Mean, and spread over seeds; how many images, if not all."""
    means = [f.psnr for f in figures]
    text = f"{statistics.fmean(means):.2f}"
    if len(means) > 1:
        text += f" ± {statistics.stdev(means):.2f} ({len(means)} seeds)"
    measured, of = min(len(f.images) for f in figures), figures[0].of
    return text if measured == of else f"{text} ({measured} of {of} images)"


Ours = dict[tuple[str, Budget], dict[int, dict[str, Figures]]]


def _orders(rows: Sequence[Row], budgets: Sequence[Budget], ours: Ours) -> list[str]:
    """Where our order of the rows that were run is the paper's, and where not."""
    lines = []
    for part in dict.fromkeys((row.part, tuple(row.paper)) for row in rows):
        compared = [row for row in rows if (row.part, tuple(row.paper)) == part]
        for budget in budgets:
            for name in part[1]:
                found = {
                    row.name: [s[name].psnr for s in ours[row.label, budget].values() if name in s]
                    for row in compared
                }
                found = {row: values for row, values in found.items() if values}
                if len(found) > 1:
                    lines.append(_order(compared, budget, name, found))
    return ["", *(f"- {line}" for line in lines)] if lines else []


def _order(rows: Sequence[Row], budget: Budget, name: str, found: dict[str, list[float]]) -> str:
    mean = {row: statistics.fmean(values) for row, values in found.items()}
    paper = {row.name: row.paper[name] for row in rows if row.name in found}
    pairs = [(a, b) for a in paper for b in paper if paper[a] > paper[b]]
    others = [(a, b) for a, b in pairs if mean[b] - mean[a] >= 0.005]
    some = "" if len(found) == len(rows) else f", the {len(found)} rows that were run"
    part = f"{rows[0].part}, " if rows[0].part else ""
    place = f"{part}{name}, {budget.label}{some}"
    if not others:
        return f"{place}: the order is the paper's."
    listed = [f"{b} {mean[b] - mean[a]:.2f} dB above {a}" for a, b in others]
    seeds = min(map(len, found.values()))
    spread = ""
    if seeds > 1:
        widest = max(statistics.stdev(values) for values in found.values())
        spread = f"; the spread over seeds is up to {widest:.2f} dB"
    return f"{place}: the order differs from the paper's: {', '.join(listed)}{spread}."


def _costs(report: Report, rows: Sequence[Row], budgets: Sequence[Budget]) -> list[str]:
    """What a run took, on average: equal steps are not equal times."""
    lines = []
    for row in rows:
        for budget in budgets:
            runs = [Experiment(row, budget, s) for s in report.experiments.seeds(row, budget)]
            steps = [report.experiments.steps_done(run) for run in runs]
            if not any(steps):
                continue
            hours = [report.experiments.hours(run) for run in runs]
            cells = [row.label, budget.label, f"{_parameters(row, budget):,}", str(len(runs))]
            cells += [f"{statistics.fmean(steps):.0f}", f"{60 * statistics.fmean(hours):.1f}"]
            lines += _line([*cells, f"{3600 * sum(hours) / sum(steps):.3f}"])
    if not lines:
        return []
    head = ["row", "budget", "parameters", "runs", "steps", "minutes", "seconds a step"]
    return ["", *_line(head), "|" + "---|" * len(head), *lines]


def _parameters(row: Row, budget: Budget) -> int:
    import jax
    import jax.numpy as jnp

    model = sized(row.model, budget)

    def build() -> nnx.Module:
        return model.build(
            row.task.scale, dtype=jnp.dtype("float32"), remat=False, rngs=nnx.Rngs(0)
        )

    return sum(x.size for x in jax.tree.leaves(nnx.state(nnx.eval_shape(build), nnx.Param)))
