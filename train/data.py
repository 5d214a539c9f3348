"""From clean images to batches: every example is a pure function of (seed, index).

Example number i of a run, i = step * batch_size + row, is image ``shuffle(seed)[i]``, and what is
drawn for it (corner, turn, noise, kernel) comes from a generator seeded with (seed, i). So two runs
see the same data whatever the number of workers and processes, and a run resumes by counting.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np

from train.config import Config, min_validation_side
from train.errors import TrainError
from train.sources import EMBEDDED, Images, open_source
from train.tasks import Example, Task

# What seeds are derived for: streams of the same seed must not repeat each other.
_SHUFFLE, _EXAMPLES, _HELD_OUT = range(3)


def open_images(config: Config, say: Callable[[str], None]) -> tuple[Images, Images]:
    """The images to train on, and those held out.

    Without a validation source, `data.num_validation` images evenly spread over the training
    images are held out; "embedded" has its own.

    Raises:
      TrainError: no images, or none as large as a patch; small ones are named.
    """
    data = config.data
    cache = data.cache_mb / max(1, data.workers)

    def images(names: tuple[str, ...], *, held_out: bool = False) -> Images:
        sources = [open_source(n, held_out=held_out, tfds_dir=data.tfds_dir) for n in names]
        return Images(sources, config.model.channels, cache_mb=cache)

    train = images(data.train)
    if data.validation or data.train == (EMBEDDED,):
        held_out = images(data.validation or data.train, held_out=True)
        if len(held_out) > data.num_validation:
            held_out = held_out.select(_spread(len(held_out), data.num_validation))
    else:
        if len(train) <= data.num_validation:
            raise TrainError(
                f"data.num-validation: {data.num_validation} images are to be held out of the "
                f"{len(train)} of {', '.join(data.train)}, and none would be left; give more "
                "images, a smaller number, or others to validate on (--data.validation)"
            )
        chosen = _spread(len(train), data.num_validation)
        held_out = train.select(chosen)
        train = train.select(sorted(set(range(len(train))) - set(chosen)))
    train = _large_enough(train, config.data.patch_size, "data.patch-size", say)
    return train, _large_enough(held_out, min_validation_side(config.task), "data.validation", say)


def _spread(total: int, count: int) -> list[int]:
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def _large_enough(images: Images, side: int, field: str, say: Callable[[str], None]) -> Images:
    sizes = images.sizes()
    small = [i for i, size in enumerate(sizes) if min(size) < side]
    if not small:
        return images
    named = [f"{images.name(i)} ({sizes[i][1]}x{sizes[i][0]})" for i in small[:5]]
    more = f" and {len(small) - 5} more" if len(small) > 5 else ""
    found = f"smaller than {side}x{side}: {', '.join(named)}{more}"
    if len(small) == len(images):
        raise TrainError(
            f"{field}: all {len(small)} images are {found}; give larger ones"
            + (" or a smaller patch" if field == "data.patch-size" else "")
        )
    say(f"skipped ({field}): {len(small)} of {len(images)} images, {found}")
    return images.select(sorted(set(range(len(images))) - set(small)))


def example(task: Task, image: np.ndarray, patch: int, rng: np.random.Generator) -> Example:
    """A random patch of an image, degraded, in one of its 8 turns and mirror images.

    The degradation sees a margin around the patch, so that near the patch's border it does what it
    does to the whole image (deblurring, where patches are periodic, has none).

    Args:
      task: degrades.
      image: uint8 ``[H, W, C]``, at least patch x patch.
      patch: side of the clean patch, a multiple of the task's scale.
      rng: draws everything.
    """
    s, margin = task.scale, task.margin
    height, width = image.shape[:2]
    top, left = (s * int(rng.integers((side - patch) // s + 1)) for side in (height, width))
    # Not past the last whole block of s pixels: the task crops to a multiple of s.
    rows = slice(max(top - margin, 0), min(top + patch + margin, height - height % s))
    columns = slice(max(left - margin, 0), min(left + patch + margin, width - width % s))
    degraded = task.degrade(image[rows, columns], rng)
    y, x = top - rows.start, left - columns.start
    degraded["target"] = degraded["target"][y : y + patch, x : x + patch]
    degraded["input"] = degraded["input"][y // s : (y + patch) // s, x // s : (x + patch) // s]
    quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
    return {key: _turn(value, quarters, mirror) for key, value in degraded.items()}


def _turn(x: np.ndarray, quarters: int, mirror: bool) -> np.ndarray:
    if x.ndim < 2:  # a noise level has no direction
        return x
    x = np.rot90(x, quarters)
    return np.ascontiguousarray(x[:, ::-1] if mirror else x)


class _Examples:
    """`example` of the i-th image of the shuffled epochs, with the i-th generator."""

    def __init__(self, config: Config) -> None:
        self._task, self._patch, self._seed = config.task, config.data.patch_size, config.seed

    def __call__(self, index: int, image: np.ndarray) -> Example:
        rng = np.random.default_rng([self._seed, _EXAMPLES, index])
        return example(self._task, image, self._patch, rng)


@contextlib.contextmanager
def host_batches(
    config: Config, images: Images, start: int = 0, process: int = 0, processes: int = 1
) -> Iterator[Iterator[Example]]:
    """This process's share of every batch, from step `start` to the last of the run.

    Args:
      config: batch size, patch, task, seed, threads and worker processes.
      images: to train on.
      start: the first step.
      process, processes: process p of n gets rows p, p + n, ... of each batch.

    Yields:
      An iterator of NumPy batches ``[batch_size / processes, ...]``.
    """
    # Not without end: Grain's endless data sets are longer than Python can count.
    epochs = -(-config.steps * config.batch_size // len(images))
    seed = int(np.random.SeedSequence([config.seed, _SHUFFLE]).generate_state(1)[0])
    dataset = (
        grain.MapDataset.source(images)
        .shuffle(seed=seed)
        .repeat(epochs)
        .map_with_index(_Examples(config))[process::processes]
        .batch(config.batch_size // processes)[start : config.steps]
    )
    data = config.data
    # A thread that waits for the next batch holds one: two batches ahead are enough.
    read = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=8 * data.threads)
    batches = dataset.to_iter_dataset(read)
    if data.workers:
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain's worker processes read flags of absl
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=data.workers), worker_init_fn=_leave_ctrl_c
        )
    iterator = iter(batches)
    try:
        yield iterator
    finally:
        iterator.close()


def _leave_ctrl_c(index: int, count: int) -> None:
    """A terminal sends Ctrl-C to all processes; this one has to work until the run is saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def on_device(
    batches: Iterator[Example], sharding: jax.sharding.Sharding, *, ahead: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Batches as global arrays, transferred while the devices compute."""

    def transfer(batch: Example) -> dict[str, jax.Array]:
        return {
            key: jax.make_array_from_process_local_data(sharding, value)
            for key, value in batch.items()
        }

    queue = collections.deque(map(transfer, itertools.islice(batches, ahead)))
    while queue:
        yield queue.popleft()
        queue.extend(map(transfer, itertools.islice(batches, 1)))


def held_out_examples(
    config: Config, images: Images, say: Callable[[str], None] = print
) -> list[Example]:
    """The middle of each held-out image, degraded the same way in every run.

    All have one size, a square of at most `data.validation_size`: one program measures them all.
    """
    side = min(config.data.validation_size, *(n for size in images.sizes() for n in size))
    side -= side % config.task.scale
    if side < config.data.validation_size:
        say(f"held-out images are measured in their middle {side}x{side}: one is no larger")
    examples: list[Any] = []
    for index in range(len(images)):
        image = images[index]
        top, left = ((n - side) // 2 for n in image.shape[:2])
        # The seed of the data does not matter here: runs are to be compared.
        rng = np.random.default_rng([0, _HELD_OUT, index])
        middle = image[top : top + side, left : left + side]
        examples.append(config.task.degrade(middle, rng))
    return examples
