"""The command line, the settings that make the race a fair one, and what is read of the machine.

What sets the process is to be called before JAX or PyTorch does anything.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distributions, entry_points
from pathlib import Path
from shutil import which
from typing import Any, NoReturn

_PROC = Path("/proc/self")


class Parser(argparse.ArgumentParser):
    """The command line of `python -m MODULE`; a mistake is told in one line, exit status 2."""

    def __init__(self, module: str, description: str | None, *shared: str) -> None:
        """With those of the `shared` options that the command has."""
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m {module}", description=description, formatter_class=layout)
        for option in shared:
            self.add_argument(option, **_SHARED[option])

    def error(self, message: str) -> NoReturn:
        """Without the usage, which hides the message."""
        self.exit(2, f"{self.prog}: {message}\n")


def positive(text: str) -> int:
    """The type of an argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}; give 1 or more")
    return int(text)


def output_file(text: str) -> Path:
    """The type of an argument that names a file to write."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: a file cannot be written there")
    return path


_JSON_HELP = "write the results, the machine and the versions to this file"
_SHARED: dict[str, dict[str, Any]] = {
    "--quick": {"action": "store_true", "help": "the same, smaller, with few repeats"},
    "--only": {"metavar": "TEXT", "help": "only what has this in its name"},
    "--threads": {"type": positive, "default": 2, "metavar": "N", "help": "CPU cores (default 2)"},
    "--json": {"type": output_file, "metavar": "FILE", "help": _JSON_HELP},
}


def choose_device(wanted: str | None, parser: Parser) -> str:
    """`cpu` or `gpu`: as wanted, else a GPU if JAX and PyTorch both find one.

    Sets the environment so that both use it, one GPU only, and neither takes all of its memory or
    computes in TF32.
    """
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.update(JAX_DEFAULT_MATMUL_PRECISION="float32", NVIDIA_TF32_OVERRIDE="0")
    gpu = wanted != "cpu" and _has_gpu()
    if wanted == "gpu" and not gpu:
        parser.error("--device gpu: JAX and PyTorch do not both find a GPU")
    if not gpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    return "gpu" if gpu else "cpu"


def _has_gpu() -> bool:
    if not entry_points(group="jax_plugins"):  # GPUs come to JAX as plugins
        return False
    # In a process of its own: asked here, neither library could be pinned to cores any more.
    probe = "import jax, torch; assert torch.cuda.is_available(); jax.devices('gpu')"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0


def pin(threads: int, parser: Parser) -> str:
    """Confine the process to `threads` cores and say what was done.

    XLA sizes its CPU thread pool by the affinity it finds, and has no other public setting for it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return f"no CPU affinity on {sys.platform}: XLA uses every core, PyTorch {threads}"
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        parser.error(f"--threads {threads}: this process may use {len(cores)} core(s) only")
    os.sched_setaffinity(0, cores[:threads])
    return f"process pinned to core(s) {', '.join(map(str, cores[:threads]))}"


def resident_growth(call: Callable[[], Any]) -> float | None:
    """MB by which a call raises the peak of resident memory; None if the system cannot tell."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        # Memory that malloc kept from earlier would hide what is asked for now.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (_PROC / "clear_refs").write_text("5")  # the peak is counted anew
        pages = int((_PROC / "statm").read_text().split()[1])
    except OSError:
        return None
    call()
    lines = (_PROC / "status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return max(0.0, (peak * 1024 - pages * os.sysconf("SC_PAGE_SIZE")) / 1e6)


def one_line(problem: Exception) -> str:
    """Kind and first line of an error; compilers write pages."""
    lines = str(problem).strip().splitlines() or ["no message"]
    return f"{type(problem).__name__}: {lines[0]}"[:200]


def circumstances(threads: int) -> dict[str, Any]:
    """The machine, the commit (with `+` if files differ from it) and the versions, for JSON."""
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    commit = subprocess.run(command, capture_output=True, text=True).stdout if which("git") else ""
    packages = ("jax", "jaxlib", "flax", "torch", "numpy")
    installed = {d.name.lower(): d.version for d in distributions()}
    return {
        "machine": _machine_name(),
        "threads": threads,
        "commit": commit.strip() or None,
        "versions": {name: installed[name] for name in packages if name in installed},
    }


def _machine_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
