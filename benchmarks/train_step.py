"""`python -m benchmarks.train_step`: the row of the training step, for other sizes.

Both sides start from the same weights and see the same batches, with L1 loss and Adam at the
paper's settings. Ours runs as `python -m train` does, which asks malloc for huge pages; PyTorch as
it is, or with the same (`--huge-pages`). Each side has processes of its own, which take turns, so
that memory can be measured: the growth of the peak from before the first step to after the last,
compilation being done before. The first step is not timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import train_sides
from benchmarks.memory import JaxPeak, ResidentPeak, TorchPeak
from benchmarks.process import one_line, pin, set_memory, set_precision
from benchmarks.suite import Training
from benchmarks.timing import Turn, compare
from train.huge_pages import with_huge_pages

LOSS_TOLERANCE = 1e-3
"""Largest relative difference of the losses of two sides; gradients are compared before."""


@dataclass(frozen=True)
class Children:
    """How the processes of the sides are run."""

    threads: int
    on_gpu: bool = False
    tf32: bool = False
    compile: bool = False
    keep_memory: bool = False
    steps: int = 3
    rounds: int = 2


def measure(row: Training, children: Children) -> dict[str, Any]:
    """Times, ratios, peaks, and the largest difference of losses, as fields of the row.

    Raises:
      RuntimeError: a side's process failed.
    """
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
    if children.compile:
        found["compiled"] = []
    note = None
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        _write_data(row, children.steps, data)
        for side in list(found) * children.rounds:
            if side in found:
                try:
                    found[side].append(_child(side, row, children, data))
                except RuntimeError as problem:
                    if side != "compiled":
                        raise
                    note = str(problem)
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
        "compiled_peak_mb": peaks.get("compiled"),
        "compiled_note": note,
        "loss_difference": max(
            abs(b / a - 1) for other in losses for a, b in zip(losses[0], other, strict=True)
        ),
    }


def _child(side: str, row: Training, children: Children, data: Path) -> dict[str, Any]:
    order = {"side": side, "row": asdict(row), "children": asdict(children), "data": str(data)}
    environment = dict(os.environ)
    if side == "ours" and not children.on_gpu:
        environment = with_huge_pages(environment) or environment
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step", "--child", json.dumps(order)],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    if result.returncode < 0:
        raise RuntimeError(f"{side}: ended by signal {-result.returncode} (9: out of memory)")
    if result.returncode > 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{side}: {last}")
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def _write_data(row: Training, steps: int, path: Path) -> None:
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


def answer(order: str) -> dict[str, Any]:
    """The work of a child: losses, times of the steps but the first, growth of the peak."""
    asked = json.loads(order)
    row, children = Training(**asked["row"]), Children(**asked["children"])
    device = "gpu" if children.on_gpu else "cpu"
    if not children.on_gpu:
        pin(children.threads)
    set_memory(keep=children.keep_memory, huge_pages=False)

    import numpy as np

    with np.load(asked["data"]) as file:
        weights = {name: file[name] for name in file.files}
    noisy, clean = weights.pop("noisy"), weights.pop("clean")
    peak: type[ResidentPeak | JaxPeak | TorchPeak] = ResidentPeak
    if asked["side"] == "ours":
        if children.on_gpu:
            peak = JaxPeak
        set_precision(device, "jax", tf32=children.tf32)
        step = train_sides.our_step(row, weights, noisy, clean)
    else:
        import torch

        if children.on_gpu:
            peak = TorchPeak
        torch.set_num_threads(children.threads)
        set_precision(device, "torch", tf32=children.tf32)
        step = train_sides.torch_step(
            row,
            weights,
            noisy,
            clean,
            device="cuda" if children.on_gpu else "cpu",
            compiled=asked["side"] == "compiled",
        )
    counter = peak()
    losses, turns = [], []
    for i in range(children.steps + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        losses.append(step(i))
        turns.append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return {"losses": losses, "turns": turns[1:], "peak_mb": counter.growth()}


def main() -> int:
    """As a child of `measure`, or one row from the command line."""
    if sys.argv[1:2] == ["--child"]:
        try:
            print(json.dumps(answer(sys.argv[2])))
        except Exception as problem:  # for the parent, which tells what failed
            sys.exit(one_line(problem))
        return 0
    from benchmarks.arguments import Parser, add_common, check, check_packages

    parser = Parser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="patches of a step")
    parser.add_argument("--size", type=int, default=64, help="side of the patches")
    parser.add_argument("--blocks", type=int, default=20, help="of the network")
    parser.add_argument("--accumulation", type=int, default=1, help="parts of a batch of ours")
    parser.add_argument("--remat", action="store_true", help="of ours")
    add_common(parser)
    args = parser.parse_args()
    check(parser, args)
    parts = args.accumulation
    if min(args.batch, args.size, args.blocks, parts) < 1 or args.batch % parts:
        parser.error("--batch, --size, --blocks >= 1, and --accumulation divides the batch")
    check_packages(parser, args)
    row = Training(args.batch, args.size, args.blocks, parts, args.remat)

    from benchmarks.run import run

    return run([row], args)


if __name__ == "__main__":
    sys.exit(main())
