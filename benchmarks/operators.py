"""The operator on both sides: forward, forward with its transfer function prepared, gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import torch

from benchmarks import algorithm1, ours, tuned
from benchmarks.sides import Work, channels_last, checked, our_program, torch_program
from benchmarks.suite import Operator
from benchmarks.timing import Program
from converse_jax import apply_transfer, converse2d_transfer

Converse = Callable[..., torch.Tensor]


def build(row: Operator, device: str, *, compile: bool) -> Work:
    """The programs of a row on the same numbers, checked against Algorithm 1 in float64."""
    args = _inputs(row, device)
    # Where ours is prepared the tuned one is as well; Algorithm 1 has nothing to prepare.
    converses = {"reference": algorithm1.converse2d, "tuned": _tuned(row, args)}
    our_side, planned_mb = _ours(row, args)
    eager = {name: torch_program(_theirs(row, f), *args) for name, f in converses.items()}

    def compiled(name: str) -> Program:
        return torch_program(_theirs(row, torch.compile(converses[name], dynamic=False)), *args)

    return checked(
        {"ours": our_side, **eager},
        {f"{name}_compiled": partial(compiled, name) for name in converses} if compile else {},
        _theirs(row, algorithm1.converse2d)(*(a.double() for a in args)),
        planned_mb,
    )


def _inputs(row: Operator, device: str) -> list[torch.Tensor]:
    """Map, kernel and lambda logit as PyTorch lays them; for gradients a cotangent as well."""
    torch.manual_seed(0)
    n, c, k, side = row.batch, row.channels, row.kernel_size, row.scale * row.size
    taps = torch.randn(1, c, k * k).softmax(dim=-1).reshape(1, c, k, k)
    # Kernels as small as the stride that sum to 1 have no gradient in lambda.
    taps = taps * (0.5 + torch.rand(1, c, 1, 1))
    inputs = [torch.randn(n, c, row.size, row.size), taps, 0.5 * torch.randn(1, c, 1, 1)]
    if row.what == "gradient":
        inputs.append(torch.randn(n, c, side, side))
    return [a.to(device) for a in inputs]


def _ours(row: Operator, args: Sequence[torch.Tensor]) -> tuple[Program, float | None]:
    # A kernel `[1, C, k, k]` of PyTorch's is `[k, k, C]` here, a logit `[1, C, 1, 1]` is `[C]`.
    pairs = zip(args, row.shapes, strict=True)
    inputs = [jnp.asarray(channels_last(a).reshape(shape)) for a, shape in pairs]
    if row.what != "forward prepared":
        return our_program(ours.operator(row), *inputs)
    x, kernel, logit = inputs
    padded = (row.padded, row.padded)
    transfer = converse2d_transfer(kernel, ours.lam_of(logit), padded, scale=row.scale)

    def prepared(x: jax.Array, transfer: Any) -> jax.Array:
        return apply_transfer(x, transfer, **row.border)

    return our_program(prepared, x, transfer)


def _tuned(row: Operator, args: Sequence[torch.Tensor]) -> Converse:
    if row.what != "forward prepared":
        return tuned.converse2d
    padded = (row.padded, row.padded)
    transfer = tuned.transfer(args[1], args[2], padded, scale=row.scale, eps=ours.EPS)
    return lambda x, *_, **options: tuned.apply(x, *transfer, **row.border)


def _theirs(row: Operator, converse: Converse) -> Callable[..., Any]:
    converse = partial(converse, scale=row.scale, eps=ours.EPS, **row.border)

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return converse(*inputs)

    def gradient(*args: torch.Tensor) -> Sequence[torch.Tensor]:
        *inputs, cotangent = args
        inputs = [a.detach().requires_grad_() for a in inputs]
        return torch.autograd.grad(converse(*inputs), inputs, cotangent)

    return gradient if row.what == "gradient" else forward
