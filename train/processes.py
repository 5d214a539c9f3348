"""One process or several: joining, synchronizing, and stopping on request."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import TypeVar

import jax

from converse_jax.messages import one_line
from train.errors import StoppedEarly, TrainError

T = TypeVar("T")
_THREAD = "train: interruptible"

PREEMPTED = 75
"""Exit status after SIGTERM: saved, to be resumed (EX_TEMPFAIL of sysexits.h)."""

INTERRUPTED = 130
"""Exit status after Ctrl-C: saved, to be resumed."""


def initialize_distributed(asked: bool) -> None:
    """Join several processes if a flag or the environment says so.

    Where JAX does not recognize the cluster (Slurm, Open MPI, Cloud TPU, Kubernetes) by itself, the
    variables JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID
    identify the processes.

    Raises:
        TrainError: the variables are incomplete, or the other processes cannot be reached.
    """
    if not asked and "JAX_COORDINATOR_ADDRESS" not in os.environ:
        return
    try:
        jax.distributed.initialize(
            num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID")
        )
    except (ValueError, RuntimeError) as error:
        reason = one_line(error, 300)
        raise TrainError(
            f"--distributed: the processes cannot be joined ({reason}); set "
            "JAX_COORDINATOR_ADDRESS=host:port of process 0, JAX_NUM_PROCESSES and JAX_PROCESS_ID "
            "on each, unless the cluster is one that JAX knows"
        ) from None


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise TrainError(f"{name}: got {text!r}; expected an integer") from None


def barrier(name: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def left_behind() -> bool:
    """Whether an abandoned thread is still working, which the process must not wait for."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


class StopSignal:
    """Whether this run was asked to stop, by SIGTERM (pre-emption) or Ctrl-C.

    With several processes JAX itself catches SIGTERM and makes them agree on the step; Ctrl-C is
    forwarded as SIGTERM.
    """

    def __init__(self) -> None:
        """Install the signal handlers."""
        self._status: int | None = None
        self._alone = jax.process_count() == 1
        # JAX has put its own handler of SIGTERM in place when there are several processes.
        self._before = {signal.SIGINT: signal.signal(signal.SIGINT, self._asked)}
        if self._alone:
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._status is not None:  # asked twice: stop at once
            raise KeyboardInterrupt
        self._status = INTERRUPTED if number == signal.SIGINT else PREEMPTED
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
        # Not print, which may be what was interrupted.
        os.write(2, b"asked to stop: finishing the step (ask again to stop at once)\n")

    def interruptible(self, work: Callable[[], T]) -> T:
        """Return `work()`, run in a thread: a compiler ignores signals, but this thread does not.

        With several processes it is called directly: they can only stop together, after a step.

        Raises:
            StoppedEarly: asked to stop meanwhile; the thread is left behind, so the process must
                end without waiting for it.
        """
        if not self._alone:
            return work()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=run, name=_THREAD, daemon=True).start()
        # Short waits: not every system wakes a waiting thread when the process gets a signal.
        while self._status is None:
            with contextlib.suppress(TimeoutError):
                return done.result(timeout=0.1)
            if done.done():  # a TimeoutError of the work itself
                return done.result()
        raise StoppedEarly(self._status)

    def status(self, step: int) -> int | None:
        """The exit status to stop with after this step, if any; the same on every process."""
        if self._alone:
            return self._status
        from jax.experimental import multihost_utils

        if multihost_utils.reached_preemption_sync_point(step):
            return PREEMPTED
        return None

    def __enter__(self) -> StopSignal:
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
