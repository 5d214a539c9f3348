"""Checkpoints: Orbax writes them in the background, with a checksum of every array.

Orbax renames a checkpoint into place once it is complete, so an interrupted one is never seen. It
does not notice later damage: it silently loads a flipped byte.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from converse_jax.messages import one_line
from train.checkpoint_files import read_details, read_psnr, signed, steps_in
from train.errors import TrainError, TrainStopped
from train.processes import barrier

CHECKPOINT_DIR = "checkpoints"
DAMAGED = "damaged"
_STATE_ITEM = "state"
# Errors that do not mean that the file is damaged.
_NOT_DAMAGE = ("ermission denied", "RESOURCE_EXHAUSTED", "ut of memory", "MemoryError")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, e.g. "params.body.0.expand1.kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def checksum(array: Any) -> int:
    """CRC-32 of an array that every device holds completely."""
    local = array.addressable_data(0) if isinstance(array, jax.Array) else array
    return zlib.crc32(np.ascontiguousarray(local).reshape(-1).view(np.uint8))


class Checkpoints:
    """The checkpoints of a run folder: the last few, and the best."""

    def __init__(self, run: Path, *, keep: int, read_only: bool = False) -> None:
        """Open the folder.

        Args:
            run: the run's folder.
            keep: how many of the latest checkpoints to keep, besides the one with the best `psnr`.
            read_only: change nothing: another process may be writing. Otherwise unfinished
                checkpoints are removed, and those that Orbax would stumble over put aside
                (`load_latest` says which).
        """
        self._run = run
        self._saving: Any = None
        self._failed = False
        self._put_aside_first: list[str] = []
        self.folder = (run / CHECKPOINT_DIR).absolute()
        self._checkpointer: Any = None
        if read_only:
            return
        if jax.process_index() == 0:
            for rest in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(rest, ignore_errors=True)
            for step in self.steps:
                if (problem := self._problem(step)) is not None:
                    self._put_aside_first.append(self._moved(step, problem))
        barrier("checkpoints inspected")
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            self.folder,
            # The loop decides when to save.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics["psnr"],
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
        )

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending."""
        return steps_in(self.folder)

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest PSNR, if any was measured."""
        measured: dict[int, float] = {}
        for step in self.steps:
            with contextlib.suppress(ValueError):  # damaged
                if (psnr := self.psnr(step)) is not None:
                    measured[step] = psnr
        return max(measured, key=lambda step: measured[step], default=None)

    def psnr(self, step: int) -> float | None:
        """PSNR measured at a step, if any.

        Raises:
            ValueError: it is damaged.
        """
        return read_psnr(self.folder / str(step))

    def save(self, step: int, state: Any, details: dict[str, Any], psnr: float | None) -> None:
        """Start saving; return as soon as the arrays may be overwritten.

        Args:
            step: names the checkpoint.
            state: a tree of arrays, each complete on every device.
            details: JSON-serializable values.
            psnr: PSNR of the held-out images, if measured at this step.

        Raises:
            TrainStopped: this checkpoint, or the one before it, cannot be written.
        """
        arrays = named_leaves(state)
        details = {**details, "checksums": {name: checksum(a) for name, a in arrays.items()}}
        measured = psnr is not None and np.isfinite(psnr)
        self.wait()
        self._saving = self._guarded(
            lambda: self._checkpointer.save_checkpointables_async(
                step,
                {_STATE_ITEM: arrays},
                force=True,
                metrics={"psnr": float(psnr)} if measured else None,  # type: ignore[arg-type]
                custom_metadata=signed(details),
            )
        )

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            TrainStopped: it cannot be written.
        """
        if self._saving is not None:
            saving, self._saving = self._saving, None
            self._guarded(saving.result)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            # Orbax and the libraries below it raise almost anything, with pages of text.
            reason, self._failed = _reason(error), True
            raise TrainStopped(
                f"{self.folder}: a checkpoint cannot be written ({reason}); earlier ones are "
                "intact: make room, then go on with --resume"
            ) from error

    def details(self, step: int) -> dict[str, Any]:
        """The `details` that `save` was given, and the checksums.

        Raises:
            ValueError: they are damaged.
            TrainError: permission is lacking.
        """
        try:
            return read_details(self.folder / str(step))
        except OSError as error:
            raise TrainError(
                f"{self.folder / str(step)}: cannot be read ({error.strerror})"
            ) from None

    def _problem(self, step: int) -> str | None:
        """What is wrong with the small files of a checkpoint, if anything."""
        try:
            self.details(step)
            self.psnr(step)
            ocp.checkpointables_metadata(self.folder / str(step))
        except TrainError:
            raise
        except Exception as error:
            reason = _reason(error)
            if any(sign in reason for sign in _NOT_DAMAGE):
                raise TrainError(f"{self.folder / str(step)}: cannot be read ({reason})") from None
            return reason
        return None

    def load(self, step: int, abstract: Any) -> Any:
        """The state of a step, with every array compared with its checksum.

        Args:
            step: one of `steps`.
            abstract: the tree of `jax.ShapeDtypeStruct`, with shardings on any devices.

        Raises:
            ValueError, TrainError: as for `load_arrays`.
        """
        wanted = named_leaves(abstract)
        arrays = self.load_arrays(step, wanted)
        return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[name] for name in wanted])

    def load_arrays(
        self, step: int, wanted: Mapping[str, jax.ShapeDtypeStruct] | None = None
    ) -> dict[str, jax.Array]:
        """The arrays of a step by name, each compared with its checksum.

        Args:
            step: one of `steps`.
            wanted: shapes and shardings by name; by default all, on the first device.

        Raises:
            ValueError: arrays are damaged; the message names one.
            TrainError: its arrays are not those wanted, or permission or memory is lacking.
        """
        path, checksums = self.folder / str(step), self.details(step)["checksums"]
        try:
            saved = ocp.checkpointables_metadata(path).metadata[_STATE_ITEM]
            if damaged := sorted(saved.keys() ^ checksums.keys()):
                raise ValueError(f"its arrays are not those written, e.g. {damaged[0]}")
            if wanted is None:
                here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
                wanted = {
                    name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=here)
                    for name, array in saved.items()
                }
            differing = sorted(wanted.keys() ^ checksums.keys())
            if differing:
                raise TrainError(
                    f"{path}: was written by another version, whose state "
                    f"differs in {', '.join(differing[:3])}; go on with that version"
                )
            item = {_STATE_ITEM: dict(wanted)}
            arrays: dict[str, jax.Array] = ocp.load_checkpointables(path, item)[_STATE_ITEM]
        except TrainError:
            raise
        except Exception as error:
            reason = _reason(error)
            if any(sign in reason for sign in _NOT_DAMAGE):
                raise TrainError(f"{path}: cannot be read ({reason})") from None
            raise ValueError(reason) from error
        wrong = [name for name, array in arrays.items() if checksum(array) != checksums[name]]
        if wrong:
            raise ValueError(f"{len(wrong)} arrays are not what was written, e.g. {wrong[0]}")
        return arrays

    def last_whole(
        self, warn: Callable[[str], None], steps: Sequence[int] | None = None
    ) -> tuple[int, dict[str, Any], dict[str, jax.Array]]:
        """The latest intact checkpoint: its step, details and arrays. Damaged ones stay in place.

        Args:
            warn: called with a message for each damaged one.
            steps: steps to consider, ascending; all by default.

        Raises:
            TrainError: none is intact, or permission or memory is lacking.
        """
        candidates = self.steps if steps is None else steps
        for step in reversed(candidates):
            try:
                return step, self.details(step), self.load_arrays(step)
            except ValueError as error:
                warn(f"checkpoint {step} is damaged: {error}")
        tried, there = (", ".join(map(str, x)) or "none is there" for x in (candidates, self.steps))
        raise TrainError(f"{self._run}: no whole checkpoint ({tried}); there are steps {there}")

    def load_latest(self, abstract: Any, warn: Callable[[str], None]) -> tuple[Any, int] | None:
        """The latest intact checkpoint and its step; damaged ones are moved aside with a warning.

        Raises:
            TrainError: there are checkpoints, and all are damaged.
        """
        for line in self._put_aside_first:
            warn(line)
        for step in reversed(self.steps):
            state, problem = None, "another process cannot read it"
            try:
                state = self.load(step, abstract)
            except ValueError as error:
                problem = str(error)
            if _all_processes(state is not None):
                return state, step
            warn(self._put_aside(step, problem))
        aside = self._run / DAMAGED
        # Also those moved earlier: a run that is restarted repeatedly must never start over
        # unasked.
        if aside.is_dir() and any(aside.iterdir()):
            raise TrainError(
                f"{self.folder}: all checkpoints are damaged (they are in {aside}); start over "
                "with --overwrite"
            )
        return None

    def _put_aside(self, step: int, problem: str) -> str:
        # Left in place, it would count as the latest, and good ones would be deleted in its favor.
        line = ""
        if jax.process_index() == 0:
            line = self._moved(step, problem)
        barrier(f"put aside {step}")
        self._checkpointer.reload()
        return line

    def _moved(self, step: int, problem: str) -> str:
        """Move a checkpoint to the damaged ones; the line that says so."""
        place = self._run / DAMAGED / str(step)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        os.replace(self.folder / str(step), place)
        return f"checkpoint {self.folder / str(step)} is damaged ({problem}): moved to {place}"

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # Report a failure only once, and never on top of another error.
        known = self._failed or error is not None
        with contextlib.suppress(TrainStopped) if known else contextlib.nullcontext():
            self.wait()
            if self._checkpointer is not None:
                self._guarded(self._checkpointer.close)


def _all_processes(fine: bool) -> bool:
    """Whether `fine` is true on every process."""
    if jax.process_count() == 1:
        return fine
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.asarray(fine))))


def _reason(error: BaseException) -> str:
    """The innermost cause of an error in one short line."""
    seen: set[int] = set()
    # One error raised again in several threads is its own context.
    while (cause := _cause(error)) is not None and id(cause) not in seen:
        seen.add(id(cause))
        error = cause
    line = one_line(error)
    if os.strerror(errno.ENOSPC) in line:
        return "no space left on the disk"
    return line if len(line) <= 200 else line[:200] + "..."


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
