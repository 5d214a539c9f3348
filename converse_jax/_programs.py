"""A network compiled for each image size that it meets, within the available memory."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from converse_jax.nn import TransferState, prepare

# One for an image and, for the self-ensemble, one for the image turned by 90 degrees.
_MAX_PROGRAMS = 2

# Transfer functions are kept for an image size if they take at most this share of the available
# memory; they take about 40 MB per layer at 256x256 pixels.
_PREPARED_PART = 0.2


@dataclass
class _Program:
    """The network compiled for one image size.

    Attributes:
        run: `(state, transfers, image, kernel, sigma) -> image`.
        collect: `(state, image, kernel, sigma) -> transfers`; None if `run` computes them.
        transfers: what `collect` returned last.
        kernel: the blur kernel they belong to.
    """

    run: Any
    collect: Any
    transfers: Any = None
    kernel: bytes | None = None


class Programs:
    """A network as a function of NumPy arrays, in full float32 precision.

    It is compiled once per image size, and the transfer functions of its layers are computed once
    per size and blur kernel. Only the last two sizes are kept, to bound the memory. It may be
    called from several threads; one runs at a time.
    """

    def __init__(self, model: nnx.Module) -> None:
        """Take a network; nothing is compiled."""
        self._graphdef, self._state = nnx.split(model)
        self._programs: OrderedDict[tuple[int, ...], _Program] = OrderedDict()
        self._needed: dict[tuple[int, ...], int] = {}  # of programs that did not fit
        self._lock = threading.Lock()

    def __call__(
        self, image: np.ndarray, kernel: np.ndarray | None, sigma: float | None
    ) -> np.ndarray:
        """Restore an image `[H, W, C]` with the network's number of channels.

        Raises:
            MemoryError: it needs more than is available; the message says how much.
        """
        arrays = [None if x is None else np.asarray(x, np.float32) for x in (image, kernel, sigma)]
        key = None if kernel is None else kernel.tobytes()
        try:
            with self._lock:
                program = self._program(*arrays)
                if program.collect is not None and (
                    program.transfers is None or program.kernel != key
                ):
                    program.transfers, program.kernel = program.collect(self._state, *arrays), key
                return np.asarray(program.run(self._state, program.transfers, *arrays))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            self.free()
            raise MemoryError("the device's is full") from None

    def _program(self, image: Any, kernel: Any, sigma: Any) -> _Program:
        """The compiled network for arrays of these shapes."""
        if image.shape in self._programs:
            self._programs.move_to_end(image.shape)
            return self._programs[image.shape]
        # An image that did not fit is not compiled again to find out that it still does not.
        check_memory(self._needed.get(image.shape, 0))
        available = available_memory()
        lowered, use = self._prepared(image, kernel, sigma)
        transfers = lowered.out_info
        size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(transfers))
        if size > 0 and (available is None or size <= _PREPARED_PART * available):
            collect = lowered.compile()
        else:
            collect, transfers, size, use = None, None, 0, self._unprepared

        def run(*args: Any) -> Any:
            # A new function for each size: JAX keeps its traces as long as the function lives.
            return use(*args)

        program = jax.jit(run).lower(self._state, transfers, image, kernel, sigma).compile()
        if jax.default_backend() == "cpu":
            # An accelerator raises an error when its memory is full; Linux kills the process.
            self._needed[image.shape] = program_bytes(program) + size
            check_memory(self._needed[image.shape])
            del self._needed[image.shape]
        self._programs[image.shape] = _Program(program, collect)
        if len(self._programs) > _MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return self._programs[image.shape]

    def _prepared(self, *arrays: Any) -> tuple[Any, Any]:
        """The lowered program that computes transfer functions, a function that applies them."""
        graphdef: Any = None

        def collect(state: Any, image: Any, kernel: Any, sigma: Any) -> Any:
            nonlocal graphdef  # static, so it cannot be part of the traced result
            # Accelerators multiply float32 as TF32 or bfloat16 unless asked otherwise.
            with jax.default_matmul_precision("highest"):
                model = nnx.merge(self._graphdef, state)
                model = prepare(model, image, *(x for x in (kernel, sigma) if x is not None))
            graphdef, transfers, _ = nnx.split(model, TransferState, ...)  # type: ignore[misc]
            return transfers

        def run(state: Any, transfers: Any, image: Any, kernel: Any, sigma: Any) -> Any:
            model = nnx.merge(graphdef, transfers, state)
            if getattr(model, "kernel_in_transfers", False):
                kernel = None
            with jax.default_matmul_precision("highest"):
                return model(image, *(x for x in (kernel, sigma) if x is not None))

        return jax.jit(collect).lower(self._state, *arrays), run

    def _unprepared(self, state: Any, transfers: Any, image: Any, kernel: Any, sigma: Any) -> Any:
        del transfers
        model = nnx.merge(self._graphdef, state)
        with jax.default_matmul_precision("highest"):
            return model(image, *(x for x in (kernel, sigma) if x is not None))

    def free(self) -> None:
        """Free the memory of programs and transfer functions; they are made again when needed."""
        with self._lock:
            self._programs.clear()


def program_bytes(program: Any) -> int:
    """Memory for one run; the program does not report the buffers of the FFT (under 10%)."""
    analysis = program.memory_analysis()
    if analysis is None:
        return 0
    return int(1.1 * analysis.temp_size_in_bytes) + int(analysis.output_size_in_bytes)


def check_memory(needed: int) -> None:
    """Raise a MemoryError, which says how much is missing, if this is more than is available."""
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(f"{needed / 1e9:.3g} GB of {available / 1e9:.3g} GB available")


def available_memory() -> int | None:
    """Bytes this process can still allocate; None if unknown (not on Linux)."""
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):  # a container's own limit, "max" if it has none
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        limits.append(max(limit - int((group / "memory.current").read_text()), 0))
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):  # ulimit -v
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limits.append(max(limit - pages * resource.getpagesize(), 0))
    return min(limits, default=None)
