"""Both sides of each row on the same numbers: a compiled JAX program, and PyTorch ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from benchmarks import ours, theirs
from benchmarks.measure import Program
from benchmarks.suite import Network, Operator, Row
from converse_jax import apply_transfer, converse2d_transfer
from converse_jax.weights import load_torch_state
from train.state import BATCH_AXIS, batch_sharding, make_state, start_from
from train.step import jit_step, make_step

Converse = Callable[..., torch.Tensor]


class Sides(NamedTuple):
    """What a row compares.

    Attributes:
      ours: our program, and the MB that XLA plans for its temporaries and results.
      theirs: make PyTorch programs, `reference` of Algorithm 1; given True under `torch.compile`.
      exact: computes the results of Algorithm 1, in float64 where memory allows it.
    """

    ours: tuple[Program, float]
    theirs: Mapping[str, Callable[[bool], Program]]
    exact: Program


def build(row: Row, device: str) -> Sides:
    """Both sides of a row."""
    if isinstance(row, Operator):
        return _operator(row, device)
    return _inference(row, device) if row.what == "inference" else _training(row, device)


def _operator(row: Operator, device: str) -> Sides:
    args = _operator_inputs(row, device)
    our_args = _our_arrays(args, row.shapes)
    converses: dict[str, Converse] = {"reference": theirs.algorithm1, "tuned": theirs.tuned}
    if row.what == "forward prepared":  # Algorithm 1 has nothing to prepare
        padded, (x, kernel, logit) = (row.padded, row.padded), our_args
        transfer = converse2d_transfer(kernel, ours.lam_of(logit), padded, scale=row.scale)
        program = ours.compiled(partial(apply_transfer, **row.border), x, transfer)
        prepared = theirs.tuned_transfer(args[1], args[2], padded, scale=row.scale, eps=ours.EPS)
        converses["tuned"] = lambda x, *_, **options: theirs.apply_tuned(x, *prepared, **row.border)
    else:
        program = ours.compiled(ours.operator(row), *our_args)

    def make(converse: Converse, compile: bool) -> Program:
        chosen = torch.compile(converse, dynamic=False) if compile else converse
        return torch_program(_their_operator(row, chosen), *args)

    makers = {name: partial(make, converse) for name, converse in converses.items()}
    exact = partial(_their_operator(row, theirs.algorithm1), *(a.double() for a in args))
    return Sides(program, makers, exact)


def _operator_inputs(row: Operator, device: str) -> list[torch.Tensor]:
    """Map, kernel and lambda logit as PyTorch has them; for gradients a cotangent as well."""
    torch.manual_seed(0)
    n, c, k, side = row.batch, row.channels, row.kernel_size, row.scale * row.size
    taps = torch.randn(1, c, k * k).softmax(dim=-1).reshape(1, c, k, k)
    # Kernels as small as the stride that sum to 1 have no gradient in lambda.
    taps = taps * (0.5 + torch.rand(1, c, 1, 1))
    inputs = [torch.randn(n, c, row.size, row.size), taps, 0.5 * torch.randn(1, c, 1, 1)]
    if row.what == "gradient":
        inputs.append(torch.randn(n, c, side, side))
    return [a.to(device) for a in inputs]


def _their_operator(row: Operator, converse: Converse) -> Callable[..., Any]:
    converse = partial(converse, scale=row.scale, eps=ours.EPS, **row.border)

    def gradient(*args: torch.Tensor) -> Sequence[torch.Tensor]:
        *inputs, cotangent = args
        inputs = [a.detach().requires_grad_() for a in inputs]
        return torch.autograd.grad(converse(*inputs), inputs, cotangent)

    return gradient if row.what == "gradient" else torch.inference_mode()(converse)


def _inference(row: Network, device: str) -> Sides:
    torch.manual_seed(0)
    model = getattr(theirs, row.network)(**row.options)
    # A fresh network would hide errors of its operators: its residual scales and lambda logits are
    # 0, and its branches add little to their inputs.
    for parameter in model.parameters():
        if not torch.any(parameter):
            nn.init.normal_(parameter, std=0.5)
        elif parameter.shape[2:] == (1, 1):
            nn.init.normal_(parameter, std=0.1)
    args = [torch.rand(row.batch, row.shapes[0][-1], row.size, row.size)]
    if row.network == "ConverseUSRNet":
        args.append(torch.rand(1, 1, 49).softmax(dim=-1).reshape(1, 1, 7, 7))
    module = ours.network(row)
    fill(module, model.state_dict())
    program = ours.compiled(*ours.pure(module), *_our_arrays(args, row.shapes))
    model, *args = (a.to(device) for a in (model, *args))

    def reference(compile: bool) -> Program:
        chosen = theirs.compile_blocks(deepcopy(model)) if compile else model
        return torch_program(torch.inference_mode()(chosen), *args)

    exact = partial(torch.inference_mode()(deepcopy(model).double()), *(a.double() for a in args))
    return Sides(program, {"reference": reference}, exact)


def _training(row: Network, device: str) -> Sides:
    """Programs that take one step of Adam and return the L1 loss before it.

    They are compared by the loss after the first step: activations in float64 would not fit.
    """
    model, noisy, clean = (a.to(device) for a in training_problem(row))
    eager = deepcopy(model)

    def reference(compile: bool) -> Program:
        chosen = theirs.compile_blocks(deepcopy(model)) if compile else eager
        step = _torch_step(chosen, noisy, clean)
        step()
        return step

    our_step = _our_step(row, model, noisy, clean)
    our_step[0]()
    loss = torch.inference_mode()(lambda: F.l1_loss(eager(noisy), clean))
    return Sides(our_step, {"reference": reference}, loss)


def training_problem(row: Network) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Network and patches `[batch, 1, size, size]`, noisy and clean; always the same."""
    torch.manual_seed(0)
    clean = torch.rand(row.batch, 1, row.size, row.size)
    noisy = clean + torch.randn(clean.shape) * (25 / 255)
    model = theirs.ConverseDnCNN(row.blocks)
    for part in model.modules():
        if isinstance(part, nn.Conv2d):  # as the paper starts them
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
    return model, noisy, clean


