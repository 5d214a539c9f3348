"""Settings of the whole suite, and the folder that parity tests compare with."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before JAX is imported: one machine as eight devices, so that sharded programs are tested.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The suite compiles a thousand small programs: without LLVM's optimizations in half the time.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)

import jax
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def shared() -> Path:
    """Folder with the authors' weights, images and numbers: see "Parity" in the README."""
    folder = Path(os.environ.get("CONVERSE_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no folder {folder.name} with the authors' files: set CONVERSE_SHARED")
    return folder
