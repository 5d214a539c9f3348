"""The paper's networks on both sides, with the same weights: inference, and a training step."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from torch import nn

from benchmarks import ours, torch_networks
from benchmarks.sides import Work, channels_last, checked, our_program, planned_mb, torch_program
from benchmarks.suite import Inference, Training
from benchmarks.timing import Program
from converse_jax.weights import load_torch_state
from train.state import abstract_state, batch_sharding, make_optimizer, make_state
from train.step import jit_step, make_step


def build_inference(row: Inference, device: str, *, compile: bool) -> Work:
    """Both programs on the same image, checked against Algorithm 1 in float64.

    Parameters are arguments of our program: XLA folds nothing of them, as PyTorch does not.
    """
    torch.manual_seed(0)
    theirs = getattr(torch_networks, row.network)(**row.options)
    # As it starts a network would hide errors of its operators: its residual scales and lambda
    # logits are 0, and its branches add little to what goes around them.
    for parameter in theirs.parameters():
        if not torch.any(parameter):
            nn.init.normal_(parameter, std=0.5)
        elif parameter.shape[2:] == (1, 1):
            nn.init.normal_(parameter, std=0.1)
    image = torch.rand(1, 1 if row.network == "ConverseDnCNN" else 3, row.size, row.size)
    kernels = []
    if row.network == "ConverseUSRNet":
        kernels.append(torch.rand(1, 1, 49).softmax(dim=-1).reshape(1, 1, 7, 7))

    module = ours.network(row)
    fill(module, theirs.state_dict())
    graph, params, *rest = nnx.split(module, nnx.Param, ...)

    def apply(params: Any, x: jax.Array, *kernel: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, *rest)(x, *kernel)

    our_kernels = (jnp.asarray(kernel[:, 0].numpy()) for kernel in kernels)
    program, planned = our_program(apply, params, jnp.asarray(channels_last(image)), *our_kernels)
    theirs, *args = (a.to(device) for a in (theirs, image, *kernels))

    def compiled() -> Program:
        return torch_program(_forward, torch_networks.compile_blocks(deepcopy(theirs)), *args)

    return checked(
        {"ours": program, "reference": torch_program(_forward, theirs, *args)},
        {"reference_compiled": compiled} if compile else {},
        _forward(deepcopy(theirs).double(), *(a.double() for a in args)),
        planned,
    )


def _forward(model: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(*inputs)


def build_training(row: Training, device: str, *, compile: bool) -> Work:
    """Programs that take one step of Adam and return the L1 loss before it.

    What is compared is the loss after the first step: activations in float64 would not fit.
    """
    model, noisy, clean = (a.to(device) for a in training_problem(row))
    reference = deepcopy(model)
    our_step, planned = _our_step(row, model, noisy, clean)
    steps = {"ours": our_step, "reference": _torch_step(reference, noisy, clean)}
    for step in steps.values():
        step()

    def compiled() -> Program:
        step = _torch_step(torch_networks.compile_blocks(deepcopy(model)), noisy, clean)
        step()
        return step

    with torch.inference_mode():
        loss = torch_loss(reference, noisy, clean)
    return checked(steps, {"reference_compiled": compiled} if compile else {}, loss, planned)


def training_problem(row: Training) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Network and patches `[batch, 1, size, size]`, noisy and clean; always the same."""
    torch.manual_seed(0)
    clean = torch.rand(row.batch, 1, row.size, row.size)
    noisy = clean + torch.randn(clean.shape) * (25 / 255)
    model = torch_networks.ConverseDnCNN(row.blocks)
    for part in model.modules():
        if isinstance(part, nn.Conv2d):  # as the paper starts them
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
    return model, noisy, clean


def _our_step(
    row: Training, model: nn.Module, noisy: torch.Tensor, clean: torch.Tensor
) -> tuple[Program, float | None]:
    """The compiled step of `python -m train`, and the MB that XLA plans for it."""
    config, network = ours.training(row)
    mesh = ours.mesh_of(jax.devices()[:1])
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = make_state(network, optimizer, mesh)
    params = jax.device_put(our_params(network, model.state_dict()), state.step.sharding)
    state = replace(state, params=params)
    batch = {"input": channels_last(noisy), "target": channels_last(clean)}
    batch = jax.device_put(batch, batch_sharding(mesh))
    jitted = jit_step(make_step(config, network, optimizer), mesh)
    compiled = jitted.lower(abstract_state(network, optimizer, mesh), batch).compile()

    def step() -> jax.Array:
        nonlocal state
        state, metrics = jax.block_until_ready(compiled(state, batch))
        return metrics["loss"]

    return step, planned_mb(compiled)


def _torch_step(model: nn.Module, noisy: torch.Tensor, clean: torch.Tensor) -> Program:
    """The same with Algorithm 1, as one writes it in PyTorch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=ours.LEARNING_RATE)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch_loss(model, noisy, clean)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_loss(model: nn.Module, noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The L1 loss."""
    return torch.mean(torch.abs(model(noisy) - clean))


def our_params(network: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """PyTorch's weights, or their gradients, under our names and in our layout."""
    module = network.module(jax.eval_shape(network.init))
    fill(module, weights)
    params: dict[str, Any] = network.arrays(module)
    return params


def fill(module: nnx.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Put PyTorch's weights into a network of ours."""
    load_torch_state(module, {name: a.cpu().numpy() for name, a in weights.items()})
