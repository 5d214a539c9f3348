"""Large pages of memory for a process that computes on the CPU."""

from __future__ import annotations

import os
import platform
import sys

TUNABLE = "glibc.malloc.hugetlb"
"""The setting of glibc that makes malloc ask for huge pages."""


def with_huge_pages(environment: dict[str, str]) -> dict[str, str] | None:
    """An environment in which malloc asks for huge pages; None if it does already, or cannot.

    XLA allocates the temporaries of a step, some gigabytes, anew in every step. With pages of 4 KB
    touching them first took longer than the arithmetic; with 2 MB it takes a tenth of that.
    """
    libc, version = platform.libc_ver()
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if libc != "glibc" or number < (2, 35):
        return None
    given = environment.get("GLIBC_TUNABLES", "")
    if TUNABLE in given:
        return None
    tunables = ":".join(filter(None, [given, f"{TUNABLE}=1"]))
    return {**environment, "GLIBC_TUNABLES": tunables}


def start_again_with_huge_pages() -> None:
    """Restart this process with huge pages: glibc reads the setting only when a process starts."""
    environment = with_huge_pages(dict(os.environ))
    if environment is not None:
        os.execve(sys.executable, sys.orig_argv, environment)