def _our_step(
    row: Network, model: nn.Module, noisy: torch.Tensor, clean: torch.Tensor
) -> tuple[Program, float]:
    """The compiled step of `python -m train`, and the MB that XLA plans for it."""
    config, network, optimizer = ours.training(row)
    mesh = jax.make_mesh((1,), (BATCH_AXIS,), devices=jax.devices()[:1])
    params = our_params(network, model.state_dict())
    state = start_from(make_state(network, optimizer, mesh), params, mesh)
    batch = {"input": channels_last(noisy), "target": channels_last(clean)}
    batch = jax.device_put(batch, batch_sharding(mesh))
    jitted = jit_step(make_step(config, network, optimizer), mesh)
    executable = jitted.lower(state, batch).compile()

    def step() -> jax.Array:
        nonlocal state
        state, metrics = jax.block_until_ready(executable(state, batch))
        return metrics["loss"]

    return step, ours.planned_mb(executable)


def _torch_step(model: nn.Module, noisy: torch.Tensor, clean: torch.Tensor) -> Program:
    """The same on Algorithm 1, written as is usual in PyTorch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=ours.LEARNING_RATE)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.l1_loss(model(noisy), clean)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_params(network: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """PyTorch's weights, or their gradients, under our names and in our layout."""
    module = network.module(jax.eval_shape(network.init))
    fill(module, weights)
    return {name: np.asarray(value) for name, value in network.arrays(module).items()}


def fill(module: nnx.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Put PyTorch's weights into a network of ours."""
    load_torch_state(module, {name: a.cpu().numpy() for name, a in weights.items()})


def torch_program(function: Callable[..., Any], *args: Any) -> Program:
    """A PyTorch program that returns when its results are there."""

    def program() -> Any:
        result = function(*args)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return result

    return program


def _our_arrays(args: Sequence[Any], shapes: Sequence[Any]) -> list[jax.Array]:
    # A kernel `[1, C, k, k]` of PyTorch's is `[k, k, C]` here, a logit `[1, C, 1, 1]` is `[C]`.
    return [jnp.asarray(channels_last(a).reshape(s)) for a, s in zip(args, shapes, strict=True)]


def channels_last(x: torch.Tensor) -> np.ndarray:
    """A PyTorch array on the host, its axis 1 moved to the end, as ours has it."""
    array = x.detach().cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if array.ndim > 1 else array
