"""The command `converse-jax`: a file for each of its commands.

Exit status: 0; 1 if some images of a folder failed; 2 for a mistake in the command or its files,
with a one-line message; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import sys
from collections.abc import Sequence

from converse_jax._version import __version__
from converse_jax.cli import (
    _card,
    _compare,
    _convert,
    _demo,
    _evaluate,
    _export,
    _models,
    _restore,
    _serve,
)
from converse_jax.cli._arguments import Parser, UsageError
from converse_jax.messages import one_line, say

__all__ = ["UsageError", "main"]

_COMMANDS = {
    "restore": _restore,
    "evaluate": _evaluate,
    "compare": _compare,
    "models": _models,
    "convert": _convert,
    "export": _export,
    "card": _card,
    "demo": _demo,
    "serve": _serve,
}
"""Each has `SUMMARY`, `add_arguments(parser)` and `run(args)`, the exit status."""

# Modules that may be missing: their package, and the extra that installs it.
_OPTIONAL = {
    "PIL": ("pillow", "app"),
    "imagecodecs": ("imagecodecs", "app"),
    "skimage": ("scikit-image", "app"),
    "onnx": ("onnx", "onnx"),
    "gradio": ("gradio", "serve"),
    "huggingface_hub": ("huggingface_hub", "hub"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, the process's by default; return the exit status."""
    from converse_jax.export import ExportError
    from converse_jax.imaging import ImageError, KernelError
    from converse_jax.plugins import PluginError
    from converse_jax.restore import RestoreError
    from converse_jax.weights import WeightsError

    expected = (
        UsageError,
        ExportError,
        ImageError,
        KernelError,
        PluginError,
        RestoreError,
        WeightsError,
    )
    for stream in (sys.stdout, sys.stderr):
        # A name that the console's encoding lacks must not end the work.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        args = _parse(sys.argv[1:] if argv is None else list(argv))
        status: int = _COMMANDS[args.command].run(args)
        sys.stdout.flush()
        return status
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except expected as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        missing = _OPTIONAL.get((error.name or "").split(".")[0])
        if missing is None:
            raise
        package, extra = missing
        return _fail(f'this needs the package {package}: pip install "converse-jax[{extra}]"')
    except ImportError as error:
        if not str(error.path).endswith((".so", ".dylib", ".pyd")):
            raise
        reason = f"a library cannot be loaded ({one_line(error, 300)})"
        return _fail(f"{reason}; install it again, or allow more memory (ulimit -v)")
    except KeyboardInterrupt:
        say("converse-jax: interrupted")
        return 130
    except BrokenPipeError:
        # The reader has gone: Python's last flush must not complain.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"out of memory ({one_line(error)}); make the images smaller (--tile N)")


def _fail(message: str) -> int:
    say("converse-jax: error: " + " ".join(message.split()))
    return 2


def _parse(argv: list[str]) -> argparse.Namespace:
    if any("\0" in word for word in argv):  # a system passes none, but a program might
        raise UsageError("arguments: got one with a null character; expected none")
    parser, commands = _parsers()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command = commands[args.command]
        known = [option for action in command._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        hint = f": did you mean {near[0]}?" if near else f"; see converse-jax {args.command} --help"
        raise UsageError(f"{args.command} does not know {unknown[0]!r}{hint}")
    return args


def _parsers() -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    parser = Parser(
        prog="converse-jax",
        description="Restore images with reverse convolution networks.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"converse-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        text = command.SUMMARY
        command.add_arguments(
            commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        )
    return parser, dict(commands.choices)
