"""`python -m benchmarks`: our operator and network against Algorithm 1 in PyTorch, on the CPU.

Results are compared before anything is timed; the command fails if ours are further than 1e-2 from
Algorithm 1 in float64, relative to the largest value.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.timing import cpu_name, keep_memory, pin, race

TOLERANCE = 1e-2


def main() -> int:
    """Parse the command line, prepare the process, then import and run the work."""
    args = _arguments()
    settings = [pin(args.threads)]
    settings.append(keep_memory() if args.keep_memory else "system malloc as it is")
    # Both sides on the CPU, where a graphics card would be the choice of one of them only.
    os.environ["JAX_PLATFORMS"] = "cpu"

    import torch

    from benchmarks.work import pieces

    torch.set_num_threads(args.threads)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{cpu_name()}; {args.threads} thread(s); {'; '.join(settings)}")

    budget: dict[str, Any] = {"seconds": 20.0, "min_pairs": 3, "max_pairs": 30}
    if args.quick:
        budget = {"seconds": 1.0, "min_pairs": 3, "max_pairs": 10}
    channels, blocks = (32, 4) if args.quick else (128, 20)
    rows: list[dict[str, Any]] = []
    for name, build in pieces(args.size, channels, blocks):
        work = build()
        console.print(
            f"{name}: error against float64 {work.error:.1e}, Algorithm 1 in float32 "
            f"{work.reference_error:.1e}"
        )
        if not work.error <= TOLERANCE:
            console.print(f"[red]{name}: ours differ from Algorithm 1 by {work.error:.1e}[/red]")
            return 1
        gc.collect()
        result = race(work.ours, work.reference, **budget)
        rows.append(
            {
                "work": name,
                **asdict(result),
                "peak_mb": work.peak_mb,
                "error": work.error,
                "reference_error": work.reference_error,
            }
        )
        console.print(f"  {result.reference_ms:.1f} / {result.ours_ms:.1f} ms: {result.ratio:.1f}x")
        if args.json is not None:  # after every row: an interrupted run keeps what it has
            report = {"rows": rows, **_circumstances(args, settings)}
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    console.print(_table(rows))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small maps, 32 channels, 4 blocks, few repeats"
    )
    parser.add_argument("--threads", type=int, default=2, help="cores for both sides (default 2)")
    parser.add_argument("--size", type=int, help="side of the maps (default 256; --quick 64)")
    parser.add_argument("--json", type=Path, help="write the rows and circumstances here")
    parser.add_argument(
        "--keep-memory", action="store_true", help="malloc keeps freed memory, for both sides"
    )
    args = parser.parse_args()
    if args.size is None:
        args.size = 64 if args.quick else 256
    if args.size < 16 or args.threads < 1:
        parser.error("--size must be 16 or more, --threads 1 or more")
    return args


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Algorithm 1 (PyTorch) / ours (JAX): above 1, ours is faster")
    table.add_column("work", overflow="fold")
    for column in ("ours ms", "Alg. 1 ms", "ratio", "min-max", "best", "cpu", "pairs", "peak MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        peak = row["peak_mb"]
        table.add_row(
            row["work"],
            f"{row['ours_ms']:.1f}",
            f"{row['reference_ms']:.1f}",
            f"{row['ratio']:.1f}x",
            f"{row['ratio_min']:.1f}-{row['ratio_max']:.1f}",
            f"{row['ratio_best']:.1f}x",
            f"{row['ratio_cpu']:.1f}x",
            str(row["pairs"]),
            "-" if peak is None else f"{peak:.0f}",
        )
    return table


def _circumstances(args: argparse.Namespace, settings: list[str]) -> dict[str, Any]:
    packages = ("jax", "jaxlib", "flax", "torch", "numpy")
    return {
        "machine": cpu_name(),
        "threads": args.threads,
        "settings": settings,
        "size": args.size,
        "quick": args.quick,
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
    }


def _commit() -> str | None:
    """The checkout's commit, with `+` if files differ from it; None outside of a checkout."""
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        if head.returncode != 0:
            return None
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


if __name__ == "__main__":
    sys.exit(main())
