"""Damaged files and odd commands, without end: `python -m tests.reliability.fuzz --seconds 3600`.

Every case is a function of its kind and number. Whatever is read must give a whole result or a
documented error, in bounded time and memory. Cases run in child processes, so that a decoder that
crashes is seen; those that failed are written to a folder, and go to `corpus/` as tests.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import itertools
import json
import math
import os
import random
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SECONDS = 20
"""Limit of one case; a loaded machine may need a hundred times as long as an idle one."""

MEMORY = 4 * 2**30
"""Limit of the address space of a child, in bytes."""

MAX_PIXELS = 250_000


class Case(NamedTuple):
    """A file to read: its name says how, its content is damaged."""

    name: str
    content: bytes


class Kind(NamedTuple):
    """What is fuzzed: cases by a random state, and what reads one in an empty folder.

    `read` raises nothing: it returns "read", or the name of the documented error.
    """

    make: Callable[[random.Random], Case]
    read: Callable[[Path], str]


def _check(error: Exception) -> str:
    """The name of a documented error, whose text is one short line."""
    text = str(error)
    assert text and "\n" not in text and len(text) < 4000, f"no short line: {text[:300]!r}"
    return type(error).__name__


def _damaged(seeds: dict[str, bytes], rng: random.Random) -> Case:
    from tests.reliability.mutate import mutated

    name = rng.choice(sorted(seeds))
    return Case(name, mutated(seeds[name], rng, list(seeds.values())))


def _make_image(rng: random.Random) -> Case:
    from tests.reliability.seeds import images

    return _damaged(images(), rng)


def _read_image(path: Path) -> str:
    import numpy as np

    from converse_jax.imaging import ImageError, read_pages

    try:
        pages = read_pages(path, max_pixels=MAX_PIXELS, tolerate_damage=len(path.name) % 2 == 0)
        for image in pages[:4]:
            assert image.pixels.shape[0] * image.pixels.shape[1] <= MAX_PIXELS
            assert np.isfinite(image.pixels).all()
    except ImageError as error:
        return _check(error)
    return "read"


def _make_kernel(rng: random.Random) -> Case:
    from tests.reliability.seeds import kernels

    return _damaged(kernels(), rng)


def _read_kernel(path: Path) -> str:
    import numpy as np

    from converse_jax.imaging import KernelError, read_kernel

    try:
        kernel, _ = read_kernel(path, center=True, flip=True)
        assert kernel.dtype == np.float64 and np.isfinite(kernel).all()
        assert math.isclose(kernel.sum(), 1, rel_tol=1e-5)
    except KernelError as error:
        return _check(error)
    return "read"


def _make_weights(rng: random.Random) -> Case:
    from tests.reliability.seeds import weights

    return _damaged(weights(), rng)


def _make_card(rng: random.Random) -> Case:
    from converse_jax.weights._safetensors import _serialize
    from tests.reliability.mutate import mutated_json
    from tests.reliability.seeds import card_of, weights

    arrays, metadata = card_of(weights()["w.safetensors"])
    metadata["card"] = mutated_json(metadata["card"], rng)
    return Case("card.safetensors", _serialize(arrays, metadata))


def _read_weights(path: Path) -> str:
    from converse_jax import WeightsError, load

    try:
        _, card = load(path)
    except WeightsError as error:
        assert str(error).isprintable()
        return _check(error)
    assert card.channels in (1, 3) and card.scale >= 1
    return "read"


def _make_run(rng: random.Random) -> Case:
    from tests.reliability.mutate import mutated, mutated_json
    from tests.reliability.seeds import run_files

    files = run_files()
    name = rng.choice(sorted(files))
    if name != "metrics.jsonl" and rng.random() < 0.5:
        return Case(name, mutated_json(files[name].decode(), rng).encode())
    return Case(name, mutated(files[name], rng, list(files.values())))


def _read_run(path: Path) -> str:
    from train.checkpoint_files import read_details, read_psnr
    from train.log import Log
    from train.run_folder import read_init

    try:
        match path.name:
            case "_CHECKPOINT_METADATA":
                assert isinstance(read_details(path.parent)["checksums"], dict)
            case "metrics":
                psnr = read_psnr(path.parents[1])
                assert psnr is not None and math.isfinite(psnr)
            case "init.json":
                read_init(path.parent)
            case _:
                with Log(path.parent, start=1, steps=2, leader=True):
                    pass
                for line in path.read_bytes().splitlines():
                    assert json.loads(line)["step"] <= 1
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise
        return _check(error)
    return "read"


_COMMANDS = ["restore", "evaluate", "compare", "convert", "export", "models", "nothing"]
_WORDS = [
    *["in.png", "out.png", "folder", "missing.png", "w.safetensors", "", "-", "--", "\x1b[2J", "."],
    *["\udc80", "a" * 300, "../none", "-1", "1e400", "nan", "0", "3", "photo", "sr"],
    *["gaussian:1.6", "gaussian:-1", "motion:1e9:0", "box:1e9", "disk:nan", "k.npz:x", "png"],
]
_OPTIONS = [
    *["--model", "--task", "--solver", "--scale", "--kernel", "--center-kernel", "--flip-kernel"],
    *["--sigma", "--strength", "--self-ensemble", "--tile", "--overlap", "--format", "--quality"],
    *["--width", "--resize", "--white-level", "--tolerate-damage", "--overwrite", "--data"],
    *["--compare", "--plugin", "--help", "--no-such", "--json", "-m"],
]


def _make_command(rng: random.Random) -> Case:
    words = [rng.choice(_COMMANDS)]
    words += [rng.choice(_WORDS) for _ in range(rng.randrange(4))]
    for _ in range(rng.randrange(4)):
        words += [rng.choice(_OPTIONS), rng.choice(_WORDS)]
    # Bundled networks take seconds to be compiled.
    words += ["--model", "w.safetensors"] if rng.random() < 0.8 else ["--no-such"]
    return Case("command.json", json.dumps(words).encode())


def _read_command(path: Path) -> str:
    from converse_jax import cli, compilation_cache
    from tests.reliability.seeds import images, weights

    words = json.loads(path.read_bytes())
    (path.parent / "in.png").write_bytes(images()["png"])
    (path.parent / "w.safetensors").write_bytes(weights()["w.safetensors"])
    (path.parent / "folder").mkdir()
    status: object
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    compilation_cache.enable = lambda: None
    try:
        with (
            contextlib.chdir(path.parent),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = cli.main(words)
    except SystemExit as stop:  # --help
        status = stop.code
    assert status in (0, 1, 2), status
    text = err.getvalue()
    assert "Traceback" not in text and all(line.isprintable() for line in text.splitlines()), text
    assert status != 2 or len(text.splitlines()) == 1, text
    return f"status {status}"


KINDS = {
    "image": Kind(_make_image, _read_image),
    "kernel": Kind(_make_kernel, _read_kernel),
    "weights": Kind(_make_weights, _read_weights),
    "card": Kind(_make_card, _read_weights),
    "run": Kind(_make_run, _read_run),
    "command": Kind(_make_command, _read_command),
}


def make(kind: str, number: int) -> Case:
    """The case of this number."""
    return KINDS[kind].make(random.Random(f"{kind} {number}"))


def read(kind: str, case: Case) -> str:
    """Read a case in an empty folder; an error that is not documented is raised."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, case.name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(case.content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return KINDS[kind].read(path)


