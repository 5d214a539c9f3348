"""Time our operator, networks and training step against Algorithm 1 of the paper in PyTorch.

Results are compared before they are timed. Exit status: 0; 1 if ours are wrong or a row failed; 2
for a mistake in the arguments; 130 after Ctrl-C. benchmarks/README.md explains the columns.
"""

from __future__ import annotations

import importlib.util
import sys

from benchmarks.command import Parser, pin, use_device
from benchmarks.suite import suite


def main() -> int:
    """Run the command; the exit status."""
    parser = Parser("benchmarks", __doc__, "--quick", "--only", "--threads", "--json")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="default cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    args = parser.parse_args()
    rows = suite(quick=args.quick)
    chosen = [row for row in rows if args.only is None or args.only.lower() in row.name.lower()]
    if not chosen:
        names = "; ".join(row.name for row in rows)
        parser.error(f"--only {args.only}: in no row; the rows are {names}")
    if importlib.util.find_spec("torch") is None:
        parser.error('needs torch: pip install -e ".[bench]"')
    use_device(args.device)
    # On a GPU the host's cores only launch and compile.
    cores = pin(args.threads, parser) if args.device == "cpu" else "cores not pinned"

    from benchmarks.run import run  # JAX and PyTorch find the process set up

    return run(chosen, args, cores)


if __name__ == "__main__":
    sys.exit(main())
