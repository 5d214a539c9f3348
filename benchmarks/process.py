"""The command line, the settings that make the race a fair one, and the machine it runs on.

What sets the process is to be called before jax, torch or NumPy is imported.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import distributions, entry_points
from pathlib import Path
from shutil import which
from typing import Any, NoReturn


class BadSetting(ValueError):
    """What was asked for that this machine has not; one line for a person."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with exit status 2."""

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


def choose_device(wanted: str | None) -> str:
    """`cpu` or `gpu`: as wanted, else a GPU if JAX and PyTorch both find one.

    Sets the environment so that both use it, one GPU only, and neither takes all of its memory or
    computes in TF32.

    Raises:
      BadSetting: a GPU is wanted, and one of them finds none.
    """
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.update(JAX_DEFAULT_MATMUL_PRECISION="float32", NVIDIA_TF32_OVERRIDE="0")
    found = wanted != "cpu" and _gpu_found()
    if wanted == "gpu" and not found:
        raise BadSetting("--device gpu: JAX and PyTorch do not both find a GPU")
    if not found:
        os.environ["JAX_PLATFORMS"] = "cpu"
    return "gpu" if found else "cpu"


def _gpu_found() -> bool:
    if not entry_points(group="jax_plugins"):  # GPUs come to JAX as plugins
        return False
    # In a process of its own: imported here, neither library could be pinned to cores any more.
    probe = "import jax, torch; assert torch.cuda.is_available(); jax.devices('gpu')"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0


def pin(threads: int) -> str:
    """Confine the process to `threads` cores and say what was done.

    XLA sizes its CPU thread pool by the affinity it finds, and has no other public setting for it.

    Raises:
      BadSetting: the process has fewer cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return f"no CPU affinity on {sys.platform}: XLA uses every core, PyTorch {threads}"
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        raise BadSetting(f"--threads {threads}: this process may use {len(cores)} core(s) only")
    os.sched_setaffinity(0, cores[:threads])
    return f"process pinned to core(s) {', '.join(map(str, cores[:threads]))}"


def one_line(problem: Exception) -> str:
    """Kind and first line of an error; compilers write pages."""
    lines = str(problem).strip().splitlines() or ["no message"]
    return f"{type(problem).__name__}: {lines[0]}"[:200]


def circumstances(threads: int) -> dict[str, Any]:
    """The machine, the commit (with `+` if files differ from it) and the versions, for JSON."""
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    found = subprocess.run(command, capture_output=True, text=True) if which("git") else None
    installed = {d.name.lower(): d.version for d in distributions()}
    packages = ("jax", "jaxlib", "flax", "torch", "numpy")
    versions = {name: installed[name] for name in packages if name in installed}
    return {
        "machine": _machine_name(),
        "threads": threads,
        "commit": (found.stdout.strip() or None) if found else None,
        "versions": {"python": platform.python_version(), **versions},
    }


def _machine_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
