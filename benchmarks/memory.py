"""How much memory a program takes beyond what it finds: the growth of a peak, in MB of 10^6."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from pathlib import Path
from typing import Any

_PROC = Path("/proc/self")


class ResidentPeak:
    """Growth of the process's resident memory from now on; None where the system cannot tell."""

    def __init__(self) -> None:
        """Give freed memory back, and begin to count."""
        gc.collect()
        if platform.libc_ver()[0] == "glibc":
            # Memory that malloc kept from earlier would hide what is asked for now.
            ctypes.CDLL(None).malloc_trim(0)
        try:
            (_PROC / "clear_refs").write_text("5")  # the peak is counted anew
            pages = int((_PROC / "statm").read_text().split()[1])
        except OSError:
            self._before = None
        else:
            self._before = pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def growth(self) -> float | None:
        """The highest since, minus the beginning."""
        if self._before is None:
            return None
        lines = (_PROC / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        return max(0.0, int(status["VmHWM"].split()[0]) * 1024 / 1e6 - self._before)


class TorchPeak:
    """Growth of what PyTorch has allocated on the GPU."""

    def __init__(self) -> None:
        """Begin to count."""
        import torch

        self._cuda = torch.cuda
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()
        self._before = self._cuda.memory_allocated()

    def growth(self) -> float | None:
        """The highest since, minus the beginning."""
        self._cuda.synchronize()
        return (self._cuda.max_memory_allocated() - self._before) / 1e6


class JaxPeak:
    """Growth of what JAX has in use on the GPU. The peak is that of the whole life of a process."""

    def __init__(self) -> None:
        """Begin to count."""
        self._before = _jax_memory()["bytes_in_use"]

    def growth(self) -> float | None:
        """The highest ever, minus the beginning."""
        return (_jax_memory()["peak_bytes_in_use"] - self._before) / 1e6


def _jax_memory() -> dict[str, Any]:
    import jax

    found: dict[str, Any] = jax.devices()[0].memory_stats()
    return found
