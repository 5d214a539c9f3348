"""`python -m train CONFIG.py [--field value ...]`: train the network that a file describes.

Exit status: 0; 1 if the run failed; 2 for a user error, reported in one line before the first step;
75 after SIGTERM and 130 after Ctrl-C, saved in both cases for `--resume`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from train.command import exit_status, leave
from train.errors import TrainError

USAGE = """usage: python -m train CONFIG.py [--field value ...]

Trains the network that a configuration (configs/*.py) describes, e.g.

  python -m train configs/quickstart.py                  a small denoiser, in a few minutes
  python -m train configs/quickstart.py --help           every field, with its default
  python -m train configs/dncnn_gray_sigma25.py --data.train photos/ --run runs/mine
  python -m train configs/dncnn_gray_sigma25.py --run runs/mine --resume
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    return exit_status(
        "train", lambda: _named(argv), interrupted="interrupted before it could save"
    )


def _named(argv: Sequence[str]) -> int:
    if not argv or argv[0].startswith("-"):
        raise TrainError("name a configuration first, e.g. configs/quickstart.py (--help)")
    return _run(argv[0], argv[1:])


def _run(path: str, arguments: Sequence[str]) -> int:
    from train.config import parse_args, read_config

    command = parse_args(
        read_config(path),
        arguments,
        prog=f"python -m train {path}",
        description=_first_paragraphs(path),
    )
    # Slow to import: mistakes in the command are reported without waiting for them.
    from converse_jax import compilation_cache
    from train.loop import train
    from train.processes import initialize_distributed

    # Orbax logs its errors as well as raising them.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    compilation_cache.enable()
    initialize_distributed(command.distributed)
    return train(command)


def _first_paragraphs(path: str) -> str:
    import ast

    with open(path, encoding="utf-8") as file:
        return ast.get_docstring(ast.parse(file.read())) or ""


if __name__ == "__main__":
    from train.huge_pages import start_again_with_huge_pages

    start_again_with_huge_pages()
    leave(main())
