"""How much memory a call takes beyond what it finds."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PROC = Path("/proc/self")


def resident_growth(call: Callable[[], Any]) -> float | None:
    """Growth of the peak of resident memory, in MB of 10^6; None where the system cannot tell."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        # Memory that malloc kept from earlier would hide what is asked for now.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (_PROC / "clear_refs").write_text("5")  # the peak is counted anew
        pages = int((_PROC / "statm").read_text().split()[1])
    except OSError:
        call()
        return None
    call()
    lines = (_PROC / "status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return max(0.0, (peak * 1024 - pages * os.sysconf("SC_PAGE_SIZE")) / 1e6)
