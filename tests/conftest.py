"""Settings of the whole suite, and the folder that parity tests compare with."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before NumPy is imported: two workers of the suite on two cores, each with a pool of two threads
# that wait by spinning, solve the small problems of the oracles many times slower than with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before JAX is imported: one machine as eight devices, so that sharded programs are tested.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The suite compiles a thousand small programs: without LLVM's optimizations in half the time.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)

# The commands keep compiled programs there: the suite neither reads the user's nor adds to them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="converse-jax-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jax
import jaxtyping
import pytest

import tests.typechecker  # noqa: F401 (looked up by the hook)

# Before the library is imported: shapes are checked at every call in this suite.
jaxtyping.install_import_hook(
    [f"converse_jax.{part}" for part in ("ops", "nn", "models")],
    "tests.typechecker.check",
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations are not checked: for tests of what the library itself says of wrong types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def shared() -> Path:
    """Folder with the authors' weights, images and numbers: see `make parity` in the README."""
    folder = Path(os.environ.get("CONVERSE_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no folder {folder.name} with the authors' files: set CONVERSE_SHARED")
    return folder
