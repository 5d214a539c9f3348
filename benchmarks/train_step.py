"""The training step on both sides: from the same weights, with the same batches, L1 loss and Adam.

Ours runs as `python -m train` does, which asks malloc for huge pages; PyTorch as it is. Each side
has processes of its own, which take turns, so that memory can be measured: the growth of the peak
from before the first step to after the last, compilation being done before. The first step is not
timed. As a command this is such a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.memory import resident_growth
from benchmarks.process import one_line, pin
from benchmarks.suite import Training
from benchmarks.timing import Turn, compare, timed
from train.huge_pages import with_huge_pages

_LEARNING_RATE = 1e-4
_ROOT = Path(__file__).parents[1]

Step = Callable[[int], float]
"""Takes the number of a batch, returns its loss when the new weights are there."""


def measure(
    row: Training, *, threads: int, device: str, compile: bool, steps: int = 3, rounds: int = 2
) -> dict[str, Any]:
    """Times, ratios, peaks, and the largest difference of losses, as fields of the row.

    Raises:
      RuntimeError: a side's process failed.
    """
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
    if compile:
        found["reference_compiled"] = []
    notes = {}
    for side in list(found) * rounds:
        if side in found:
            try:
                found[side].append(_child(side, row, threads, device, steps))
            except RuntimeError as problem:
                if side != "reference_compiled":
                    raise
                notes[side] = str(problem)
                del found[side]
    turns = {
        side: [Turn(*t) for a in answers for t in a["turns"]] for side, answers in found.items()
    }
    losses = [answers[0]["losses"] for answers in found.values()]
    apart = [abs(b / a - 1) for them in losses for a, b in zip(losses[0], them, strict=True)]
    peaks = {
        side: max((a["peak_mb"] for a in answers if a["peak_mb"] is not None), default=None)
        for side, answers in found.items()
    }
    told = {"peak_mb": peaks["ours"], "reference_peak_mb": peaks["reference"], "notes": notes}
    return {**compare(turns), **told, "loss_difference": max(apart)}


def _child(side: str, row: Training, threads: int, device: str, steps: int) -> dict[str, Any]:
    environment = dict(os.environ)
    if side == "ours" and device == "cpu":
        environment = with_huge_pages(environment) or environment
    order = json.dumps([side, asdict(row), threads, device, steps])
    command = [sys.executable, "-m", "benchmarks.train_step", order]
    result = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
    if result.returncode < 0:
        raise RuntimeError(f"{side}: ended by signal {-result.returncode} (9: out of memory)")
    if result.returncode > 0:
        raise RuntimeError(f"{side}: {(result.stderr.strip() or 'no message').splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def _answer(
    side: str, fields: Mapping[str, int], threads: int, device: str, steps: int
) -> dict[str, Any]:
    """The work of a child: losses, times of the steps but the first, growth of the peak."""
    if device == "cpu":
        pin(threads)

    import torch

    torch.set_num_threads(threads)
    row = Training(**fields)
    model, noisy, clean = _problem(row, steps + 1)
    if side == "ours":
        step = _our_step(row, model, noisy.numpy(), clean.numpy())
    else:
        place = "cuda" if device == "gpu" else "cpu"
        step = _torch_step(
            model.to(place), noisy.to(place), clean.to(place), compile=side != "reference"
        )
    losses: list[float] = []
    turns: list[Turn] = []

    def run() -> None:
        for i in range(steps + 1):
            turns.append(timed(lambda: losses.append(step(i))))  # noqa: B023  called at once

    peak = resident_growth(run)
    return {"losses": losses, "turns": turns[1:], "peak_mb": peak if device == "cpu" else None}


def _problem(row: Training, batches: int) -> tuple[Any, Any, Any]:
    """Network and patches `[batches, batch, 1, size, size]`, noisy and clean; always the same."""
    import torch

    from benchmarks.torch_networks import ConverseDnCNN

    torch.manual_seed(0)
    clean = torch.rand(batches, row.batch, 1, row.size, row.size)
    noisy = clean + torch.randn(clean.shape) * (25 / 255)
    return ConverseDnCNN(num_blocks=row.blocks), noisy, clean


def _our_step(row: Training, model: Any, noisy: Any, clean: Any) -> Step:
    """The compiled step of `python -m train`, its state and its batches."""
    import jax

    from train.state import abstract_state, make_mesh, make_optimizer, make_state, shared
    from train.step import jit_step, make_step

    config, network = our_network(row)
    mesh = make_mesh()
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = make_state(network, optimizer, mesh)
    params = _our_arrays(network, dict(model.state_dict()))
    state = replace(state, params=jax.device_put(params, state.step.sharding))
    batches = [
        jax.device_put({"input": x[:, 0, ..., None], "target": y[:, 0, ..., None]}, shared(mesh))
        for x, y in zip(noisy, clean, strict=True)
    ]
    jitted = jit_step(make_step(config, network, optimizer), mesh)
    compiled = jitted.lower(abstract_state(network, optimizer, mesh), batches[0]).compile()

    def step(i: int) -> float:
        nonlocal state
        state, metrics = compiled(state, batches[i])
        return float(jax.block_until_ready((state, metrics))[1]["loss"])

    return step


def _torch_step(model: Any, noisy: Any, clean: Any, *, compile: bool) -> Step:
    """The same with Algorithm 1, as one writes it in PyTorch."""
    import torch

    from benchmarks.torch_networks import compile_blocks

    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)

    def step(i: int) -> float:
        optimizer.zero_grad()
        loss = torch.mean(torch.abs(model(noisy[i]) - clean[i]))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    if compile:
        compile_blocks(model)
        # Compiled now: the memory of the compiler is not that of a step.
        torch.mean(torch.abs(model(noisy[0]) - clean[0])).backward()
    return step


def gradient_errors(row: Training, device: str) -> dict[str, float]:
    """Errors of the loss and its gradient in every parameter, for one patch of `row`.

    Of ours and of Algorithm 1 in float32, against Algorithm 1 in float64.
    """
    import jax
    import torch
    from torch.utils.checkpoint import checkpoint

    from benchmarks.sides import as_numpy, nhwc, relative_error
    from benchmarks.torch_networks import ConverseDnCNN
    from train.step import loss_and_gradient

    model, noisy, clean = _problem(replace(row, batch=1), 1)
    config, network = our_network(row)
    batch = {"input": nhwc(noisy[0]), "target": nhwc(clean[0])}
    params = _our_arrays(network, dict(model.state_dict()))
    our_loss, ours = jax.jit(partial(loss_and_gradient, config, network))(params, batch)

    def loss_and_gradient_of(model: ConverseDnCNN, dtype: torch.dtype) -> list[torch.Tensor]:
        model, x, y = (a.to(device, dtype) for a in (model, noisy[0], clean[0]))
        loss = torch.mean(torch.abs(model(x) - y))
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    theirs = [as_numpy(a) for a in loss_and_gradient_of(model, torch.float32)]
    for block in model.m_body:  # float64 activations of 20 blocks need not all be kept
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    truth = [as_numpy(a) for a in loss_and_gradient_of(model, torch.float64)]
    # Gradients lie as their parameters do: the loader of parameters brings them to our layout.
    names = (name for name, _ in model.named_parameters())
    named = {name: torch.from_numpy(a).float() for name, a in zip(names, truth[1:], strict=True)}
    expected = _our_arrays(network, named)
    mine = relative_error([our_loss, *ours.values()], [truth[0], *(expected[k] for k in ours)])
    return {"ours": mine, "reference": relative_error(theirs, truth)}


def our_network(row: Training) -> tuple[Any, Any]:
    """The configuration of a row, and its network."""
    from train.config import Optimizer, read_config
    from train.state import FunctionalNetwork

    paper = read_config(str(_ROOT / "configs" / "dncnn_gray_sigma25.py"))
    model = replace(paper.model, num_blocks=row.blocks)  # type: ignore[call-arg]
    optimizer = Optimizer(learning_rate=_LEARNING_RATE, schedule="constant")
    changes: dict[str, Any] = {"batch_size": row.batch, "accumulation": 1, "remat": False}
    config = replace(paper, model=model, optimizer=optimizer, **changes)
    return config, FunctionalNetwork(config)


def _our_arrays(network: Any, weights: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch's weights, under our names and in our layout."""
    import jax

    from converse_jax.weights import load_torch_state

    module = network.module(jax.eval_shape(network.init))
    load_torch_state(module, {name: a.numpy() for name, a in weights.items()})
    found: dict[str, Any] = network.arrays(module)
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(_answer(*json.loads(sys.argv[1]))))
    except Exception as problem:  # for the parent, which tells what failed
        sys.exit(one_line(problem))
