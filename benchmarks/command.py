"""What the commands share: options, settings that make the race fair, the machine, a table."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from itertools import zip_longest
from pathlib import Path
from shutil import which
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """The command line of `python -m MODULE`; a mistake is told in one line, exit status 2."""

    def __init__(self, module: str, description: str | None, *shared: str) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m {module}", description=description, formatter_class=layout)
        for option in shared:
            self.add_argument(option, **_SHARED[option])

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # without the usage, which hides the message


def output_file(text: str) -> Path:
    """Parse an argument that names a file to write."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: a file cannot be written there")
    return path


_SHARED: dict[str, dict[str, Any]] = {
    "--quick": {"action": "store_true", "help": "the same, smaller, with few repeats"},
    "--only": {"metavar": "TEXT", "help": "only what has this in its name"},
    "--threads": {"type": int, "default": 2, "metavar": "N", "help": "CPU cores (default 2)"},
    "--json": {"type": output_file, "metavar": "FILE", "help": "write results and circumstances"},
}


def use_device(device: str) -> None:
    """Set what JAX and PyTorch read when imported: one GPU, no TF32, memory as it is needed."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.update(JAX_DEFAULT_MATMUL_PRECISION="float32", NVIDIA_TF32_OVERRIDE="0")
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"


def pin(threads: int, parser: Parser) -> str:
    """Confine the process to `threads` cores and say what was done.

    XLA sizes its CPU thread pool by the affinity it finds, and has no other public setting for it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return f"no CPU affinity on {sys.platform}: XLA uses every core, PyTorch {threads}"
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        parser.error(f"--threads {threads}: give 1 to {len(cores)}, the cores of this process")
    os.sched_setaffinity(0, cores[:threads])
    return f"process pinned to core(s) {', '.join(map(str, cores[:threads]))}"


def circumstances(threads: int) -> dict[str, Any]:
    """The machine, the commit (with `+` if files differ from it) and the versions, for JSON."""
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    commit = subprocess.run(command, capture_output=True, text=True).stdout if which("git") else ""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    processor = model[1] if model else platform.processor() or platform.machine()
    system = f"{platform.system()} {platform.machine()}"
    installed = {d.name.lower(): d.version for d in distributions()}
    used = installed.keys() & {"jax", "jaxlib", "flax", "torch", "numpy"}
    return {
        "machine": f"{processor}, {os.cpu_count()} cores, {system}",
        "threads": threads,
        "commit": commit.strip() or None,
        "versions": {name: installed[name] for name in sorted(used)},
    }


class Table:
    """Prints each row as soon as it is there; `columns` gives the format of each heading."""

    def __init__(self, name: str, columns: Mapping[str, str]) -> None:
        self.columns = columns
        self._print(name, columns)

    def add(self, name: str, values: Iterable[Any], note: str = "") -> None:
        """Print a row, with `-` for what is None or left out at the end, and a note."""
        pairs = zip_longest(self.columns.values(), values)
        self._print(name, ("-" if x is None else f"{x:{form}}" for form, x in pairs), note)

    def _print(self, name: str, cells: Iterable[str], note: str = "") -> None:
        widths = (max(7, len(heading)) for heading in self.columns)
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        print(f"{name:<56} {' '.join(aligned)}  {note}".rstrip(), flush=True)
