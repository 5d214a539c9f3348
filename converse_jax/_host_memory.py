"""What a program can ask of the C library's memory, where it computes on the CPU.

The library never asks: it is a setting of the whole process, and belongs to the program.
"""

from __future__ import annotations

import ctypes
import platform


def keep_freed() -> bool:
    """Ask glibc to keep freed memory for the next allocation; whether it will.

    By default each large array is mapped and unmapped anew, and its page faults can cost more than
    the arithmetic: a training step of some gigabytes took half as long again. One arena: the
    others cannot hold more than 64 MB without a map.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
    libc = ctypes.CDLL(None)
    return all(
        libc.mallopt(*setting)
        for setting in ((m_mmap_max, 0), (m_trim_threshold, -1), (m_arena_max, 1))
    )
