"""What a person sees, and what is kept of it: progress bar, metrics.jsonl, TensorBoard events."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

METRICS = "metrics.jsonl"


class Log:
    """Writes for process 0; the others keep silent."""

    def __init__(self, run: Path, *, start: int, steps: int, leader: bool) -> None:
        """Open the files, without the lines that a resumed run will write again.

        Args:
          run: the run's folder.
          start: steps done already.
          steps: in all.
          leader: whether this process writes.
        """
        self._leader = leader
        self._console = Console(stderr=True, quiet=not leader, highlight=False, soft_wrap=True)
        self._psnr = "-"
        if not leader:
            return
        self._lines = _open_lines(run / METRICS, start)
        self._events = _open_events(run, start)
        # In a log file a bar is noise: there are lines instead.
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  PSNR {task.fields[psnr]}"),
                TextColumn("{task.fields[rate]} images/s  left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(
                "train", total=steps, completed=start, loss="-", psnr="-", rate="-"
            )
            self._bar.start()
        self._steps = steps

    def say(self, line: str) -> None:
        """A line for the person."""
        self._console.print(line, markup=False)

    def step(self, step: int, loss: float, rate: float) -> None:
        """Move the bar."""
        if self._leader and self._bar is not None:
            self._bar.update(
                self._task, completed=step, loss=f"{loss:.4f}", rate=f"{rate:.1f}", psnr=self._psnr
            )

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record numbers of a step."""
        if not self._leader:
            return
        # JSON knows no NaN.
        finite = {k: (v if np.isfinite(v) else None) for k, v in values.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        if "psnr" in values:
            self._psnr = f"{values['psnr']:.2f}"
        if self._bar is None:
            text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.say(f"step {step}/{self._steps}  {text}")

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Record a picture, float32 ``[H, W, 3]`` in [0, 1]."""
        if self._leader:
            self._events.add_image(name, pixels, step, dataformats="HWC")

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        if self._leader:
            if self._bar is not None:
                self._bar.stop()
            self._events.close()
            self._lines.close()


def _open_lines(path: Path, start: int) -> Any:
    """Append to the lines up to a step: those after it belong to steps that are done again."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= start:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue  # the half line of a process that was killed
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)
    return path.open("a", encoding="utf-8")


def _open_events(run: Path, start: int) -> Any:
    from tensorboardX import SummaryWriter

    # Two writers of one second would take the same name, and one overwrite the other.
    suffix = f".{start}.{os.getpid()}"
    return SummaryWriter(str(run), purge_step=start + 1, filename_suffix=suffix)
