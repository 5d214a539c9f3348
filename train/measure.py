"""Held-out images, restored with the averaged weights and measured as in the paper's tables.

Examples that are already clean, their input equal to their target in 8 bits, are not measured: the
PSNR of the input is infinite, and no network can improve it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jax.sharding import Mesh

from converse_jax.imaging import score, to_uint8
from train.config import Config
from train.state import Arrays, FunctionalNetwork, batch_sharding, replicated_sharding
from train.tasks import Example


@dataclass(frozen=True)
class Scores:
    """Means over the first set of held-out images, and the restored images.

    Attributes:
        psnr: in dB, on luma for super-resolution, as in the tables. Finite, or NaN if an image is
            not finite or all are already clean.
        ssim: on luma for super-resolution; NaN like `psnr`.
        restored: float32 `[H, W, C]` each.
        by_set: for several sets, PSNR and SSIM of each: "psnr/NAME" (or "psnr_y/NAME"),
            "ssim/NAME".
    """

    psnr: float
    ssim: float
    restored: list[np.ndarray]
    by_set: dict[str, float] = field(default_factory=dict)

    def numbers(self, measured_as: str) -> dict[str, float]:
        """All scores by their names in the log; `measured_as` is the name of the PSNR."""
        return {measured_as: self.psnr, _ssim_name(measured_as): self.ssim, **self.by_set}


class HeldOut:
    """Sets of held-out images, restored one per device at a time."""

    def __init__(
        self,
        config: Config,
        sets: Mapping[str, Sequence[Example]],
        network: FunctionalNetwork,
        mesh: Mesh,
    ) -> None:
        """Take sets of examples, each set of one size; the first is shown in figures."""
        self._config = config
        self._sets = dict(sets)
        self.examples = list(next(iter(sets.values())))
        self._mesh = mesh
        self._batch_sharding = batch_sharding(mesh)
        self._restore = jax.jit(
            network,
            in_shardings=(replicated_sharding(mesh), self._batch_sharding),
            out_shardings=replicated_sharding(mesh),
        )

    def __call__(self, weights: Arrays) -> Scores:
        """Restore and measure all sets. Every process must call it."""
        scores = {
            name: self._scores(examples, self._restored(weights, examples))
            for name, examples in self._sets.items()
        }
        first = next(iter(scores.values()))
        if len(scores) == 1:
            return first
        psnr = self._config.task.measured_as
        by_set = {f"{psnr}/{name}": of_set.psnr for name, of_set in scores.items()}
        by_set |= {f"{_ssim_name(psnr)}/{name}": of_set.ssim for name, of_set in scores.items()}
        return replace(first, by_set=by_set)

    def _restored(self, weights: Arrays, examples: Sequence[Example]) -> list[np.ndarray]:
        devices = self._mesh.size
        restored: list[np.ndarray] = []
        for start in range(0, len(examples), devices):
            part = list(examples[start : start + devices])
            # Pad the last part, so that one program serves any number of images.
            filled = part + [part[-1]] * (devices - len(part))
            batch = {key: np.stack([e[key] for e in filled]) for key in part[0] if key != "target"}
            arrays = {key: self._put(value) for key, value in batch.items()}
            restored += list(np.asarray(self._restore(weights, arrays))[: len(part)])
        return restored

    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Measure images as if they were the restored ones; NaN if one is not finite."""
        return self._scores(self.examples, images)

    @property
    def num_clean(self) -> int:
        """How many of the examples are already clean."""
        return sum(map(_is_clean, self.examples))

    def psnr(self, index: int, image: np.ndarray) -> float:
        """PSNR of an image as if it were the restored one, in dB."""
        return self._score(self.examples[index], image)[0]

    def _scores(self, examples: Sequence[Example], images: Sequence[np.ndarray]) -> Scores:
        pairs = [
            self._score(e, image)
            for e, image in zip(examples, images, strict=True)
            if not _is_clean(e)
        ]
        if not pairs:
            return Scores(math.nan, math.nan, list(images))
        # One infinite PSNR would hide the others: an exact image counts as one value off by one
        # level.
        exact = 10 * math.log10(255**2 * examples[0]["target"].size)
        psnr = float(np.mean([min(psnr, exact) for psnr, _ in pairs]))
        return Scores(psnr, float(np.mean([ssim for _, ssim in pairs])), list(images))

    def _score(self, example: Example, image: np.ndarray) -> tuple[float, float]:
        if not np.isfinite(image).all():
            return float("nan"), float("nan")
        task, target = self._config.task, to_uint8(example["target"])
        metrics = score(to_uint8(image), target, task=task.name, scale=task.scale)
        # The tables measure super-resolution on luma.
        if task.name == "sr":
            return metrics["psnr_y"], metrics["ssim_y"]
        return metrics["psnr"], metrics["ssim"]

    def baseline(self) -> tuple[str, Scores]:
        """Name and scores of the best result without a network; of the input if there is none."""
        baselines = [self._config.task.baseline(e) for e in self.examples]
        named = [b for b in baselines if b is not None]
        if not named:
            return "input", self.score([e["input"] for e in self.examples])
        return named[0][0], self.score([image for _, image in named])

    def _put(self, value: np.ndarray) -> jax.Array:
        # Every process holds all held-out images, and gives its devices theirs.
        return jax.make_array_from_callback(value.shape, self._batch_sharding, lambda i: value[i])


def _is_clean(example: Example) -> bool:
    given, target = example["input"], example["target"]
    if given.shape != target.shape or not np.isfinite(given).all():
        return False
    return np.array_equal(to_uint8(given), to_uint8(target))


def _ssim_name(psnr_name: str) -> str:
    return psnr_name.replace("psnr", "ssim")
