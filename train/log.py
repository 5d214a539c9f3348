"""What the user sees and what is kept: progress bar, metrics.jsonl, TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
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
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from converse_jax.atomic import write_bytes
from converse_jax.imaging import to_uint8
from converse_jax.messages import printable
from train.errors import TrainStopped

METRICS = "metrics.jsonl"


class Log:
    """The log of process 0; the other processes are silent."""

    def __init__(
        self, run: Path, *, start: int, steps: int, leader: bool, psnr: str = "psnr"
    ) -> None:
        """Open the files, dropping the lines that a resumed run will write again.

        Args:
            run: the run's folder.
            start: steps done already.
            steps: total steps of the run.
            leader: whether this process writes.
            psnr: name of the value that the bar shows, "psnr" or "psnr_y" (of luma).

        Raises:
            TrainStopped: the folder cannot be written to.
        """
        self._psnr_name = psnr
        self._leader, self._run = leader, run
        self._console = Console(stderr=True, quiet=not leader, highlight=False, soft_wrap=True)
        self._psnr = "-"
        if not leader:
            return
        try:
            self._open(run, start)
        except OSError as error:
            raise TrainStopped(f"{run}: cannot be written to ({error.strerror})") from None
        # A bar would be noise in a log file, which gets lines instead.
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(
                    "loss {task.fields[loss]}  " + psnr_label(psnr) + " {task.fields[psnr]}"
                ),
                TextColumn("{task.fields[rate]} images/s  left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(
                "train", total=steps, completed=start, loss="-", psnr="-", rate="-"
            )
            self._bar.start()
        self._steps = steps

    def _open(self, run: Path, start: int) -> None:
        self._lines = _open_lines(run / METRICS, start)
        # Two writers started in the same second would use one name, and overwrite each other.
        suffix = f".{start}.{os.getpid()}"
        # The part of tensorboardX that writes at once: its queue and thread would hide a full disk.
        self._events = EventsWriter(str(run / "events"), suffix)
        restart = SessionLog(status=SessionLog.START)
        self._event(start + 1, session_log=restart)  # readers forget later steps seen before

    def say(self, line: str) -> None:
        """Show a line."""
        self._console.print(printable(line), markup=False)

    def step(self, step: int, loss: float, rate: float) -> None:
        """Move the bar."""
        if self._leader and self._bar is not None:
            self._bar.update(
                self._task, completed=step, loss=f"{loss:.4f}", rate=f"{rate:.1f}", psnr=self._psnr
            )

    def metrics(
        self, step: int, values: dict[str, float], images: Mapping[str, np.ndarray]
    ) -> None:
        """Record the metrics of a step.

        Args:
            step: steps done.
            values: numbers by name.
            images: float32 `[H, W, 3]` in [0, 1] by name; for the events only.

        Raises:
            TrainStopped: the files cannot be written.
        """
        if not self._leader:
            return
        if self._psnr_name in values:
            self._psnr = f"{values[self._psnr_name]:.2f}"
            if self._bar is not None:
                self._bar.update(self._task, psnr=self._psnr)
        if self._bar is None:
            text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.say(f"step {step}/{self._steps}  {text}")
        # JSON has no NaN.
        finite = {k: (v if np.isfinite(v) else None) for k, v in values.items()}
        try:
            self._lines.write(json.dumps({"step": step, **finite}) + "\n")
            self._lines.flush()
            for name, value in values.items():
                self._event(step, summary=summary.scalar(name, value))
            for name, pixels in images.items():
                self._event(step, summary=summary.image(name, to_uint8(pixels), dataformats="HWC"))
            self._events.flush()
        except OSError as error:
            raise TrainStopped(
                f"{self._run}: {METRICS} and the events cannot be written ({error.strerror}); the "
                "checkpoints are intact: fix this, then go on with --resume"
            ) from None

    def _event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        if self._leader:
            if self._bar is not None:
                self._bar.stop()
            # Closing flushes; a write error has been reported by then.
            for file in (self._events, self._lines):
                with contextlib.suppress(OSError):
                    file.close()


def psnr_label(name: str) -> str:
    """The name of a PSNR for the user: "PSNR", or "PSNR (Y)" on luma."""
    return {"psnr": "PSNR", "psnr_y": "PSNR (Y)"}[name]


def _open_lines(path: Path, start: int) -> Any:
    """Open for appending, without the lines after `start`, whose steps are done again."""
    kept = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                if json.loads(line)["step"] <= start:
                    kept.append(line + b"\n")
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # an incomplete line of a process that was killed, or damage
    write_bytes(path, b"".join(kept), overwrite=True)
    return path.open("a", encoding="utf-8")
