"""Held-out pictures: restored by the averaged weights, measured as the paper's tables do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jax.sharding import Mesh

from converse_jax.imaging import score, to_uint8
from train.config import Config
from train.state import Arrays, Network, replicated, shared
from train.tasks import Example


@dataclass(frozen=True)
class Scores:
    """Means over the held-out pictures, and the pictures; those of the first set.

    Attributes:
      psnr: in dB; of super-resolution on luma, as in the tables.
      ssim: likewise.
      restored: float32 ``[H, W, C]`` each.
      by_set: of several sets, "psnr/NAME" and "ssim/NAME" of each.
    """

    psnr: float
    ssim: float
    restored: list[np.ndarray]
    by_set: dict[str, float] = field(default_factory=dict)


class HeldOut:
    """Sets of held-out pictures, ready to be restored: one picture on each device at a time."""

    def __init__(
        self,
        config: Config,
        sets: Mapping[str, Sequence[Example]],
        network: Network,
        mesh: Mesh,
    ) -> None:
        """Take examples, all of a set of one size; the first set is the one that is shown."""
        self._config = config
        self._sets = dict(sets)
        self.examples = list(next(iter(sets.values())))
        self._mesh = mesh
        self._restore = jax.jit(
            network,
            in_shardings=(replicated(mesh), shared(mesh)),
            out_shardings=replicated(mesh),
        )

    def __call__(self, params: Arrays) -> Scores:
        """Restore and measure all. Every process must call it."""
        found = {
            name: self._scores(examples, self._restored(params, examples))
            for name, examples in self._sets.items()
        }
        first = next(iter(found.values()))
        if len(found) == 1:
            return first
        by_set = [
            (f"{measure}/{name}", getattr(scores, measure))
            for name, scores in found.items()
            for measure in ("psnr", "ssim")
        ]
        return replace(first, by_set=dict(by_set))

    def _restored(self, params: Arrays, examples: Sequence[Example]) -> list[np.ndarray]:
        devices = self._mesh.size
        restored: list[np.ndarray] = []
        for start in range(0, len(examples), devices):
            part = list(examples[start : start + devices])
            # The last part is filled up: one program, whatever the number of pictures.
            filled = part + [part[-1]] * (devices - len(part))
            batch = {key: np.stack([e[key] for e in filled]) for key in part[0] if key != "target"}
            arrays = {key: self._put(value) for key, value in batch.items()}
            restored += list(np.asarray(self._restore(params, arrays))[: len(part)])
        return restored

    def score(self, pictures: Sequence[np.ndarray]) -> Scores:
        """Measure pictures in the place of restored ones; NaN where they are not finite."""
        return self._scores(self.examples, pictures)

    def psnr(self, index: int, picture: np.ndarray) -> float:
        """PSNR of one picture in the place of the restored one, in dB."""
        return self._score(self.examples[index], picture)[0]

    def _scores(self, examples: Sequence[Example], pictures: Sequence[np.ndarray]) -> Scores:
        found = [self._score(e, picture) for e, picture in zip(examples, pictures, strict=True)]
        psnr, ssim = (float(np.mean(column)) for column in zip(*found, strict=True))
        return Scores(psnr, ssim, list(pictures))

    def _score(self, example: Example, picture: np.ndarray) -> tuple[float, float]:
        if not np.isfinite(picture).all():
            return float("nan"), float("nan")
        task, target = self._config.task, to_uint8(example["target"])
        found = score(to_uint8(picture), target, task=task.name, scale=task.scale)
        # The tables of super-resolution are on luma.
        if task.name == "sr":
            return found["psnr_y"], found["ssim_y"]
        return found["psnr"], found["ssim"]

    def baseline(self) -> tuple[str, Scores]:
        """What can be had without a network, and its name; the input itself where nothing can."""
        found = [self._config.task.baseline(e) for e in self.examples]
        named = [b for b in found if b is not None]
        if not named:
            return "input", self.score([e["input"] for e in self.examples])
        return named[0][0], self.score([picture for _, picture in named])

    def _put(self, value: np.ndarray) -> jax.Array:
        # Every process holds all held-out pictures, and gives its devices theirs.
        return jax.make_array_from_callback(value.shape, shared(self._mesh), lambda i: value[i])
