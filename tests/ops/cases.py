"""One table of awkward cases for all tests of the operator."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Case:
    """Arguments of the operator: size of map and kernel, options, lambda."""

    shape: tuple[int, int]
    kernel: tuple[int, int]
    scale: int
    padding: int
    padding_mode: str
    x0: str
    lam: float

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape + self.kernel))
        return f"{size}-s{self.scale}-p{self.padding}-{self.padding_mode}-{self.x0}-{self.lam}"

    @property
    def options(self) -> dict[str, int | str]:
        """The keyword arguments of `converse2d`."""
        return {
            "scale": self.scale,
            "padding": self.padding,
            "padding_mode": self.padding_mode,
            "x0": self.x0,
        }

    @property
    def methods(self) -> list[str]:
        """The ways in which it can be evaluated."""
        return ["fft", "dft"] + ["direct"] * (max(self.kernel) <= self.scale)

    def arrays(self, *batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, kernel and lam of three channels, float64."""
        rng = np.random.default_rng(sum(self.shape) * 100 + sum(self.kernel))
        x = rng.normal(size=(*batch, *self.shape, 3))
        kernel = rng.normal(size=(*self.kernel, 3))
        return x, kernel, self.lam * np.array([0.5, 1.0, 2.0])

    def estimate(self, *batch: int) -> np.ndarray:
        """An initial estimate of three channels, float64."""
        size = (self.scale * n for n in self.shape)
        return np.random.default_rng(sum(self.kernel)).normal(size=(*batch, *size, 3))


# One pixel, one row, odd, even, prime, square and not; kernels odd, even, not square, and as large
# as the map allows. The remaining options take turns, so that all pairs occur.
_SHAPES = [(1, 1), (1, 7), (5, 4), (7, 7), (6, 8)]
_KERNELS = [(1, 1), (2, 2), (3, 3), (4, 2), (2, 7)]
# Lengths that share no factor, nor with the four scales.
_MODES = itertools.cycle(["circular", "replicate", "constant", "reflect", "circular"])
_PADDINGS = itertools.cycle([0, 1, 2, 6, 3, 4, 1])
_ESTIMATES = itertools.cycle(["nearest", "nearest", "zero"])
_LAMBDAS = itertools.cycle([1e-2, 1e-4, 1.0, 1e-1, 1e-3, 1e2, 1e-5, 1e-2, 1e1, 1e-3, 1e-4])


def _cases() -> list[Case]:
    cases = []
    for shape, kernel, scale in itertools.product(_SHAPES, _KERNELS, (1, 2, 3, 4)):
        mode, padding = next(_MODES), next(_PADDINGS)
        if mode == "reflect":
            padding = min(padding, min(shape) - 1)
        # The oracle is dense: cubic in the number of pixels it solves for.
        while padding and scale**2 * (shape[0] + 2 * padding) * (shape[1] + 2 * padding) > 700:
            padding -= 1
        fits = all(k <= scale * (n + 2 * padding) for k, n in zip(kernel, shape, strict=True))
        if fits:
            case = Case(shape, kernel, scale, padding, mode, next(_ESTIMATES), next(_LAMBDAS))
            cases.append(case)
    return cases


CASES = _cases()


def sample(count: int, cases: Sequence[Case]) -> list[Case]:
    """So many of them, drawn: options are cycled through, and every n-th case repeats some."""
    drawn = sorted(random.Random(0).sample(range(len(cases)), count))
    return [cases[i] for i in drawn]


def sparse(step: int, cases: Sequence[Case] = CASES) -> list[Any]:
    """One case in so many; the others are slow tests."""
    quick = sample(-(-len(cases) // step), cases)
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


# Enough for what need not be seen for every combination.
SOME = sample(8, [case for case in CASES if case.shape in ((5, 4), (7, 7))])
