"""The operator on both sides: forward, forward with its transfer function prepared, gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import algorithm1
from benchmarks.sides import (
    Setup,
    Work,
    as_numpy,
    checked,
    compile_ours,
    nchw,
    nhwc,
    relative_error,
    torch_program,
)
from benchmarks.suite import Operator
from benchmarks.timing import Program
from converse_jax import apply_transfer, converse2d, converse2d_transfer

EPS = 1e-5


def build(row: Operator, setup: Setup) -> Work:
    """The programs of a row on the same numbers, checked against Algorithm 1 in float64."""
    inputs, cotangent = _inputs(row, setup)
    make: Callable[..., Any]
    if row.what == "gradient":
        ours, mine = _our_gradient(row, inputs, cotangent)
        make, theirs = _their_gradient, lambda found: [as_numpy(g) for g in found]
        args = (*inputs, cotangent)
    else:
        ours, mine = _our_forward(row, inputs)
        make, theirs = _their_forward, lambda found: [as_numpy(found)]
        args = inputs
    # The reference is all of Algorithm 1 where ours is prepared, too: it has nothing to prepare.
    eager = make(row, algorithm1.converse2d)
    truth = theirs(eager(*(a.double() for a in args)))

    def make_compiled() -> Program:
        return torch_program(make(row, torch.compile(algorithm1.converse2d, dynamic=False)), *args)

    return checked(
        setup,
        ours,
        torch_program(eager, *args),
        make_compiled,
        lambda found: relative_error(mine(found), truth),
        lambda found: relative_error(theirs(found), truth),
    )


def _inputs(row: Operator, setup: Setup) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Map, kernel and lambda logit as PyTorch lays them, and a cotangent of the result."""
    torch.manual_seed(0)
    n, c, k = row.batch, row.channels, row.kernel_size
    taps = torch.randn(1, c, k * k).softmax(dim=-1).reshape(1, c, k, k)
    # Kernels as small as the stride that sum to 1 have no gradient in lambda.
    taps = taps * (0.5 + torch.rand(1, c, 1, 1))
    inputs = torch.randn(n, c, row.size, row.size), taps, 0.5 * torch.randn(1, c, 1, 1)
    side = row.scale * row.size
    cotangent = torch.randn(n, c, side, side)
    return tuple(a.to(setup.torch_device) for a in inputs), cotangent.to(setup.torch_device)


def _ours(inputs: Sequence[torch.Tensor]) -> tuple[jax.Array, ...]:
    x, weight, bias = inputs
    kernel = np.ascontiguousarray(np.moveaxis(as_numpy(weight)[0], 0, -1))
    return nhwc(x), jnp.asarray(kernel), jnp.asarray(as_numpy(bias)[0, :, 0, 0])


def _lam(logit: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(logit - 9) + EPS


def _our_converse(row: Operator, x: jax.Array, kernel: jax.Array, logit: jax.Array) -> jax.Array:
    return converse2d(x, kernel, _lam(logit), scale=row.scale, **_border(row))


def _our_forward(row: Operator, inputs: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    x, kernel, logit = _ours(inputs)
    if row.what == "forward prepared":
        shape = (row.padded, row.padded)
        transfer = converse2d_transfer(kernel, _lam(logit), shape, scale=row.scale)
        program = compile_ours(partial(apply_transfer, **_border(row)), x, transfer)
    else:
        program = compile_ours(partial(_our_converse, row), x, kernel, logit)
    return program, lambda y: [nchw(y)]


def _our_gradient(
    row: Operator, inputs: Sequence[torch.Tensor], cotangent: torch.Tensor
) -> tuple[Any, ...]:
    def loss(x: jax.Array, kernel: jax.Array, logit: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.sum(_our_converse(row, x, kernel, logit) * weights)

    def arrays(found: Any) -> list[np.ndarray]:
        x, kernel, logit = found
        kernel = np.moveaxis(np.asarray(kernel), -1, 0)[None]
        return [nchw(x), kernel, np.asarray(logit)[None, :, None, None]]

    program = jax.grad(loss, argnums=(0, 1, 2))
    return compile_ours(program, *_ours(inputs), nhwc(cotangent)), arrays


def _border(row: Operator) -> dict[str, Any]:
    return {"padding": row.padding, "padding_mode": row.padding_mode}


def _options(row: Operator) -> dict[str, Any]:
    return {"scale": row.scale, "eps": EPS, **_border(row)}


def _their_forward(
    row: Operator, converse: Callable[..., torch.Tensor]
) -> Callable[..., torch.Tensor]:
    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return converse(*inputs, **_options(row))

    return forward


def _their_gradient(
    row: Operator, converse: Callable[..., torch.Tensor]
) -> Callable[..., tuple[torch.Tensor, ...]]:
    def gradient(*args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *inputs, cotangent = args
        inputs = [a.detach().requires_grad_() for a in inputs]
        y = converse(*inputs, **_options(row))
        return torch.autograd.grad(torch.sum(y * cotangent), inputs)

    return gradient
