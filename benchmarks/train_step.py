"""The training step on both sides: from the same weights, with the same batches, L1 loss and Adam.

Ours runs as `python -m train` does, which asks malloc for huge pages; PyTorch as it is. Each side
has processes of its own, which take turns, so that memory can be measured: the growth of the peak
from before the first step to after the last, compilation being done before. The first step is not
timed. As a command this is such a process. Imports are inside: it loads one side only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
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
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "data.npz")
        _write_data(row, steps, data)
        for side in list(found) * rounds:
            if side in found:
                try:
                    found[side].append(_child(side, row, threads, device, data))
                except RuntimeError as problem:
                    if side != "reference_compiled":
                        raise
                    notes[side] = str(problem)
                    del found[side]
    losses = [answers[0]["losses"] for answers in found.values()]
    peaks = {
        side: max((a["peak_mb"] for a in answers if a["peak_mb"] is not None), default=None)
        for side, answers in found.items()
    }
    turns = {
        side: [Turn(*turn) for answer in answers for turn in answer["turns"]]
        for side, answers in found.items()
    }
    return {
        **compare(turns),
        "peak_mb": peaks["ours"],
        "reference_peak_mb": peaks["reference"],
        "notes": notes,
        "loss_difference": max(
            abs(b / a - 1) for other in losses for a, b in zip(losses[0], other, strict=True)
        ),
    }


def _child(side: str, row: Training, threads: int, device: str, data: str) -> dict[str, Any]:
    environment = dict(os.environ)
    if side == "ours" and device == "cpu":
        environment = with_huge_pages(environment) or environment
    order = json.dumps([side, dataclasses.asdict(row), threads, device, data])
    command = [sys.executable, "-m", "benchmarks.train_step", order]
    result = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
    if result.returncode < 0:
        raise RuntimeError(f"{side}: ended by signal {-result.returncode} (9: out of memory)")
    if result.returncode > 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{side}: {last}")
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def _write_data(row: Training, steps: int, path: str) -> None:
    import numpy as np
    import torch

    from benchmarks.torch_networks import ConverseDnCNN

    torch.manual_seed(0)
    weights = ConverseDnCNN(num_blocks=row.blocks).state_dict()
    rng = np.random.default_rng(0)
    shape = (steps + 1, row.batch, row.size, row.size)
    clean = rng.random(shape, np.float32)
    noisy = clean + rng.standard_normal(shape, np.float32) * np.float32(25 / 255)
    named: dict[str, Any] = {name: weight.numpy() for name, weight in weights.items()}
    np.savez(path, noisy=noisy, clean=clean, **named)


def _answer(
    side: str, fields: Mapping[str, int], threads: int, device: str, data: str
) -> dict[str, Any]:
    """The work of a child: losses, times of the steps but the first, growth of the peak."""
    if device == "cpu":
        pin(threads)

    import numpy as np

    with np.load(data) as file:
        weights = {name: file[name] for name in file.files}
    noisy, clean = weights.pop("noisy"), weights.pop("clean")
    row = Training(**fields)
    if side == "ours":
        step = _our_step(row, weights, noisy, clean)
    else:
        import torch

        torch.set_num_threads(threads)
        place = "cuda" if device == "gpu" else "cpu"
        step = _torch_step(
            row, weights, noisy, clean, device=place, compiled=side == "reference_compiled"
        )
    losses: list[float] = []
    turns: list[Turn] = []

    def run() -> None:
        for i in range(len(noisy)):
            turns.append(timed(lambda: losses.append(step(i))))  # noqa: B023  called at once

    peak = resident_growth(run)
    return {
        "losses": losses,
        "turns": turns[1:],
        "peak_mb": peak if device == "cpu" else None,
    }


def _our_step(row: Training, weights: Mapping[str, Any], noisy: Any, clean: Any) -> Step:
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


def _torch_step(
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
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
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


def gradient_errors(row: Training, device: str) -> dict[str, float]:
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

    config, network = our_network(row)
    batch = {
        "input": jnp.asarray(noisy[0, ..., None].numpy()),
        "target": jnp.asarray(clean[0, ..., None].numpy()),
    }
    our_loss, ours = jax.jit(partial(loss_and_gradient, config, network))(
        _our_arrays(network, weights), batch
    )
    # Gradients lie as their parameters do: the loader of parameters brings them to our layout.
    expected = _our_arrays(network, {name: g.astype(np.float32) for name, g in truth.items()})
    return {
        "ours": relative_error(
            [our_loss, *ours.values()], [true_loss, *(expected[k] for k in ours)]
        ),
        "reference": relative_error([their_loss, *theirs.values()], [true_loss, *truth.values()]),
    }


def our_network(row: Training) -> tuple[Any, Any]:
    """The configuration of a row, and its network."""
    from train.config import Optimizer, read_config
    from train.state import Network

    paper = read_config(str(_ROOT / "configs" / "dncnn_gray_sigma25.py"))
    config = dataclasses.replace(
        paper,
        model=dataclasses.replace(paper.model, num_blocks=row.blocks),
        optimizer=Optimizer(learning_rate=_LEARNING_RATE, schedule="constant"),
        batch_size=row.batch,
        accumulation=1,
        remat=False,
    )
    return config, Network(config)


def _our_arrays(network: Any, weights: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch's weights, under our names and in our layout."""
    import jax

    from converse_jax.weights import load_torch_state

    module = network.module(jax.eval_shape(network.init))
    load_torch_state(module, weights)
    found: dict[str, Any] = network.arrays(module)
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(_answer(*json.loads(sys.argv[1]))))
    except Exception as problem:  # for the parent, which tells what failed
        sys.exit(one_line(problem))