def work(kind: str, numbers: Iterator[int]) -> None:
    """In a child process: read cases, a line before and a line after each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # decoders print
    for number in numbers:
        case = make(kind, number)
        print(number, file=lines, flush=True)
        try:
            outcome = read(kind, case)
        except BaseException as error:
            outcome = f"FAILED {type(error).__name__}: {ascii(str(error))[:300]}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{peak} {outcome}", file=lines, flush=True)


class Tally:
    """What came out of the cases of one kind."""

    def __init__(self, first: int) -> None:
        """Begin with this case."""
        self.next, self.seconds, self.peak_kb, self.failed = first, 0.0, 0, 0
        self.outcomes: collections.Counter[str] = collections.Counter()


def fuzz(seconds: float, kinds: list[str], first: int, folder: Path) -> dict[str, Tally]:
    """Run cases of all kinds until the time is over, each for as long; keep those that fail."""
    end = time.monotonic() + seconds
    tallies = {kind: Tally(first) for kind in kinds}
    while (left := end - time.monotonic()) > 0:
        kind = min(kinds, key=lambda kind: tallies[kind].seconds)
        _run_child(kind, tallies[kind], min(left, 60), folder)
    return tallies


def _run_child(kind: str, tally: Tally, seconds: float, folder: Path) -> None:
    """Run cases in one child, until it dies or the time is over."""
    command = [sys.executable, "-m", "tests.reliability.fuzz", "--child", kind]
    began = time.monotonic()
    with (
        subprocess.Popen(
            [*command, "--first", str(tally.next)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as child,
        selectors.DefaultSelector() as ready,
    ):
        assert child.stdout is not None
        ready.register(child.stdout, selectors.EVENT_READ)
        limit = SECONDS + 100  # of its imports
        while time.monotonic() < began + seconds:
            waited = ready.select(timeout=limit)
            line = child.stdout.readline().decode() if waited else ""
            limit = SECONDS
            if " " not in line and line:  # the number of a case that begins
                tally.next = int(line)
                continue
            peak, _, outcome = line.strip().partition(" ")
            if not line:
                child.kill()
                outcome = (
                    f"FAILED killed after {SECONDS} s"
                    if not waited
                    else (f"FAILED the process ended with status {child.wait()}")
                )
            tally.peak_kb = max(tally.peak_kb, int(peak or 0))
            tally.outcomes[outcome if "FAILED" not in outcome else "FAILED"] += 1
            if "FAILED" in outcome:
                tally.failed += 1
                _keep(kind, tally.next, outcome, folder)
            tally.next += 1
            if not line:
                break
        child.kill()
    tally.seconds += time.monotonic() - began


def _keep(kind: str, number: int, outcome: str, folder: Path) -> None:
    print(f"{kind} {number}: {outcome}", flush=True)
    case = make(kind, number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}-{number}-{case.name.replace('/', '-')}").write_bytes(case.content)


def main() -> int:
    """Run the command; the exit status is 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="for cases that failed")
    parser.add_argument("--case", type=int, help="run this case of the one kind, in this process")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        work(args.child, itertools.count(args.first))
    if args.case is not None:
        print(read(args.kind[0], make(args.kind[0], args.case)))
        return 0
    tallies = fuzz(args.seconds, args.kind or list(KINDS), args.first, args.keep)
    for kind, tally in tallies.items():
        print(
            f"{kind}: {tally.outcomes.total()} cases in {tally.seconds:.0f} s, peak "
            f"{tally.peak_kb / 1024:.0f} MiB: {dict(tally.outcomes.most_common())}"
        )
    return int(any(tally.failed for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
