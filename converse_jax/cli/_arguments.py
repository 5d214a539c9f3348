"""What several commands share: their options, mistakes in them, and lines for the user."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import numpy as np

    from converse_jax.restore import Restorer


class UsageError(Exception):
    """A mistake in the command line, in one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a `UsageError`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def say(line: str) -> None:
    """Tell the user, on standard error."""
    print(line, file=sys.stderr, flush=True)


def add_model(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--model` and `--plugin`."""
    text = "network: a name from `converse-jax models`, a .safetensors or an authors' .pth file"
    parser.add_argument("--model", required=required, metavar="M", help=text)
    text = "Python file or module to run first, which registers the network of --model"
    parser.add_argument("--plugin", action="append", default=[], metavar="NETWORK.PY", help=text)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def number(text: str, low: float, high: float, expected: str) -> float:
    """A number in a range, for the `type` of an option."""
    with contextlib.suppress(ValueError):
        if low <= (value := float(text)) <= high:
            return value
    raise argparse.ArgumentTypeError(f"got {text!r}; expected {expected}")


def given_restorer(args: argparse.Namespace) -> tuple[Restorer, np.ndarray | None]:
    """The model and the kernel that the command names."""
    from converse_jax import compilation_cache
    from converse_jax.plugins import load_plugin
    from converse_jax.restore import Restorer
    from converse_jax.weights import load

    for plugin in args.plugin:
        load_plugin(plugin)
    kernel = None if args.kernel is None else read_kernel(args.kernel)
    compilation_cache.enable()
    model, card = load(args.model)
    if "read" in card.notes:
        say(f"{args.model}: read {card.notes['read']}")
    return Restorer(model, card), kernel


def read_kernel(path: str | os.PathLike[str]) -> np.ndarray:
    """A blur kernel from a `.npy` file, divided by its sum.

    Raises:
        RestoreError: the file cannot be read or holds no kernel.
    """
    import numpy as np

    from converse_jax.restore import RestoreError, normalized_kernel

    try:
        with Path(path).open("rb") as file:
            # Pickles are programs, and an .npz is not one array.
            array = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise RestoreError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, EOFError, SyntaxError, MemoryError):
        raise RestoreError(
            f"{path}: is not a .npy file of numbers; write one with numpy.save(path, kernel)"
        ) from None
    try:
        kernel, notes = normalized_kernel(array)
    except RestoreError as error:
        raise RestoreError(f"{path}: {error}") from None
    for note in notes:
        say(f"{path}: {note}")
    return kernel
