"""From clean images to batches: every example is a pure function of (seed, index).

Example i of a run, i = step * batch_size + row, is image `shuffle(seed)[i]`, and everything random
about it (corner, rotation, noise, kernel) comes from a generator seeded with (seed, i). So the data
do not depend on the number of workers and processes, and a run resumes by counting.

With weights, i alone determines the source and the position in it: sources alternate as evenly as
their weights allow, each with shuffled epochs of its own.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np

from train.config import Config, min_validation_side
from train.errors import TrainError
from train.sources import EMBEDDED, Decoded, Images, counterparts, open_source
from train.tasks import Example, Paired, Task

# Part of each seed: random streams of one run must not repeat each other.
_SHUFFLE, _EXAMPLES, _HELD_OUT = range(3)


def open_images(config: Config, say: Callable[[str], None]) -> tuple[Images, dict[str, Images]]:
    """The training images, and the held-out sets by name.

    Without a validation source, `data.num_validation` photographs evenly spread over the training
    images are held out, with all of their tiles; "embedded" has held-out images of its own.

    Raises:
        TrainError: no images, or all smaller than a patch; the message names them.
    """
    data = config.data
    train = _open(config, data.train, data.inputs)
    held_out: dict[str, Images] = {}
    if data.validation:
        for k, (name, source) in enumerate(data.validation_sets()):
            inputs = data.validation_inputs[k : k + 1]
            held_out[name] = _open(config, [source], inputs, held_out=True)
    elif data.train == (EMBEDDED,):
        held_out[""] = _open(config, data.train, (), held_out=True)
    else:
        train.sizes()  # reads them in parallel, and the names in TFDS with them
        photographs = train.photographs()
        of = "images" if len(photographs) == len(train) else "photographs"
        if len(photographs) <= data.num_validation:
            raise TrainError(
                f"data.num-validation: {data.num_validation} {of} are to be held out of the "
                f"{len(photographs)} of {', '.join(data.train)}, and none would be left; give more "
                f"{of}, a smaller number, or others to validate on (--data.validation)"
            )
        chosen = [photographs[k] for k in _spread(len(photographs), data.num_validation)]
        # Tiles of a photograph overlap and look alike: all are removed, the middle one is measured.
        gone = {index for tiles in chosen for index in tiles}
        held_out[""] = train.select([tiles[len(tiles) // 2] for tiles in chosen])
        train = train.select(sorted(set(range(len(train))) - gone))
    train = _large_enough(train, config.data.patch_size, "data.patch-size", say)
    empty = [n for k, n in enumerate(data.train) if data.weights and not train.of_source(k)]
    if empty:
        raise TrainError(
            f"data.weights: no image of {', '.join(empty)} is left to train on, as all are held "
            "out or too small; leave it out of data.train and data.weights"
        )
    for name, images in held_out.items():
        if len(images) > data.num_validation:
            images = images.select(_spread(len(images), data.num_validation))
        field = f"data.validation ({name})" if len(held_out) > 1 else "data.validation"
        held_out[name] = _large_enough(images, min_validation_side(config.task), field, say)
    return train, held_out


def _open(
    config: Config, names: Sequence[str], inputs: Sequence[str], *, held_out: bool = False
) -> Images:
    data = config.data
    sources = [open_source(n, held_out=held_out, tfds_dir=data.tfds_dir) for n in names]
    field = "data.validation-inputs" if held_out else "data.inputs"
    given = [
        counterparts(open_source(n, tfds_dir=data.tfds_dir), source, f"{field}: {n}, of {name}")
        for n, source, name in zip(inputs, sources, names, strict=bool(inputs))
    ]
    return Images(
        sources,
        config.model.channels,
        inputs=given,
        scale=config.task.scale,
        cache_mb=data.cache_mb / max(1, data.workers),
    )


def _spread(total: int, count: int) -> list[int]:
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def _large_enough(images: Images, side: int, field: str, say: Callable[[str], None]) -> Images:
    sizes = images.sizes()
    small = [i for i, size in enumerate(sizes) if min(size) < side]
    if not small:
        return images
    named = [f"{images.name(i)} ({sizes[i][1]}x{sizes[i][0]})" for i in small[:5]]
    more = f" and {len(small) - 5} more" if len(small) > 5 else ""
    reason = f"smaller than {side}x{side}: {', '.join(named)}{more}"
    if len(small) == len(images):
        raise TrainError(
            f"{field}: all {len(small)} images are {reason}; give larger ones"
            + (" or a smaller patch" if field == "data.patch-size" else "")
        )
    say(f"skipped ({field}): {len(small)} of {len(images)} images, {reason}")
    return images.select(sorted(set(range(len(images))) - set(small)))


def example(
    task: Task, image: Decoded, patch: int, rng: np.random.Generator, *, detail: int = 1
) -> Example:
    """A random patch of an image or a pair, degraded, in one of its 8 orientations.

    The degradation is given a margin around the patch, so that near the border it acts as on the
    whole image (except for deblurring, where patches are periodic).

    Args:
        task: the degradation.
        image: uint8 `[H, W, C]`, at least patch x patch; for `Paired`, the clean one and its input.
        patch: side of the clean patch, a multiple of the task's scale.
        rng: source of all randomness.
        detail: number of random patches from which the most detailed is taken.
    """
    s, margin = task.scale, task.margin
    clean = image[0] if isinstance(image, tuple) else image
    height, width = clean.shape[:2]
    corners = [
        tuple(s * int(rng.integers((side - patch) // s + 1)) for side in (height, width))
        for _ in range(detail)
    ]
    top, left = corners[0]
    if detail > 1:
        top, left = max(corners, key=lambda at: _detail(clean[at[0] :, at[1] :][:patch, :patch]))
    # Not past the last whole block of s pixels: the task crops to a multiple of s.
    rows = slice(max(top - margin, 0), min(top + patch + margin, height - height % s))
    columns = slice(max(left - margin, 0), min(left + patch + margin, width - width % s))
    degraded = _degrade(task, image, rows, columns, rng)
    y, x = top - rows.start, left - columns.start
    degraded["target"] = degraded["target"][y : y + patch, x : x + patch]
    degraded["input"] = degraded["input"][y // s : (y + patch) // s, x // s : (x + patch) // s]
    quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
    return {key: _turn(value, quarters, mirror) for key, value in degraded.items()}


def _degrade(
    task: Task, image: Decoded, rows: slice, columns: slice, rng: np.random.Generator
) -> Example:
    """A part of an image, degraded; for a pair, that part of both."""
    if isinstance(image, tuple):
        assert isinstance(task, Paired)  # see Config.__post_init__
        clean, given = image
        y, x = (slice(n.start // task.scale, n.stop // task.scale) for n in (rows, columns))
        return task.example(clean[rows, columns], given[y, x])
    assert not isinstance(task, Paired)
    return task.degrade(image[rows, columns], rng)


def _detail(pixels: np.ndarray) -> float:
    """Mean absolute difference of neighboring pixels; of the green ones in a color image."""
    # Differences of 8-bit values are exact in 16 bits, without floats.
    luma = pixels[..., pixels.shape[-1] // 2].astype(np.int16)
    return float(sum(np.abs(np.diff(luma, axis=axis)).mean() for axis in (0, 1)))


def _turn(x: np.ndarray, quarters: int, mirror: bool) -> np.ndarray:
    if x.ndim < 2:  # a noise level has no direction
        return x
    x = np.rot90(x, quarters)
    return np.ascontiguousarray(x[:, ::-1] if mirror else x)


class _Examples:
    """`example` of the i-th image of the shuffled epochs, with the i-th generator."""

    def __init__(self, config: Config) -> None:
        self._task, self._patch, self._seed = config.task, config.data.patch_size, config.seed
        self._detail = config.data.detail

    def __call__(self, index: int, image: Decoded) -> Example:
        rng = np.random.default_rng([self._seed, _EXAMPLES, index])
        return example(self._task, image, self._patch, rng, detail=self._detail)


@contextlib.contextmanager
def host_batches(
    config: Config, images: Images, start: int = 0, process: int = 0, processes: int = 1
) -> Iterator[Iterator[Example]]:
    """This process's share of every batch, from step `start` to the last of the run.

    Args:
        config: batch size, patch, task, seed, threads and worker processes.
        images: training images.
        start: the first step.
        process, processes: process p of n gets rows p, p + n, ... of each batch.

    Yields:
        An iterator of NumPy batches `[batch_size / processes, ...]`.
    """
    data = config.data
    if data.weights:
        parts = [
            _epochs(config, images.of_source(k), _SHUFFLE, k) for k in range(len(data.weights))
        ]
        decoded = grain.MapDataset.mix(parts, data.weights).map(images.__getitem__)
    else:
        decoded = _epochs(config, images, _SHUFFLE)
    dataset = decoded.map_with_index(_Examples(config))[process::processes].batch(
        config.batch_size // processes
    )[start : config.steps]
    # A thread that waits for the next batch holds one: two batches ahead are enough.
    read = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=8 * data.threads)
    batches = dataset.to_iter_dataset(read)
    if data.workers:
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl flags
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=data.workers), worker_init_fn=_leave_ctrl_c
        )
    iterator = iter(batches)
    try:
        yield iterator
    finally:
        iterator.close()


def _epochs(config: Config, images: Any, *stream: int) -> grain.MapDataset:
    """Shuffled epochs, enough for a run on these images alone."""
    seed = int(np.random.SeedSequence([config.seed, *stream]).generate_state(1)[0])
    # Not endless: Grain's endless data sets report a length that overflows len().
    epochs = -(-config.steps * config.batch_size // len(images))
    return grain.MapDataset.source(images).shuffle(seed=seed).repeat(epochs)


def _leave_ctrl_c(index: int, count: int) -> None:
    """A terminal sends Ctrl-C to all processes; workers must go on until the run is saved."""
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
    config: Config, sets: Mapping[str, Images], say: Callable[[str], None] = print
) -> dict[str, list[Example]]:
    """The middle of each held-out image, degraded the same way in every run.

    All examples of a set have one size, a square of at most `data.validation_size`, so that one
    program measures them all.
    """
    examples = {}
    for name, images in sets.items():
        side = min(config.data.validation_size, *(n for size in images.sizes() for n in size))
        side -= side % config.task.scale
        if side < config.data.validation_size:
            of, middle = f" of {name}" if len(sets) > 1 else "", f"{side}x{side}"
            say(f"held-out images{of} are measured in their middle {middle}: one is no larger")
        examples[name] = [_middle(config.task, images, index, side) for index in range(len(images))]
    return examples


def _middle(task: Task, images: Images, index: int, side: int) -> Example:
    image = images[index]
    clean = image[0] if isinstance(image, tuple) else image
    top, left = ((n - side) // 2 for n in clean.shape[:2])
    if isinstance(image, tuple):  # align with the pixels of the input
        top, left = (n - n % task.scale for n in (top, left))
    # Not the seed of the run: different runs must be comparable.
    rng = np.random.default_rng([0, _HELD_OUT, index])
    return _degrade(task, image, slice(top, top + side), slice(left, left + side), rng)
