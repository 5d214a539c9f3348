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
import numpy as np
import torch

from benchmarks.process import one_line
from benchmarks.timing import Program

TOLERANCE = 1e-3
"""Largest error of ours against Algorithm 1 in float64, relative to the largest value."""


class WrongError(Exception):
    """A program and Algorithm 1 differ: nothing is timed."""


@dataclass
class Work:
    """One row, ready to be timed.

    Attributes:
      programs: `ours`; `reference`, Algorithm 1 in eager PyTorch; others of PyTorch.
      planned_mb: what XLA plans for temporaries and results of ours.
      errors: of ours and of the eager ones in float32, against Algorithm 1 in float64.
      notes: why programs under `torch.compile` are missing.
    """

    programs: dict[str, Program]
    planned_mb: float | None
    errors: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)


def checked(
    programs: dict[str, Program],
    to_compile: Mapping[str, Callable[[], Program]],
    exact: Any,
    planned_mb: float | None = None,
) -> Work:
    """Run every program once and compare it with `exact`, the results of Algorithm 1.

    Raises:
      WrongError: ours, or one of the eager ones but Algorithm 1 itself, is wrong.
    """
    truth = arrays(exact)
    errors = {name: relative_error(arrays(run()), truth) for name, run in programs.items()}
    for name in errors.keys() - {"reference"}:
        check(errors[name], name=name)
    work = Work(programs, planned_mb, errors)
    # Where Algorithm 1 itself is far off, its compiled form is as well, by another amount.
    largest = max(TOLERANCE, 10 * errors["reference"])
    for name, make in to_compile.items():
        torch._dynamo.reset()  # a function compiled for many shapes would fall back to eager
        logging.getLogger("torch").setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():  # complex operators run as eager ones do, it warns
                warnings.simplefilter("ignore")
                program = make()
                check(relative_error(arrays(program()), truth), largest, name)
            work.programs[name] = program
        except Exception as problem:  # compilers fail in many ways; the race goes on without it
            work.notes[name] = one_line(problem)
    return work


def check(error: float, largest: float = TOLERANCE, name: str = "ours") -> None:
    """Raise WrongError for an error that is too large."""
    if not error <= largest:
        raise WrongError(f"{name}: differs from Algorithm 1 by {error:.1e}, more than {largest}")


def our_program(function: Callable[..., Any], *args: Any) -> tuple[Program, float | None]:
    """Our program on `args`, and the MB that XLA plans for it beyond them."""
    compiled = jax.jit(function).lower(*args).compile()
    return lambda: jax.block_until_ready(compiled(*args)), planned_mb(compiled)


def planned_mb(compiled: Any) -> float | None:
    """MB of temporaries and results, without those results that lie where arguments did."""
    plan = compiled.memory_analysis()
    if plan is None:
        return None
    results = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return (plan.temp_size_in_bytes + results) / 1e6


def torch_program(function: Callable[..., Any], *args: Any) -> Program:
    """A PyTorch program that returns when its results are there."""

    def program() -> Any:
        result = function(*args)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return result

    return program


def arrays(result: Any) -> list[np.ndarray]:
    """One result or several, of either side, as ours lies."""
    several = result if isinstance(result, (list, tuple)) else [result]
    return [channels_last(a) if isinstance(a, torch.Tensor) else np.asarray(a) for a in several]


def channels_last(x: torch.Tensor) -> np.ndarray:
    """On the host, with the channels, axis 1 in PyTorch, at the end, as ours has them."""
    array = x.detach().cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if array.ndim > 1 else array


def relative_error(found: Sequence[Any], truth: Sequence[Any]) -> float:
    """The largest of `max|a - truth| / max|truth|`; axes of length 1 do not count."""
    worst = 0.0
    for a, b in zip(found, truth, strict=True):
        a, b = (np.squeeze(np.asarray(value, np.float64)) for value in (a, b))
        if a.shape != b.shape:
            raise ValueError(f"the two sides disagree on a shape: {a.shape} and {b.shape}")
        if not np.all(np.isfinite(a)):
            return float("inf")
        worst = max(worst, float(np.max(np.abs(a - b)) / np.max(np.abs(b))))
    return worst
