"""`python -m benchmarks`: our operator and networks against Algorithm 1 in PyTorch.

Results are compared before anything is timed: the exit status is 1 if ours are wrong.
"""

from __future__ import annotations

import importlib.util
import sys

from benchmarks.process import Parser, output_file, positive
from benchmarks.suite import suite


def main() -> int:
    """Parse the command line, and run."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="all rows, smaller, few repeats")
    parser.add_argument("--only", metavar="TEXT", help="the rows whose name contains this")
    parser.add_argument(
        "--threads", type=positive, default=2, help="cores for both sides (default 2)"
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "gpu"),
        help="of both sides (default: the GPU if JAX and PyTorch find one)",
    )
    parser.add_argument(
        "--no-compile", action="store_true", help="nothing under torch.compile, which takes long"
    )
    parser.add_argument("--json", type=output_file, help="write rows and circumstances here")
    args = parser.parse_args()
    rows = suite(quick=args.quick)
    chosen = [row for row in rows if args.only is None or args.only.lower() in row.name.lower()]
    if not chosen:
        names = "; ".join(row.name for row in rows)
        parser.error(f"--only {args.only}: in no row; the rows are {names}")
    for package in ("torch", "rich"):
        if importlib.util.find_spec(package) is None:
            parser.error(f'needs {package}: pip install -e ".[bench]"')

    from benchmarks.run import run

    return run(chosen, args)


if __name__ == "__main__":
    sys.exit(main())
