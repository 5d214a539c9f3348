"""The two sides of a race: a compiled JAX program, and a PyTorch one, eager and compiled.

The same numbers lie channels last for ours and channels first for PyTorch, on the device before
the clock starts.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.process import one_line
from benchmarks.timing import Program

TOLERANCE = 1e-3
"""Largest error of ours against Algorithm 1 in float64, relative to the largest value."""
TOLERANCE_TF32 = 5e-2


@dataclass(frozen=True)
class Setup:
    """How the sides run: on which device, and with which largest error."""

    on_gpu: bool = False
    compile: bool = False
    tolerance: float = TOLERANCE

    @property
    def torch_device(self) -> str:
        """What PyTorch calls it."""
        return "cuda" if self.on_gpu else "cpu"


@dataclass(frozen=True)
class Work:
    """One row, ready to be timed.

    Attributes:
      programs: `ours`; `reference`, Algorithm 1 in eager PyTorch; `compiled`, the same under
        `torch.compile`, absent where that does not work or is not wanted.
      compiled_note: why it does not work.
      error: of ours against Algorithm 1 in float64.
      reference_error: of Algorithm 1 in float32.
      planned_mb: what XLA plans for temporaries and results.
    """

    programs: dict[str, Program]
    compiled_note: str | None
    error: float
    reference_error: float
    planned_mb: float | None


def checked(
    setup: Setup,
    ours: tuple[Program, float | None],
    reference: Program,
    make_compiled: Callable[[], Program],
    our_error: Callable[[Any], float],
    their_error: Callable[[Any], float],
) -> Work:
    """Run every program once, and measure its error."""
    program, planned_mb = ours
    programs = {"ours": program, "reference": reference}
    error, reference_error = our_error(program()), their_error(reference())
    note = None
    if setup.compile:
        # Where Algorithm 1 itself is far off, its compiled form is as well, by another amount.
        largest = max(setup.tolerance, 10 * reference_error)
        try:
            programs["compiled"] = _compiled(make_compiled, their_error, largest)
        except Exception as problem:  # compilers fail in many ways; the race goes on without it
            note = one_line(problem)
    return Work(programs, note, error, reference_error, planned_mb)


def _compiled(
    make: Callable[[], Program], error: Callable[[Any], float], largest: float
) -> Program:
    torch._dynamo.reset()  # a function compiled for many shapes would fall back to eager
    logging.getLogger("torch").setLevel(logging.ERROR)
    with warnings.catch_warnings():  # complex operators run as eager ones do, it warns
        warnings.simplefilter("ignore")
        program = make()
        found = error(program())
    if not found <= largest:
        raise ValueError(f"the result is wrong by {found:.1e}")
    return program


def compile_ours(function: Callable[..., Any], *args: Any) -> tuple[Program, float | None]:
    """Our program on `args`, and the MB that XLA plans for it beyond them."""
    compiled = jax.jit(function).lower(*args).compile()
    memory = compiled.memory_analysis()
    planned_mb = None
    if memory is not None:
        planned_mb = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6
    return lambda: jax.block_until_ready(compiled(*args)), planned_mb


def torch_program(function: Callable[..., Any], *args: Any) -> Program:
    """A PyTorch program that returns when its results are there."""
    if not any(isinstance(a, torch.Tensor) and a.is_cuda for a in args):
        return partial(function, *args)

    def synchronised() -> Any:
        result = function(*args)
        torch.cuda.synchronize()
        return result

    return synchronised


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
