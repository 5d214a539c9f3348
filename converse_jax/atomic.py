"""Files that appear completely or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

_PREFIX = ".converse-"


def write_bytes(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write to a temporary file beside the path, then rename it in one step.

    A process that is killed meanwhile leaves that file, and the next that writes to the folder
    removes it.

    Args:
        path: the file to make; its folder must exist.
        data: its content.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: the file exists and `overwrite` is False, even if it was made meanwhile.
        OSError: it cannot be written.
    """
    remove_leftovers(path.parent)
    with _temporary_file(path.parent) as (temporary, file):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        if os.name == "nt":  # where an open file cannot be renamed
            file.close()
        if not overwrite:
            try:
                # Unlike a rename, a link never replaces what is there.
                os.link(temporary, path)
                return
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                if os.path.lexists(path):
                    raise FileExistsError(path) from None
        os.replace(temporary, path)


@contextlib.contextmanager
def _temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file, removed afterwards unless renamed, and locked: it is no leftover."""
    while True:
        # Not the target's name with a suffix, which may be too long.
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}.tmp"
        try:
            with open(path, "xb") as file:
                if _is_ours(file):
                    yield path, file
                    return
        finally:
            with contextlib.suppress(OSError):  # the first error says more
                path.unlink(missing_ok=True)


def _is_ours(file: BinaryIO) -> bool:
    """Lock a new file; whether nobody took it for a leftover before that."""
    try:
        lock(file)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return os.fstat(file.fileno()).st_nlink > 0


def lock(file: IO[Any]) -> None:
    """Lock an open file, until it is closed or the process ends, however it ends.

    Where there is no `flock` (Windows), nothing is locked.

    Raises:
        BlockingIOError: it is locked by another open file.
        OSError: the file system knows no locks.
    """
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# Once for each folder is enough: processes that are killed later are others' leftovers.
@functools.lru_cache(maxsize=1024)
def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left behind in a folder, which nobody has locked."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if is_leftover(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                    lock(file)
                    os.unlink(entry.path)


def is_leftover(name: str) -> bool:
    """Whether a file of this name was left by a `write_bytes` that was killed."""
    return name.startswith(_PREFIX) and name.endswith(".tmp")
