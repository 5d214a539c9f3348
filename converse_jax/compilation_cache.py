"""JAX's persistent compilation cache, for commands that make the user wait for the compiler.

The library never enables it: it is a setting of the whole process, left to the program.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jax


def enable() -> Path | None:
    """Keep compiled programs in a folder between runs.

    The folder is $JAX_COMPILATION_CACHE_DIR, or `converse-jax/xla` in the user's cache folder. If
    it cannot be written to, nothing changes.

    Returns:
        The folder, or None if it cannot be written to.
    """
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        # os.access answers for another user on some file systems: try to write.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a user without a home
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # The operator holds a Python pointer that differs in every process; without this no cached
    # program of ours would ever be found.
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)
    return folder


def _folder() -> Path:
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "converse-jax" / "xla"
