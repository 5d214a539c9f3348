"""Files that appear completely or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_PREFIX = ".converse-"


def write_bytes(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write to a temporary file beside the path, then rename it in one step.

    Args:
        path: the file to make; its folder must exist.
        data: its content.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: the file exists and `overwrite` is False, even if it was made meanwhile.
        OSError: it cannot be written.
    """
    # Not the target's name with a suffix, which may be too long.
    temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
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
    finally:
        with contextlib.suppress(OSError):  # the first error says more
            temporary.unlink(missing_ok=True)


def is_leftover(name: str) -> bool:
    """Whether a file of this name was left by a `write_bytes` that was killed."""
    return name.startswith(_PREFIX) and name.endswith(".tmp")
