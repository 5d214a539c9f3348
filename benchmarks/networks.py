"""The paper's networks on both sides, with the same weights: inference of one image."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx

from benchmarks import torch_networks
from benchmarks.sides import Work, as_numpy, checked, compile_ours, nchw, nhwc, torch_program
from benchmarks.suite import Inference
from benchmarks.timing import Program
from converse_jax import models
from converse_jax.weights import load_torch_state


def build(row: Inference, device: str, *, compile: bool) -> Work:
    """Both programs on the same image, checked against Algorithm 1 in float64.

    Parameters are arguments of our program: XLA folds nothing of them, as PyTorch does not.
    """
    theirs, module = _make_pair(row)
    theirs = theirs.to(device)
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    args = [a.to(device) for a in _inputs(row)]
    x, kernels = args[0], args[1:]

    def ours(params: Any, x: jax.Array, *kernel: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, rest)(x, *kernel)

    def compiled() -> Program:
        return torch_program(_forward, torch_networks.compile_blocks(deepcopy(theirs)), *args)

    kernels = [jnp.asarray(as_numpy(k))[:, 0] for k in kernels]
    exact = _forward(deepcopy(theirs).double(), *(a.double() for a in args))
    return checked(
        (*compile_ours(ours, params, nhwc(x), *kernels), lambda found: [nchw(found)]),
        {"reference": torch_program(_forward, theirs, *args)},
        {"reference_compiled": compiled} if compile else {},
        lambda found: [as_numpy(found)],
        [as_numpy(exact)],
    )


def _make_pair(row: Inference) -> tuple[torch.nn.Module, nnx.Module]:
    """The network in PyTorch, on the CPU, and in JAX."""
    torch.manual_seed(0)
    options: dict[str, Any] = row.options
    theirs = getattr(torch_networks, row.network)(**options)
    # A network as it starts would hide errors of its operators: its residual scales and lambda
    # logits are 0, and its branches add little to what goes around them.
    for parameter in theirs.parameters():
        if not torch.any(parameter):
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.shape[2:] == (1, 1):
            torch.nn.init.normal_(parameter, std=0.1)
    # Shapes only: the values are replaced at once.
    module = nnx.eval_shape(lambda: getattr(models, row.network)(**options, rngs=nnx.Rngs(0)))
    load_torch_state(module, {name: a.numpy() for name, a in theirs.state_dict().items()})
    return theirs, module


def _inputs(row: Inference) -> tuple[torch.Tensor, ...]:
    channels = 1 if row.network == "ConverseDnCNN" else 3
    x = torch.rand(1, channels, row.size, row.size)
    if row.network != "ConverseUSRNet":
        return (x,)
    return x, torch.rand(1, 1, 49).softmax(dim=-1).reshape(1, 1, 7, 7)


def _forward(model: torch.nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(*inputs)
