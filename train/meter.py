"""Speed of a run, time spent waiting for data, and means over steps."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator, Mapping

import jax


class Meter:
    """Images per second, and the share of the time in which the loop waited for a batch.

    While it waits the devices still compute the previous step, so the share is an upper bound on
    the cost of input. Measuring and saving are not counted (`pause`).
    """

    def __init__(self) -> None:
        """Start the clock."""
        self.images, self.seconds, self.waited = 0, 0.0, 0.0
        self._reset()

    def _reset(self) -> None:
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the enclosed block as waiting for a batch."""
        before = time.perf_counter()
        yield
        self._waited += time.perf_counter() - before

    def add(self, images: int) -> None:
        """Count the images of a step."""
        self._images += images

    @property
    def rate(self) -> float:
        """Images per second since the last `take`."""
        return self._images / max(time.perf_counter() - self._since, 1e-9)

    def take(self) -> dict[str, float]:
        """The numbers since the last call."""
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        numbers = {
            "images_per_second": self._images / elapsed,
            "input_bound": self._waited / elapsed,
        }
        self.images += self._images
        self.seconds += elapsed
        self.waited += self._waited
        self._reset()
        return numbers

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude the enclosed block from the clock; call directly after `take`."""
        yield
        self._reset()


class Means:
    """Means over the steps since the last call of `take`."""

    def __init__(self) -> None:
        """Start without steps."""
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, numbers: Mapping[str, float]) -> None:
        """Add the numbers of a step, always under the same names."""
        self._sums = {name: self._sums.get(name, 0.0) + x for name, x in numbers.items()}
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means since the last call; empty if there was no step."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def peak_memory() -> str:
    """Peak memory so far, of the first device if it reports it, else of this process."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return f"{statistics['peak_bytes_in_use'] / 1e6:.0f} MB on each device"
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{peak / 1e6:.0f} MB, this process"
