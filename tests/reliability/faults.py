"""Faults at a chosen file operation of a process, by Python's audit events.

As a command, `python -m tests.reliability.faults FOLDER NUMBER train|export ARGUMENTS`: the command
of this name, killed at the operation of this number in the folder; 0 kills nothing. At its end it
says on standard error how many operations there were.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_OPERATIONS = {
    *("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"),
    *("os.listdir", "os.scandir", "os.chmod", "os.utime"),
}


class FileOperations:
    """The operations on files in a folder, counted, with a fault before one of them."""

    def __init__(self, folder: Path) -> None:
        """Watch a folder from now on; a hook stays until the process ends."""
        self.count, self._at = 0, 0
        self._fault: Callable[[], None] = lambda: None
        self._folder = os.path.abspath(folder)
        sys.addaudithook(self._audit)
        synchronize = os.fsync

        def fsync(descriptor: int) -> None:  # of which there is no event: the data is written
            self._count()
            synchronize(descriptor)

        os.fsync = fsync  # type: ignore[assignment]

    def fail(self, at: int, fault: Callable[[], None]) -> None:
        """Count from 0 again, and call `fault` before the operation of this number, from 1."""
        self.count, self._at, self._fault = 0, at, fault

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _OPERATIONS and self._is_inside(event, arguments):
            self._count()

    def _count(self) -> None:
        self.count += 1
        if self.count == self._at:
            self._fault()

    def _is_inside(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:
            return True  # relative to an open folder, as shutil.rmtree does
        path = arguments[0]
        if not isinstance(path, str | os.PathLike):
            return False
        return os.path.abspath(path).startswith(self._folder)


def kill() -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the command."""
    folder, at, command, *arguments = sys.argv[1:]
    if command == "train":
        from train.__main__ import main as run
    else:
        from train.export import main as run
    operations = FileOperations(Path(folder))
    operations.fail(int(at), kill)
    status = run(arguments)
    print(f"operations: {operations.count}", file=sys.stderr, flush=True)
    os._exit(status)


if __name__ == "__main__":
    main()
