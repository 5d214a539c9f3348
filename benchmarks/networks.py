"""The paper's networks on both sides, with the same weights: inference of one image."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx

from benchmarks import ours, torch_networks
from benchmarks.sides import Work, channels_last, checked, our_program, torch_program
from benchmarks.suite import Inference
from benchmarks.timing import Program
from converse_jax.weights import load_torch_state


def build(row: Inference, device: str, *, compile: bool) -> Work:
    """Both programs on the same image, checked against Algorithm 1 in float64.

    Parameters are arguments of our program: XLA folds nothing of them, as PyTorch does not.
    """
    theirs = _make_theirs(row)
    module = ours.network(row)
    load_torch_state(module, {name: a.numpy() for name, a in theirs.state_dict().items()})
    graph, params, *rest = nnx.split(module, nnx.Param, ...)
    theirs = theirs.to(device)
    image, *kernels = args = [a.to(device) for a in _inputs(row)]

    def apply(params: Any, x: jax.Array, *kernel: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, *rest)(x, *kernel)

    def compiled() -> Program:
        return torch_program(_forward, torch_networks.compile_blocks(deepcopy(theirs)), *args)

    our_kernels = [jnp.asarray(k[:, 0].cpu().numpy()) for k in kernels]
    program, planned_mb = our_program(
        apply, params, jnp.asarray(channels_last(image)), *our_kernels
    )
    return checked(
        {"ours": program, "reference": torch_program(_forward, theirs, *args)},
        {"reference_compiled": compiled} if compile else {},
        _forward(deepcopy(theirs).double(), *(a.double() for a in args)),
        planned_mb,
    )


def _make_theirs(row: Inference) -> torch.nn.Module:
    """The network in PyTorch, with weights that let every part of it count.

    As it starts it would hide errors of its operators: its residual scales and lambda logits are
    0, and its branches add little to what goes around them.
    """
    torch.manual_seed(0)
    model = getattr(torch_networks, row.network)(**row.options)
    for parameter in model.parameters():
        if not torch.any(parameter):
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.shape[2:] == (1, 1):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def _inputs(row: Inference) -> list[torch.Tensor]:
    """An image, and for Converse-USRNet its blur kernel."""
    channels = 1 if row.network == "ConverseDnCNN" else 3
    image = torch.rand(1, channels, row.size, row.size)
    if row.network != "ConverseUSRNet":
        return [image]
    return [image, torch.rand(1, 1, 49).softmax(dim=-1).reshape(1, 1, 7, 7)]


def _forward(model: torch.nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(*inputs)
