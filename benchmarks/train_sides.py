"""One training step of Converse-DnCNN, on either side, and whether their gradients agree.

Imports are inside: a process that measures one side loads that side only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.suite import Training

LEARNING_RATE = 1e-4

Step = Callable[[int], float]
"""Takes the number of a batch, returns its loss when the new weights are there."""


def our_step(row: Training, weights: Mapping[str, Any], noisy: Any, clean: Any) -> Step:
    """The compiled step of `python -m train`, its state and its batches."""
    import jax

    from train.state import abstract_state, make_mesh, make_optimizer, make_state, shared
    from train.step import jit_step, make_step

    config, network = our_network(row)
    mesh = make_mesh()
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = make_state(network, optimizer, mesh)
    params = jax.device_put(_our_arrays(network, weights), state.step.sharding)
    state = dataclasses.replace(state, params=params)
    batches = [
        jax.device_put({"input": x[..., None], "target": y[..., None]}, shared(mesh))
        for x, y in zip(noisy, clean, strict=True)
    ]
    jitted = jit_step(make_step(config, network, optimizer), mesh)
    compiled = jitted.lower(abstract_state(network, optimizer, mesh), batches[0]).compile()

    def step(i: int) -> float:
        nonlocal state
        state, metrics = compiled(state, batches[i])
        return float(jax.block_until_ready((state, metrics))[1]["loss"])

    return step


def torch_step(
    row: Training,
    weights: Mapping[str, Any],
    noisy: Any,
    clean: Any,
    *,
    device: str,
    compiled: bool,
) -> Step:
    """The same with Algorithm 1, as one writes it in PyTorch."""
    import torch

    from benchmarks.torch_networks import ConverseDnCNN, compile_blocks

    model = ConverseDnCNN(num_blocks=row.blocks)
    model.load_state_dict({name: torch.from_numpy(a) for name, a in weights.items()})
    model = model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    x, y = (torch.from_numpy(a)[:, :, None].to(device) for a in (noisy, clean))

    def step(i: int) -> float:
        optimizer.zero_grad()
        loss = torch.mean(torch.abs(model(x[i]) - y[i]))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    if compiled:
        compile_blocks(model)
        # Compiled now: the memory of the compiler is not that of a step.
        torch.mean(torch.abs(model(x[0]) - y[0])).backward()
    return step


def gradient_errors(row: Training, device: str) -> tuple[float, float]:
    """Errors of the loss and its gradient in every parameter, for one patch of `row`.

    Of ours and of Algorithm 1 in float32, against Algorithm 1 in float64.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from torch.utils.checkpoint import checkpoint

    from benchmarks.sides import as_numpy, relative_error
    from benchmarks.torch_networks import ConverseDnCNN
    from train.step import loss_and_gradient

    torch.manual_seed(0)
    clean = torch.rand(1, 1, row.size, row.size)
    noisy = clean + torch.randn(clean.shape) * (25 / 255)
    model = ConverseDnCNN(num_blocks=row.blocks).to(device)
    weights = {name: as_numpy(a) for name, a in model.state_dict().items()}

    def loss_and_named(dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        x, y = noisy.to(device, dtype), clean.to(device, dtype)
        loss = torch.mean(torch.abs(model.to(dtype)(x) - y))
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradient = torch.autograd.grad(loss, parameters)
        return as_numpy(loss), dict(zip(names, map(as_numpy, gradient), strict=True))

    their_loss, theirs = loss_and_named(torch.float32)
    for block in model.m_body:  # float64 activations of 20 blocks need not all be kept
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    true_loss, truth = loss_and_named(torch.float64)

    config, network = our_network(dataclasses.replace(row, accumulation=1))
    batch = {
        k: jnp.asarray(a.numpy())[..., 0, :, :, None]
        for k, a in (("input", noisy), ("target", clean))
    }
    our_loss, ours = jax.jit(partial(loss_and_gradient, config, network))(
        _our_arrays(network, weights), batch
    )
    # Gradients lie as their parameters do: the loader of parameters brings them to our layout.
    expected = _our_arrays(network, {name: g.astype(np.float32) for name, g in truth.items()})
    return (
        relative_error([our_loss, *ours.values()], [true_loss, *(expected[k] for k in ours)]),
        relative_error([their_loss, *theirs.values()], [true_loss, *truth.values()]),
    )


def our_network(row: Training) -> tuple[Any, Any]:
    """The configuration of a row, and its network."""
    from train.config import Optimizer, read_config
    from train.state import FunctionalNetwork

    paper = read_config(str(Path(__file__).parents[1] / "configs" / "dncnn_gray_sigma25.py"))
    config = dataclasses.replace(
        paper,
        model=dataclasses.replace(paper.model, num_blocks=row.blocks),
        optimizer=Optimizer(learning_rate=LEARNING_RATE, schedule="constant"),
        batch_size=row.batch,
        accumulation=row.accumulation,
        remat=row.remat,
    )
    return config, FunctionalNetwork(config)


def _our_arrays(network: Any, weights: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch's weights, under our names and in our layout."""
    import jax

    from converse_jax.weights import load_torch_state

    module = network.module(jax.eval_shape(network.init))
    load_torch_state(module, weights)
    found: dict[str, Any] = network.arrays(module)
    return found
