"""The folder of a run: which run may write to it, and the configuration it was made with.

config.json  init.json  metrics.jsonl  events.*  checkpoints/STEP/  before_after.png  summary.md
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from converse_jax.atomic import is_leftover, lock
from converse_jax.messages import one_line
from train.checkpoint import CHECKPOINT_DIR, DAMAGED
from train.config import Config, differences
from train.errors import TrainError, TrainStopped
from train.json_file import write_object
from train.log import METRICS

CONFIG = "config.json"
INIT = "init.json"
BEFORE_AFTER = "before_after.png"
SUMMARY = "summary.md"
LOCK = "run.lock"

# These determine the shapes of the weights; everything else may change on resume.
_FIXED = ("model", "task.kind", "task.scale")


def check(
    run: Path, config: Config, *, resume: bool, overwrite: bool, say: Callable[[str], None]
) -> None:
    """Check whether this run may write to this folder; change nothing.

    Raises:
        TrainError: it is in use and neither flag was given, it is not a run's folder, or it holds a
            run of another network.
    """
    if resume and overwrite:
        raise TrainError("--resume, --overwrite: give one of them, or neither")
    if os.path.lexists(run) and not run.is_dir():
        raise TrainError(f"{run}: is a file; name another folder (--run)")
    # A process that was killed while it claimed the folder has written no configuration.
    if not run.is_dir() or all(
        p.name in (INIT, LOCK) or is_leftover(p.name) for p in run.iterdir()
    ):
        return
    saved = run / CONFIG
    if not saved.is_file():
        raise TrainError(
            f"{run}: holds files, but no {CONFIG}: it is not the folder of a run; name another "
            "(--run)"
        )
    if not resume and not overwrite:
        if not _has_lines(run) and not has_checkpoints(run) and not _changes(saved, config):
            return  # stopped before its first step
        raise TrainError(
            f"{run}: holds an earlier run; go on with it (--resume), delete it (--overwrite), or "
            "name another folder (--run)"
        )
    if resume:
        changes = _changes(saved, config)
        if not has_checkpoints(run):
            return  # no weights yet
        fixed = [change for change in changes if change.startswith(_FIXED)]
        if fixed:
            raise TrainError(
                f"{run}: its checkpoints are of another network: {'; '.join(fixed)}; resume with "
                "the values on the left, or name another folder (--run)"
            )
        for change in changes:
            say(f"from here on, {change}")


class Lock:
    """A run's folder as one process's own until it ends, however it ends.

    The file stays behind; what counts is the lock on it, which the system releases.
    """

    def __init__(self, run: Path) -> None:
        """Make the folder and lock it.

        Raises:
            TrainError: it is locked, or cannot be written to.
        """
        self._run = run
        try:
            run.mkdir(parents=True, exist_ok=True)
            self._file = (run / LOCK).open("ab")
        except OSError as error:
            raise _not_writable(run, error) from None
        try:
            lock(self._file)
        except BlockingIOError:
            self._file.close()
            raise TrainError(
                f"{run}: another process is training in it; wait until it ends, or name another "
                "folder (--run)"
            ) from None
        except OSError:  # a file system without locks
            pass

    def check(self) -> None:
        """Raise a TrainStopped if the folder is no longer the one that was locked.

        Orbax would go on to write checkpoints there, which no configuration belongs to.
        """
        try:
            there = os.path.samestat(os.stat(self._run / LOCK), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            there = False
        if not there:
            raise TrainStopped(
                f"{self._run}: was deleted, moved or replaced during the run; if it was moved, go "
                "on there (--run) with --resume"
            )

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _not_writable(run: Path, error: OSError) -> TrainError:
    return TrainError(f"{run}: cannot be written to ({error.strerror})")


def has_checkpoints(run: Path) -> bool:
    """Whether there are checkpoints to resume from, intact or damaged."""
    # Unfinished checkpoints have other names.
    folders = [*(run / CHECKPOINT_DIR).glob("*"), *(run / DAMAGED).glob("*")]
    return any(path.name.isdigit() for path in folders)


def others(run: Path) -> list[str]:
    """Names in the folder that no run writes."""
    ours = {CONFIG, INIT, METRICS, BEFORE_AFTER, SUMMARY, LOCK, CHECKPOINT_DIR, DAMAGED}
    names = (path.name for path in run.iterdir())
    return sorted(n for n in names if not (n in ours or _is_events(n) or is_leftover(n)))


def _is_events(name: str) -> bool:
    return name.startswith("events.out.tfevents.")


def read_init(run: Path) -> dict[str, Any] | None:
    """What `claim` recorded of the weights that the run started from, None for random ones."""
    try:
        init = json.loads((run / INIT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return init if isinstance(init, dict) else None


def _changes(saved: Path, config: Config) -> list[str]:
    parts: dict[str, Any] = {"model": config.model, "task": config.task}
    try:
        old = json.loads(saved.read_text(encoding="utf-8"))
        # What an earlier version did not know of them was as it is by default now.
        for name, part in parts.items():
            defaults = {f.name: f.default for f in fields(part) if f.default is not MISSING}
            old[name] = json.loads(json.dumps(defaults)) | old[name]
        return differences(old, config.to_dict())
    except (ValueError, AttributeError, KeyError, TypeError, OSError, RecursionError) as error:
        raise TrainError(f"{saved}: cannot be read ({one_line(error, 200)})") from None


def _has_lines(run: Path) -> bool:
    path = run / METRICS
    return path.is_file() and path.stat().st_size > 0


def claim(
    run: Path, config: Config, *, overwrite: bool, init: Mapping[str, Any] | None = None
) -> None:
    """Take over the folder for this run; called by one process, after `check`.

    Args:
        run: the folder.
        config: the run.
        overwrite: delete what an earlier run left.
        init: name and sha256 of the weights that it starts from.

    Raises:
        TrainError: it cannot be written to.
    """
    try:
        if overwrite and run.is_dir():
            for name in (CHECKPOINT_DIR, DAMAGED):
                shutil.rmtree(run / name, ignore_errors=True)
            # The configuration goes last: it is what marks a run's folder.
            events = [p.name for p in run.iterdir() if _is_events(p.name)]
            for name in (METRICS, BEFORE_AFTER, SUMMARY, *events, INIT, CONFIG):
                (run / name).unlink(missing_ok=True)
        run.mkdir(parents=True, exist_ok=True)
        if init is not None:
            write_object(run / INIT, init)
        elif not has_checkpoints(run):
            (run / INIT).unlink(missing_ok=True)  # from a run that never reached a checkpoint
        write_object(run / CONFIG, config.to_dict())
    except OSError as error:
        raise _not_writable(run, error) from None


def check_space(run: Path, checkpoint_bytes: int, checkpoints: int) -> None:
    """Raise a TrainError if the disk has no room for the checkpoints that will be kept.

    Args:
        run: the run's folder.
        checkpoint_bytes: size of one.
        checkpoints: how many there are at most at a time.
    """
    there = len(list((run / CHECKPOINT_DIR).glob("[0-9]*")))  # their space is reused
    place = next(p for p in (run.absolute(), *run.absolute().parents) if p.is_dir())
    needed = checkpoint_bytes * max(checkpoints - there, 1)
    free = shutil.disk_usage(place).free
    if free < needed:
        raise TrainError(
            f"{run}: the disk has {free / 1e6:.0f} MB free, {checkpoints} checkpoints need "
            f"{needed / 1e6:.0f} MB more; make room, or name a folder on another disk (--run)"
        )
