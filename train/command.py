"""How the commands end: errors as one line on standard error, and the exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from converse_jax.messages import one_line
from train.errors import StoppedEarly, TrainError, TrainStopped, missing_package


def exit_status(
    prog: str,
    run: Callable[[], int],
    *,
    interrupted: str,
    mistakes: tuple[type[Exception], ...] = (),
) -> int:
    """What `run` returns, or the status of the error that it raised, which is said.

    Args:
        prog: the command's name, before each line.
        run: parses the arguments and does the work.
        interrupted: what is said of Ctrl-C.
        mistakes: errors besides `TrainError` that are the user's.
    """
    try:
        return run()
    except TrainError as error:
        line, status = f"error: {one_line(error)}", error.status
    except mistakes as error:
        line, status = f"error: {one_line(error)}", TrainError.status
    except StoppedEarly as stopped:
        line, status = str(stopped), stopped.status
    except ModuleNotFoundError as error:
        line, status = f"error: {missing_package(error)}", TrainError.status
    except KeyboardInterrupt:
        line, status = interrupted, 130
    print(f"{prog}: {line}", file=sys.stderr, flush=True)
    return status


def leave(status: int) -> NoReturn:
    """End the process; at once where threads of a run that was stopped are still at work.

    Those of a failed checkpoint would still print, and a compiler that is still at work crashes
    when the interpreter is taken down beneath it.
    """
    # Without JAX imported, a mistake in the command ended it, and no thread was started.
    processes = sys.modules.get("train.processes")
    if status == TrainStopped.status or (processes is not None and processes.left_behind()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
