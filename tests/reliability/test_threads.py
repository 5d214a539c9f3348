"""One restorer used from several threads gives what it gives in one."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from flax import nnx

from converse_jax import ModelCard
from converse_jax._programs import _Program
from converse_jax.models import ConverseDnCNN, ConverseUSRNet
from converse_jax.restore import Restorer
from converse_jax.restore_pnp import PnPRestorer

THREADS = 4
CALLS = int(os.environ.get("CONVERSE_CALLS", "100"))
"""How often each thread restores an image; the suite has little time."""

Call = Callable[[], np.ndarray]


@pytest.fixture
def often_interrupted() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


class Interrupted(_Program):
    """A program whose thread is put to sleep before what it has just stored is used."""

    def __getattribute__(self, name: str) -> Any:
        if name == "transfers":
            time.sleep(0.0005)
        return super().__getattribute__(name)


def kernels(count: int, side: int) -> list[np.ndarray]:
    drawn = np.random.default_rng(0).random((count, side, side))
    return [kernel / kernel.sum() for kernel in drawn]


def deblur() -> tuple[Restorer, list[Call]]:
    """Two blurs at two sizes, as many as are kept."""
    config = {"channels": 1, "num_features": 2, "num_blocks": 1, "blur_size": 3}
    model = ConverseUSRNet(**config, rngs=nnx.Rngs(0))
    restorer = Restorer(
        model, ModelCard("a", "ConverseUSRNet", config, "deblur", 1, needs_kernel=True)
    )
    image = np.random.default_rng(0).random((12, 14, 1), np.float32)

    def call(height: int, kernel: np.ndarray) -> Call:
        return lambda: restorer(image[:height], kernel=kernel)

    return restorer, [call(height, kernel) for height in (12, 11) for kernel in kernels(2, 3)]


def plug_and_play() -> tuple[Restorer, list[Call]]:
    config = {"channels": 1, "num_features": 2, "num_blocks": 1, "noise_level": True}
    model = ConverseDnCNN(**config, rngs=nnx.Rngs(0))
    card = ModelCard("a", "ConverseDnCNN", config, "denoise", 1, needs_sigma=True)
    denoiser = Restorer(model, card)
    # One size: the data step of another would be compiled anew at each change.
    restorer = PnPRestorer(denoiser, "deblur", iterations=2)
    image = np.random.default_rng(0).random((12, 14, 1), np.float32)

    def call(kernel: np.ndarray, sigma: float) -> Call:
        return lambda: restorer(image, kernel=kernel, sigma=sigma)

    calls = [call(kernel, sigma) for kernel in kernels(2, 3) for sigma in (0.05, 0.1)]
    return denoiser, calls


@pytest.mark.slow
@pytest.mark.parametrize("make", [deblur, plug_and_play])
@pytest.mark.usefixtures("often_interrupted")
def test_threads_get_what_one_gets(make: Callable[[], tuple[Restorer, list[Call]]]) -> None:
    restorer, calls = make()
    expected = [call().tobytes() for call in calls]
    for program in restorer._programs._programs.values():
        program.__class__ = Interrupted
    start = threading.Barrier(THREADS)

    def work(seed: int) -> list[int]:
        start.wait()
        chosen = np.random.default_rng(seed).integers(len(calls), size=CALLS)
        return [int(n) for n in chosen if calls[n]().tobytes() != expected[n]]

    with ThreadPoolExecutor(THREADS) as pool:
        wrong = list(pool.map(work, range(THREADS)))
    assert wrong == [[]] * THREADS
