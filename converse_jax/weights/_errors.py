"""Errors that the readers of weights share."""

from collections.abc import Sequence
from pathlib import Path

from converse_jax.messages import printable

ASK_STATE_DICT = "ask for a file saved with torch.save(model.state_dict(), ...)"
ASK_AGAIN = "the file is damaged or was altered, fetch it again"


class WeightsError(ValueError):
    """A weights file was refused: one line with the file, what was found, and what to do."""


def check_file(path: Path) -> None:
    """Raise a WeightsError unless `path` is a regular file with something in it."""
    if not path.exists():
        raise WeightsError("no such file: check the path")
    if path.is_dir():
        raise WeightsError("is a folder: name the weights file inside it")
    if not path.is_file():  # a named pipe would block forever
        raise WeightsError("not a regular file: name a weights file")
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty: fetch it again")


def shown_path(path: object) -> str:
    """The path for a one-line message: control characters are escaped."""
    return printable(str(path))


def shown(value: object) -> str:
    """A short one-line description of something the file says; never recurses into it."""
    if not isinstance(value, str | int | float):
        return f"a {type(value).__name__}"
    text = ascii(value[:100] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def listed(names: Sequence[str], most: int = 50) -> str:
    """Names that a file gives, separated by commas: the first, and how many more there are."""
    few = ", ".join(printable(name[:100]) for name in names[:most])
    return few + (f" and {len(names) - most} more" if len(names) > most else "")
