"""The settings of the process that make the race a fair one, and the machine it runs on.

Everything here is to be called before jax, torch or NumPy is imported.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

from train.huge_pages import TUNABLE, start_again_with_huge_pages


class BadSetting(ValueError):
    """What was asked for that this machine has not; one line for a person."""


def choose_device(wanted: str | None) -> str:
    """`cpu` or `gpu`: as wanted, else a GPU if JAX and PyTorch both find one.

    Sets the environment so that both use it, one GPU only, and neither takes all of its memory.

    Raises:
      BadSetting: a GPU is wanted, and one of them finds none.
    """
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
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


def set_memory(*, keep: bool, huge_pages: bool) -> str:
    """Set malloc for both sides and say what was done; for huge pages the process starts anew.

    By default each large tensor is mapped and unmapped anew, and its page faults can cost more than
    the arithmetic. XLA asks for memory once a program, PyTorch once a tensor.
    """
    said = []
    if huge_pages:
        start_again_with_huge_pages()  # returns in the process that has them, or where none can
        asked = TUNABLE in os.environ.get("GLIBC_TUNABLES", "")
        said.append("malloc asks for huge pages" if asked else "no huge pages (glibc >= 2.35 only)")
    if keep:
        said.append(_keep_memory())
    return "; ".join(said) or "malloc as the system sets it"


def _keep_memory() -> str:
    """Ask glibc to keep freed memory. One arena: the others cannot hold 64 MB without a map."""
    if platform.libc_ver()[0] != "glibc":
        return "malloc as the system sets it (not glibc)"
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
    libc = ctypes.CDLL(None)
    if all(libc.mallopt(*s) for s in ((m_mmap_max, 0), (m_trim_threshold, -1), (m_arena_max, 1))):
        return "malloc keeps freed memory"
    return "malloc as the system sets it (mallopt refused)"


def set_precision(device: str, *libraries: str, tf32: bool) -> str:
    """Matrix products in TF32 on both sides, or in float32 on both, and say which."""
    if device == "cpu":
        return "float32"
    if "jax" in libraries:
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "float32")
    if "torch" in libraries:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
    return f"float32, TF32 {'on' if tf32 else 'off'} on both sides"


def machine_name(device: str) -> str:
    """Processor, cores and system, as far as the system tells; on a GPU its name first."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    name = f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    if device == "gpu":
        import torch

        return f"{torch.cuda.get_device_name()}; {name}"
    return name


def one_line(problem: Exception) -> str:
    """Kind and first line of an error; compilers write pages."""
    lines = str(problem).strip().splitlines() or ["no message"]
    return f"{type(problem).__name__}: {lines[0]}"[:200]


def commit() -> str | None:
    """The checkout's commit, with `+` if files differ from it; None outside of a checkout."""
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        if head.returncode != 0:
            return None
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Of Python and the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
