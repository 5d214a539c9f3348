"""The training step on both sides: the same weights, the same batch, L1 loss and Adam."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import jax
import torch
from torch import nn

from benchmarks import ours
from benchmarks.sides import Work, channels_last, checked, planned_mb
from benchmarks.suite import Training
from benchmarks.timing import Program
from benchmarks.torch_networks import ConverseDnCNN, compile_blocks
from converse_jax.weights import load_torch_state
from train.state import abstract_state, make_optimizer, make_state, shared
from train.step import jit_step, make_step


def build(row: Training, device: str, *, compile: bool) -> Work:
    """Programs that take one step and return the loss before it.

    What is compared is the loss after the first step: float64 activations would not fit.
    """
    model, noisy, clean = (a.to(device) for a in problem(row))
    reference = deepcopy(model)
    our_step, planned = _our_step(row, model, noisy, clean)
    steps = {"ours": our_step, "reference": _torch_step(reference, noisy, clean)}
    for step in steps.values():
        step()

    def compiled() -> Program:
        step = _torch_step(compile_blocks(deepcopy(model)), noisy, clean)
        step()
        return step

    with torch.inference_mode():
        loss = torch_loss(reference, noisy, clean)
    return checked(steps, {"reference_compiled": compiled} if compile else {}, loss, planned)


def problem(row: Training) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Network and patches `[batch, 1, size, size]`, noisy and clean; always the same."""
    torch.manual_seed(0)
    clean = torch.rand(row.batch, 1, row.size, row.size)
    noisy = clean + torch.randn(clean.shape) * (25 / 255)
    model = ConverseDnCNN(row.blocks)
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
    batch = jax.device_put(batch, shared(mesh))
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
    load_torch_state(module, {name: a.cpu().numpy() for name, a in weights.items()})
    params: dict[str, Any] = network.arrays(module)
    return params
