"""How the commands end: errors as one line on standard error, and the exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from converse_jax.messages import one_line
from train.errors import StoppedEarly, TrainError, missing_package


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
