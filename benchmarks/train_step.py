"""`python -m benchmarks.train_step`: training steps of Converse-DnCNN, ours and Algorithm 1's.

Both start from the same weights and see the same batches, with L1 loss and Adam at the paper's
settings; their losses are compared. Ours runs as `python -m train` does, which asks malloc for
huge pages; PyTorch as it is, or with the same (`--huge-pages`). Each side has a process of its
own, so that its memory can be measured: the growth of the resident peak from before the first step
to after the last.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import cpu_name, pin
from train.huge_pages import with_huge_pages

TOLERANCE = 1e-3
"""Largest relative difference of the losses of the two sides."""

_LEARNING_RATE = 1e-4


def main() -> int:
    """Parse the command line; as the parent, race two children."""
    args = _arguments()
    if args.child:
        # Both sides on the CPU, where a graphics card would be the choice of one of them only.
        os.environ["JAX_PLATFORMS"] = "cpu"
        pin(args.threads)
        print(json.dumps(_ours(args) if args.child == "ours" else _reference(args)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        _write_data(args, data)
        sides: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
        for _ in range(args.rounds):
            for side, found in sides.items():
                huge = side == "ours" or args.huge_pages
                found.append(_child(side, data, huge=huge))
    ours, reference = sides["ours"], sides["reference"]
    difference = max(
        abs(a / b - 1) for a, b in zip(ours[0]["losses"], reference[0]["losses"], strict=True)
    )
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, reference, strict=True)]
    report = {
        "work": f"Converse-DnCNN training step, {args.blocks} blocks, {args.batch} of "
        f"{args.size}x{args.size}, accumulation {args.accumulation}, remat {args.remat}",
        "ours_images_per_second": args.batch / statistics.median(o["seconds"] for o in ours),
        "reference_images_per_second": args.batch
        / statistics.median(r["seconds"] for r in reference),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ours_peak_mb": max(o["peak_mb"] for o in ours),
        "reference_peak_mb": max(r["peak_mb"] for r in reference),
        "loss_difference": difference,
        "machine": cpu_name(),
        "threads": args.threads,
        "reference_has_huge_pages": args.huge_pages,
    }
    print(json.dumps(report, indent=1))
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if difference > TOLERANCE:
        print(f"the losses differ by {difference:.1e}: not the same work", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="patches of a step")
    parser.add_argument("--size", type=int, default=64, help="side of the patches")
    parser.add_argument("--blocks", type=int, default=20, help="of the network")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each side, in turn")
    parser.add_argument("--threads", type=int, default=2, help="cores for both sides")
    parser.add_argument("--accumulation", type=int, default=1, help="parts of a batch of ours")
    parser.add_argument("--remat", action="store_true", help="of ours")
    parser.add_argument(
        "--huge-pages", action="store_true", help="malloc asks for them for PyTorch as well"
    )
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--child", choices=("ours", "reference"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _child(side: str, data: Path, *, huge: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.train_step", *sys.argv[1:]]
    result = subprocess.run(
        [*command, "--child", side, "--data", str(data)],
        env=(with_huge_pages(dict(os.environ)) if huge else None) or os.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    if result.returncode != 0:
        raise SystemExit(f"{side}: exit status {result.returncode} (-9: out of memory)")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def _write_data(args: argparse.Namespace, path: Path) -> None:
    import numpy as np
    import torch

    from benchmarks.algorithm1 import ConverseDnCNN

    torch.manual_seed(0)
    weights = ConverseDnCNN(num_blocks=args.blocks).state_dict()
    rng = np.random.default_rng(0)
    shape = (args.steps + 1, args.batch, args.size, args.size)
    clean = rng.random(shape, np.float32)
    noisy = clean + rng.standard_normal(shape, np.float32) * np.float32(25 / 255)
    arrays: dict[str, Any] = {name: weight.numpy() for name, weight in weights.items()}
    np.savez(path, noisy=noisy, clean=clean, **arrays)


def _measure(step: Callable[[int], float], steps: int) -> dict[str, Any]:
    """Losses, the median time of a step but the first, and the growth of the resident peak."""
    before = _resident_mb()
    losses, times = [], []
    for i in range(steps + 1):
        start = time.perf_counter()
        losses.append(step(i))
        times.append(time.perf_counter() - start)
    return {
        "losses": losses,
        "seconds": statistics.median(times[1:]),
        "peak_mb": _peak_mb() - before,
    }


def _resident_mb() -> float:
    """Resident memory now; where the system can, the peak is counted anew from here."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/statm")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    clear.write_text("5")
    return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e6


def _ours(args: argparse.Namespace) -> dict[str, Any]:
    import jax
    import numpy as np

    from converse_jax.weights import load_torch_state
    from train.config import Optimizer, read_config
    from train.state import Network, abstract_state, make_mesh, make_optimizer, make_state, shared
    from train.step import jit_step, make_step

    data = np.load(args.data)
    paper = read_config(str(Path(__file__).parents[1] / "configs" / "dncnn_gray_sigma25.py"))
    config = dataclasses.replace(
        paper,
        model=dataclasses.replace(paper.model, num_blocks=args.blocks),
        optimizer=Optimizer(learning_rate=_LEARNING_RATE, schedule="constant"),
        batch_size=args.batch,
        accumulation=args.accumulation,
        remat=args.remat,
    )
    network, mesh = Network(config), make_mesh()
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = make_state(network, optimizer, mesh)
    model = network.module(state.params)
    load_torch_state(model, {k: data[k] for k in data.files if k not in ("noisy", "clean")})
    params = jax.device_put(network.arrays(model), state.step.sharding)
    state = dataclasses.replace(state, params=params)
    batches = [
        jax.device_put({"input": x[..., None], "target": y[..., None]}, shared(mesh))
        for x, y in zip(data["noisy"], data["clean"], strict=True)
    ]
    jitted = jit_step(make_step(config, network, optimizer), mesh)
    compiled = jitted.lower(abstract_state(network, optimizer, mesh), batches[0]).compile()

    def step(i: int) -> float:
        nonlocal state
        state, metrics = compiled(state, batches[i])
        return float(jax.block_until_ready((state, metrics))[1]["loss"])

    return _measure(step, args.steps)


def _reference(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import torch

    from benchmarks.algorithm1 import ConverseDnCNN

    torch.set_num_threads(args.threads)
    data = np.load(args.data)
    model = ConverseDnCNN(num_blocks=args.blocks)
    named = {k: torch.from_numpy(data[k]) for k in data.files if k not in ("noisy", "clean")}
    model.load_state_dict(named)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    noisy, clean = (torch.from_numpy(data[k])[:, :, None] for k in ("noisy", "clean"))

    def step(i: int) -> float:
        optimizer.zero_grad()
        loss = torch.mean(torch.abs(model(noisy[i]) - clean[i]))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return _measure(step, args.steps)


if __name__ == "__main__":
    sys.exit(main())
