"""Long work in one process: `python -m tests.reliability.soak restorer|command|training`.

Prints the resident memory after a quarter of the work and at its end, the median of a tenth of the
samples each; the exit status is 1 if it has grown by more than a tenth.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

IMAGES, SIZES, STEPS = 1000, 100, 10_000


class Samples:
    """Resident memory in MiB, ten times a second."""

    def __init__(self) -> None:
        """Begin."""
        self.values: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        page = resource.getpagesize() / 2**20
        while not self._done.wait(0.1):
            self.values.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)

    def end(self) -> tuple[float, float]:
        """The medians after a quarter and at the end."""
        self._done.set()
        self._thread.join()
        count = len(self.values)
        tenth = count // 10
        early = self.values[count // 4 : count // 4 + tenth]
        return float(np.median(early)), float(np.median(self.values[-tenth:]))


def images() -> Iterator[np.ndarray]:
    """A thousand images of a hundred sizes, mixed."""
    rng = np.random.default_rng(0)
    sizes = rng.permutation([(40 + n % 10 * 7, 40 + n // 10 * 5) for n in range(SIZES)])
    for number in range(IMAGES):
        yield rng.random((*sizes[number % SIZES], 1), np.float32)


def restorer(folder: Path) -> None:
    """One `Restorer`, which compiles a program for each size again and again."""
    from flax import nnx

    from converse_jax import ModelCard
    from converse_jax.models import ConverseDnCNN
    from converse_jax.restore import Restorer

    config = {"channels": 1, "num_features": 4, "num_blocks": 1}
    card = ModelCard("tiny", "ConverseDnCNN", config, "denoise", 1, sigma=25.0)
    restore = Restorer(ConverseDnCNN(**config, rngs=nnx.Rngs(0)), card)
    for image in images():
        assert restore(image).shape == image.shape


def command(folder: Path) -> None:
    """One command for a folder of them, with the network that comes along."""
    from converse_jax import cli
    from converse_jax.imaging import Image, write_image

    (folder / "in").mkdir()
    for number, pixels in enumerate(images()):
        write_image(folder / "in" / f"{number}.png", Image(pixels))
    with contextlib.redirect_stderr(io.StringIO()) as err:
        status = cli.main(["restore", str(folder / "in"), str(folder / "out")])
    assert status == 0 and f"{IMAGES} restored" in err.getvalue()


def training(folder: Path) -> None:
    """Ten thousand steps of a tiny network."""
    from tests.train import tiny
    from train.config import Args
    from train.loop import train

    config = tiny.config(
        tiny.folder(folder / "images"), steps=STEPS, log_every=100, save_every=500, eval_every=500
    )
    assert train(Args(config=config, run=folder / "run")) == 0


WORK = {"restorer": restorer, "command": command, "training": training}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.soak", description=__doc__)
    parser.add_argument("work", choices=WORK)
    work = parser.parse_args().work
    with tempfile.TemporaryDirectory() as folder:
        samples = Samples()
        try:
            WORK[work](Path(folder))
        finally:
            early, late = samples.end()
    print(f"{work}: {early:.0f} MiB after a quarter, {late:.0f} MiB at the end")
    return int(late > 1.1 * early)


if __name__ == "__main__":
    sys.exit(main())
