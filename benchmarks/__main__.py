"""Time our operator, networks and training step against Algorithm 1 of the paper in PyTorch.

Before a row is timed its results are compared. Exit status: 0; 1 if ours are wrong or a row failed;
2 for a mistake in the arguments; 130 after Ctrl-C. benchmarks/README.md explains the columns.
"""

from __future__ import annotations

import importlib.util
import sys

from benchmarks import process
from benchmarks.suite import suite


def main() -> int:
    """Parse the command line, set up the process, and run."""
    parser = process.Parser("benchmarks", __doc__, "--quick", "--only", "--threads", "--json")
    parser.add_argument(
        "--device",
        choices=("cpu", "gpu"),
        help="device of both sides (default: the GPU if JAX and PyTorch find one)",
    )
    parser.add_argument(
        "--no-compile", action="store_true", help="leave out torch.compile, which takes long"
    )
    args = parser.parse_args()
    rows = suite(quick=args.quick)
    chosen = [row for row in rows if args.only is None or args.only.lower() in row.name.lower()]
    if not chosen:
        names = "; ".join(row.name for row in rows)
        parser.error(f"--only {args.only}: in no row; the rows are {names}")
    if importlib.util.find_spec("torch") is None:
        parser.error('needs torch: pip install -e ".[bench]"')
    device = process.choose_device(args.device, parser)
    # On a GPU the host's cores only launch and compile.
    cores = process.pin(args.threads, parser) if device == "cpu" else "cores not pinned"

    from benchmarks.run import run  # JAX and PyTorch find the process set up

    return run(chosen, args, device, cores)


if __name__ == "__main__":
    sys.exit(main())
