"""Training runs of the tables' rows: one folder each, resumable, with what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from converse_jax import __version__
from train.config import Args, Config
from train.data import host_batches, on_device, open_images
from train.errors import TrainError, TrainStopped
from train.export import export
from train.json_file import read_object, write_object
from train.log import METRICS
from train.loop import train
from train.measurements import sha256
from train.paper import Budget, Row, make_config, sized
from train.state import (
    FunctionalNetwork,
    batch_sharding,
    make_mesh,
    make_optimizer,
    make_state,
)
from train.step import jit_step, make_step


@dataclass(frozen=True)
class Experiment:
    """A row trained with a budget and a seed; rows of one configuration share it."""

    row: Row
    budget: Budget
    seed: int

    @property
    def key(self) -> str:
        """Name of its files."""
        model = sized(self.row.model, self.budget)
        task: Any = self.row.task
        described = [type(model).__name__, asdict(model), type(task).__name__, asdict(task)]
        text = json.dumps([*described, asdict(self.budget)], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{type(model).architecture}-{digest}-seed{self.seed}"


class Experiments:
    """Runs in a folder: `KEY/` the run, `KEY.json` its record, `KEY.safetensors` its weights."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which need not exist."""
        self.folder = folder

    def weights(self, experiment: Experiment) -> Path:
        """Where its weights lie once it is done."""
        return self.folder / f"{experiment.key}.safetensors"

    def digest(self, experiment: Experiment) -> str | None:
        """Hash of its weights, which may lie elsewhere (`take`); None while it is not done."""
        weights = self.weights(experiment)
        if weights.is_file():
            return sha256(weights)
        return (self.record(experiment) or {}).get("sha256")

    def take(self, experiment: Experiment, result: dict[str, Any]) -> None:
        """Take over a run that was done elsewhere, as results.json tells it."""
        path = self._record_file(experiment)
        if not path.exists():
            known = {k: v for k, v in result.items() if k not in ("run", "done", "sets")}
            write_object(path, known)

    def record(self, experiment: Experiment) -> dict[str, Any] | None:
        """What is recorded of it, None if it was never started."""
        path = self._record_file(experiment)
        return read_object(path) if path.is_file() else None

    def steps_done(self, experiment: Experiment) -> int:
        """Steps in its log."""
        lines = self._lines(experiment)
        known = {} if lines else self.record(experiment) or {}
        return max((line["step"] for line in lines), default=known.get("steps_done", 0))

    def hours(self, experiment: Experiment) -> float:
        """Time of its steps at their median: measuring, compiling and halts are left out."""
        record, lines = self.record(experiment) or {}, self._lines(experiment)
        if not lines:
            return float(record.get("hours", 0.0))
        rate = statistics.median(line["images_per_second"] for line in lines)
        steps = max(line["step"] for line in lines)
        return steps * record.get("batch_size", 0) / rate / 3600

    def budgets(self) -> list[Budget]:
        """All budgets with which something was started, in the order of their labels."""
        records = [read_object(path) for path in sorted(self.folder.glob("*.json"))]
        found = {Budget(**record["budget"]) for record in records}
        return sorted(found, key=lambda budget: (not budget.full, budget.label))

    def seeds(self, row: Row, budget: Budget) -> list[int]:
        """The seeds with which a row was started."""
        prefix = Experiment(row, budget, 0).key.removesuffix("0")
        found = (p.stem.removeprefix(prefix) for p in self.folder.glob(f"{prefix}*.json"))
        return sorted(int(seed) for seed in found if seed.isdigit())

    def _record_file(self, experiment: Experiment) -> Path:
        return self.folder / f"{experiment.key}.json"

    def _lines(self, experiment: Experiment) -> list[dict[str, Any]]:
        path = self.folder / experiment.key / METRICS
        if not path.is_file():
            return []
        lines = []
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(text))
            except (ValueError, RecursionError):
                continue  # half a line, of a process that was killed
        return lines

    def run(
        self, experiment: Experiment, sources: tuple[str, ...], say: Callable[[str], None]
    ) -> int:
        """Train it, or what is left of it, and export its weights.

        Returns:
            The exit status of the training.

        Raises:
            TrainError: it cannot be trained so, or its data were others; it is recorded where the
                training itself failed.
        """
        row, budget = experiment.row, experiment.budget
        record = self.record(experiment)
        probe = make_config(row, budget, steps=2, seed=experiment.seed, train=sources)
        data = describe_data(probe)
        if record is None:
            steps = budget.steps
            if budget.minutes is not None and steps is None:
                seconds = seconds_per_step(probe)
                steps = max(20, int(budget.minutes * 60 / seconds))
                say(f"{experiment.key}: {seconds:.3g} s a step, {steps} steps")
            record = {
                "budget": asdict(budget),
                "seed": experiment.seed,
                "architecture": row.model.architecture,
                "steps": steps,
                "data": data,
                "starts": [],
            }
        if record["data"]["sha256"] != data["sha256"]:
            raise TrainError(
                f"{self.folder / experiment.key}: was trained on other images "
                f"({', '.join(record['data']['sources'])}); give these (--train), or another "
                "folder (--out)"
            )
        config = make_config(
            row, budget, steps=record["steps"], seed=experiment.seed, train=sources
        )
        record |= {"steps": config.steps, "batch_size": config.batch_size}
        record["starts"].append(provenance())
        record.pop("failed", None)
        path = self._record_file(experiment)
        write_object(path, record)
        say(f"{row.label}, {budget.label}, seed {experiment.seed}: {experiment.key}")
        folder = self.folder / experiment.key
        try:
            status = train(Args(config=config, run=folder, resume=True))
        except TrainStopped as error:
            write_object(path, record | {"failed": str(error)})
            raise
        if status == 0:
            export(folder, self.weights(experiment), overwrite=True)
        return status


def seconds_per_step(config: Config, *, steps: int = 12) -> float:
    """Median time of a training step of a configuration on these devices, data included."""
    images, _ = open_images(config, lambda _: None)
    mesh = make_mesh()
    network, optimizer = FunctionalNetwork(config), make_optimizer(config.optimizer, config.steps)
    state = make_state(network, optimizer, mesh)
    step = jit_step(make_step(config, network, optimizer), mesh)
    times = []
    longer = Config(**{**vars(config), "steps": steps + 2})
    with host_batches(longer, images) as host:
        for batch in on_device(host, batch_sharding(mesh)):
            before = time.perf_counter()
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - before)
    return statistics.median(times[2:])  # the first compiles


def describe_data(config: Config) -> dict[str, Any]:
    """Sources, number and hash of the training images: of their names and sizes in pixels."""
    images, _ = open_images(config, lambda _: None)
    names = [
        [os.path.basename(images.name(i)), *map(int, size)] for i, size in enumerate(images.sizes())
    ]
    digest = hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()
    return {"sources": list(config.data.train), "images": len(names), "sha256": digest}


def provenance() -> dict[str, str]:
    """Date, commit, versions and hardware of this start."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": f"converse-jax {__version__}, jax {jax.__version__}",
        "hardware": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {_processor()}",
    }


def _commit() -> str:
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {os.cpu_count()} cores"
