"""The operator on both sides: forward, forward with its transfer function prepared, gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import algorithm1, tuned
from benchmarks.our_operator import EPS, border, our_lam, our_operator
from benchmarks.sides import Arrays, Work, as_numpy, checked, compile_ours, nchw, nhwc
from benchmarks.sides import torch_program as program
from benchmarks.suite import Operator
from benchmarks.timing import Program
from converse_jax import apply_transfer, converse2d_transfer

Converse = Callable[..., torch.Tensor]


def build(row: Operator, device: str, *, compile: bool) -> Work:
    """The programs of a row on the same numbers, checked against Algorithm 1 in float64."""
    args = _inputs(row, device)
    # Where ours is prepared the tuned one is as well; Algorithm 1 has nothing to prepare.
    truth = _arrays(_theirs(row, algorithm1.converse2d)(*(a.double() for a in args)))

    converses = {"reference": algorithm1.converse2d, "tuned": _tuned(row, args)}

    def compiled(name: str) -> Program:
        return program(_theirs(row, torch.compile(converses[name], dynamic=False)), *args)

    return checked(
        _ours(row, args),
        {name: program(_theirs(row, converse), *args) for name, converse in converses.items()},
        {f"{name}_compiled": partial(compiled, name) for name in converses} if compile else {},
        _arrays,
        truth,
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


def _ours(row: Operator, args: Sequence[torch.Tensor]) -> tuple[Program, float | None, Arrays]:
    x, kernel, logit = (
        nhwc(args[0]),
        nhwc(args[1])[0],
        jnp.asarray(as_numpy(args[2])[0, :, 0, 0]),
    )
    if row.what == "forward prepared":
        transfer = converse2d_transfer(
            kernel, our_lam(logit), (row.padded, row.padded), scale=row.scale
        )

        def prepared(x: jax.Array, transfer: Any) -> tuple[jax.Array]:
            return (apply_transfer(x, transfer, **border(row)),)

        return *compile_ours(prepared, x, transfer), _our_arrays
    return *compile_ours(our_operator(row), x, kernel, logit, *map(nhwc, args[3:])), _our_arrays


def _our_arrays(found: Sequence[jax.Array]) -> list[np.ndarray]:
    """A result, or the gradients of map, kernel and logit."""
    if len(found) == 1:
        return [nchw(found[0])]
    x, kernel, logit = found
    return [nchw(x), nchw(kernel[None]), np.asarray(logit)[None, :, None, None]]


def _tuned(row: Operator, args: Sequence[torch.Tensor]) -> Converse:
    if row.what != "forward prepared":
        return tuned.converse2d
    side = row.padded
    known = tuned.transfer(args[1], args[2], (side, side), scale=row.scale, eps=EPS)
    return lambda x, *_, **options: tuned.apply(x, *known, **border(row))


def _theirs(row: Operator, converse: Converse) -> Callable[..., Sequence[torch.Tensor]]:
    converse = partial(converse, scale=row.scale, eps=EPS, **border(row))

    def forward(*inputs: torch.Tensor) -> list[torch.Tensor]:
        with torch.inference_mode():
            return [converse(*inputs)]

    def gradient(*args: torch.Tensor) -> Sequence[torch.Tensor]:
        *inputs, cotangent = args
        inputs = [a.detach().requires_grad_() for a in inputs]
        return torch.autograd.grad(converse(*inputs), inputs, cotangent)

    return gradient if row.what == "gradient" else forward


def _arrays(found: Sequence[torch.Tensor]) -> list[np.ndarray]:
    return [as_numpy(a) for a in found]
