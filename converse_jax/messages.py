"""What is said on a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def printable(text: str) -> str:
    """The text with control characters escaped: a name in a file must not command the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(line: str) -> None:
    """Tell the user, on standard error."""
    print(printable(line), file=sys.stderr, flush=True)


def one_line(error: BaseException, limit: int | None = None) -> str:
    """An error's text as one line of at most `limit` characters; its type's name if it has none."""
    return printable(" ".join(str(error).split()) or type(error).__name__)[:limit]


def exists_already(path: str | os.PathLike[str]) -> str:
    """What is said of a file that would have to be replaced."""
    return f"{path}: exists already; name another file, or overwrite it (--overwrite)"


def no_folder(path: str | os.PathLike[str]) -> str:
    """What is said of a file whose folder does not exist."""
    return f"{path}: there is no folder {Path(path).parent}; create it first"


def cannot_be_written(path: str | os.PathLike[str], error: OSError) -> str:
    """What is said of a file that the system does not let us write."""
    return f"{path}: cannot be written ({error.strerror}); check the folder and its free space"
