"""Faults at every file operation of `converse-jax restore FOLDER`, in one process that forks.

`python -m tests.reliability.restore_faults FOLDER` prints how many faults there were; an assertion
fails where a file is half written, a result is lost, or the next command does not finish the work.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from converse_jax import ModelCard, cli
from converse_jax.atomic import is_leftover
from converse_jax.cli import _restore
from converse_jax.imaging import Image, write_image
from converse_jax.restore import Plan
from tests.reliability.faults import FileOperations, kill

NAMES = ("a.png", "b.jpg", "sub/c.tif")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.ENOENT)


class Unchanged:
    """A restorer that needs no compiler: its results are the images."""

    card = ModelCard("unchanged", "ConverseDnCNN", {}, "denoise", 1)
    cards = (card,)
    takes_sigma = False

    def __call__(self, image: np.ndarray, **options: Any) -> np.ndarray:
        return image

    def plan(self, image: np.ndarray, *, sigma: float | None = None) -> Plan:
        return Plan(self, None, (), None)

    def prepare_kernel(self, kernel: np.ndarray | None) -> tuple[None, list[str]]:
        return None, []


def write_sources(folder: Path) -> None:
    """Three small images, one in a subfolder."""
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).random((8, 8, 1), np.float32)
        write_image(folder / name, Image(pixels))


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder, hidden ones too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def in_child(action: Callable[[], int]) -> tuple[int, str]:
    """The wait status of a forked process that does this, and its standard error."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            sys.stderr = io.TextIOWrapper(io.FileIO(write_end, "w"), write_through=True)
            status = action()
        finally:
            os._exit(status)
    os.close(write_end)
    with open(read_end, encoding="utf-8") as file:
        text = file.read()
    return os.waitpid(child, 0)[1], text


def main() -> None:
    """Run all faults."""
    warnings.simplefilter("ignore")  # JAX warns of forks, which its threads do not survive
    _restore.given_restorer = lambda args: (Unchanged(), None)  # type: ignore[assignment]
    base = Path(sys.argv[1])
    source, whole = base / "in", base / "whole"
    write_sources(source)
    originals = contents(source)
    command = ["restore", str(source)]
    flags = ["--model", "unchanged"]
    assert in_child(lambda: cli.main([*command, str(whole), *flags]))[0] == 0
    results = contents(whole)
    assert len(results) == len(NAMES)
    operations = FileOperations(base)

    def raise_error(number: int) -> None:
        raise OSError(number, os.strerror(number))

    counts = {}
    faults = {"killed": kill} | {
        errno.errorcode[n]: functools.partial(raise_error, n) for n in ERRORS
    }
    for name, fault in faults.items():
        at, ended = 0, False
        while not ended:
            at += 1
            target = base / f"{name}-{at}"

            def restore(at: int = at, fault: Any = fault, target: Path = target) -> int:
                operations.fail(at, fault)
                status = cli.main([*command, str(target), *flags])
                return status if operations.count >= at else 50 + status

            status, text = in_child(restore)
            ended = os.WIFEXITED(status) and os.WEXITSTATUS(status) >= 50
            assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) in (0, 1, 2, 50), text
            assert "Traceback" not in text, text
            there = {n: x for n, x in contents(target).items() if not is_leftover(Path(n).name)}
            assert there.items() <= results.items(), (name, at)
            if os.WIFSIGNALED(status):
                assert os.WTERMSIG(status) == 9
            elif os.WEXITSTATUS(status) in (0, 50):  # said to be finished
                assert there == results, (name, at, text)
            elif os.WEXITSTATUS(status) == 2:
                assert len(text.splitlines()) == 1, text
            again = functools.partial(cli.main, [*command, str(target), *flags])
            assert in_child(again)[0] == 0
            assert contents(target) == results, (name, at, contents(target).keys())
            assert contents(source) == originals
        counts[name] = at - 1
    print(", ".join(f"{name} {count}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
