"""The two sides of a race: a compiled JAX program, and PyTorch ones, eager and compiled.

The same numbers lie channels last for ours and channels first for PyTorch, on the device before
the clock starts.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.process import one_line
from benchmarks.timing import Program

TOLERANCE = 1e-3
"""Largest error of ours against Algorithm 1 in float64, relative to the largest value."""

Arrays = Callable[[Any], Sequence[Any]]
"""From what a program returns to arrays as PyTorch lays them."""


class WrongError(Exception):
    """A program and Algorithm 1 differ: nothing is timed."""


@dataclass
class Work:
    """One row, ready to be timed.

    Attributes:
      programs: `ours`; `reference`, Algorithm 1 in eager PyTorch; others of PyTorch.
      planned_mb: what XLA plans for temporaries and results of ours.
      errors: of ours and of Algorithm 1 in float32, against Algorithm 1 in float64.
      notes: why the programs under `torch.compile` that are missing are missing.
    """

    programs: dict[str, Program]
    planned_mb: float | None
    errors: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)


def checked(
    ours: tuple[Program, float | None, Arrays],
    eager: Mapping[str, Program],
    compiled: Mapping[str, Callable[[], Program]],
    theirs: Arrays,
    truth: Sequence[Any],
) -> Work:
    """Run every program once, and compare it with the truth.

    Raises:
      WrongError: ours, or one of the eager ones but Algorithm 1 itself, is wrong.
    """
    program, planned_mb, mine = ours
    errors = {"ours": relative_error(mine(program()), truth)}
    errors |= {name: relative_error(theirs(run()), truth) for name, run in eager.items()}
    for name in errors.keys() - {"reference"}:
        check(errors[name], TOLERANCE, name)
    work = Work({"ours": program, **eager}, planned_mb, errors)
    # Where Algorithm 1 itself is far off, its compiled form is as well, by another amount.
    largest = max(TOLERANCE, 10 * errors["reference"])
    for name, make in compiled.items():
        torch._dynamo.reset()  # a function compiled for many shapes would fall back to eager
        logging.getLogger("torch").setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():  # complex operators run as eager ones do, it warns
                warnings.simplefilter("ignore")
                program = make()
                check(relative_error(theirs(program()), truth), largest, name)
            work.programs[name] = program
        except Exception as problem:  # compilers fail in many ways; the race goes on without it
            work.notes[name] = one_line(problem)
    return work


def check(error: float, largest: float, name: str = "ours") -> None:
    """Raise WrongError for an error that is too large."""
    if not error <= largest:
        raise WrongError(f"{name}: differs from Algorithm 1 by {error:.1e}, more than {largest}")


def compile_ours(function: Callable[..., Any], *args: Any) -> tuple[Program, float | None]:
    """Our program on `args`, and the MB that XLA plans for it beyond them."""
    compiled = jax.jit(function).lower(*args).compile()
    plan = compiled.memory_analysis()
    planned = (plan.temp_size_in_bytes + plan.output_size_in_bytes) / 1e6 if plan else None
    return lambda: jax.block_until_ready(compiled(*args)), planned


def torch_program(function: Callable[..., Any], *args: Any) -> Program:
    """A PyTorch program that returns when its results are there."""

    def program() -> Any:
        result = function(*args)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return result

    return program


def relative_error(arrays: Sequence[Any], truth: Sequence[Any]) -> float:
    """The largest over all arrays of `max|a - truth| / max|truth|`."""
    worst = 0.0
    for a, b in zip(arrays, truth, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"the two sides disagree on a shape: {a.shape} and {b.shape}")
        if not np.all(np.isfinite(a)):
            return float("inf")
        worst = max(worst, float(np.max(np.abs(a - b)) / np.max(np.abs(b))))
    return worst


def as_numpy(x: torch.Tensor) -> np.ndarray:
    """A PyTorch array on the host."""
    return x.detach().cpu().numpy()


def nhwc(x: torch.Tensor) -> jax.Array:
    """A map of PyTorch's as ours."""
    return jnp.asarray(np.ascontiguousarray(np.moveaxis(as_numpy(x), 1, -1)))


def nchw(x: jax.Array) -> np.ndarray:
    """A map of ours as PyTorch lays it."""
    return np.moveaxis(np.asarray(x), -1, 1)
