"""What several commands share: their options, mistakes in them, and lines for the user."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, NoReturn

from converse_jax.messages import say

if TYPE_CHECKING:
    import numpy as np
    from flax import nnx

    from converse_jax.restore import Restorer
    from converse_jax.weights import ModelCard


class UsageError(Exception):
    """A mistake in the command line, in one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a `UsageError`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def add_model(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--model` and `--plugin`."""
    text = "network: a name from `converse-jax models`, a .safetensors or an authors' .pth file"
    parser.add_argument("--model", required=required, metavar="M", help=text)
    add_plugin(parser, "--model")


def add_plugin(parser: argparse.ArgumentParser, model: str) -> None:
    """Add `--plugin`, for the network that `model` names."""
    text = f"Python file or module to run first, which registers the network of {model}"
    parser.add_argument("--plugin", action="append", default=[], metavar="NETWORK.PY", help=text)


def add_solver(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--solver`, whose default is `text`, and `--scale`."""
    parser.add_argument(
        "--solver",
        choices=("network", "pnp"),
        help="for deblur and sr: a network trained for the task, or pnp, a denoiser in a "
        f"plug-and-play iteration, for any kernel, scale and noise level ({text})",
    )
    parser.add_argument(
        "--scale", type=int, metavar="S", help="enlargement factor of --task sr (default 2)"
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def add_kernel(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--kernel`, which is for `text`, `--center-kernel` and `--flip-kernel`."""
    parser.add_argument(
        "--kernel",
        metavar="K",
        help=f"{text}: a .npy, .npz, .mat, text or image file, or motion:LENGTH:ANGLE (degrees "
        "counter-clockwise from the x axis), gaussian:SIGMA, disk:RADIUS or box:N in pixels; "
        "for true convolution, its center the tap (height // 2, width // 2)",
    )
    parser.add_argument(
        "--center-kernel",
        action="store_true",
        help="move the kernel by whole pixels so that its centroid is at its center",
    )
    parser.add_argument(
        "--flip-kernel",
        action="store_true",
        help="turn the kernel by 180 degrees: it was made for correlation, as OpenCV's filter2D",
    )


def number(text: str, low: float, high: float, expected: str) -> float:
    """A number in a range, for the `type` of an option."""
    with contextlib.suppress(ValueError):
        if low <= (value := float(text)) <= high:
            return value
    raise argparse.ArgumentTypeError(f"got {text!r}; expected {expected}")


def given_restorer(args: argparse.Namespace) -> tuple[Restorer, np.ndarray | None]:
    """The model and the kernel that the command names."""
    from converse_jax import compilation_cache
    from converse_jax.restore import Restorer
    from converse_jax.restore_pnp import PnPRestorer

    load_plugins(args)
    if args.solver != "pnp" and args.scale is not None:
        raise UsageError("--scale: --model has one of its own; leave it out")
    if args.solver == "pnp" and args.task not in ("deblur", "sr"):
        raise UsageError("--solver pnp with --model needs --task deblur or --task sr")
    if args.scale is not None and args.task != "sr":
        raise UsageError(f"--scale is for --task sr, got --task {args.task}")
    kernel = given_kernel(args)
    compilation_cache.enable()
    restorer = Restorer(*loaded(args.model))
    if args.solver == "pnp":
        return PnPRestorer(restorer, args.task, scale=args.scale), kernel
    return restorer, kernel


def load_plugins(args: argparse.Namespace) -> None:
    """Run what `--plugin` names."""
    from converse_jax.plugins import load_plugin

    for plugin in args.plugin:
        load_plugin(plugin)


def loaded(name_or_path: str) -> tuple[nnx.Module, ModelCard]:
    """The network and its card, with what was taken of several state dicts said."""
    from converse_jax.weights import load

    model, card = load(name_or_path)
    if "read" in card.notes:
        say(f"{name_or_path}: read {card.notes['read']}")
    return model, card


def given_kernel(args: argparse.Namespace) -> np.ndarray | None:
    """The kernel of `--kernel`, with what is odd about it said."""
    from converse_jax.imaging import read_kernel

    if args.kernel is None:
        for option in ("center_kernel", "flip_kernel"):
            if getattr(args, option):
                raise UsageError(f"--{option.replace('_', '-')} is for --kernel, and there is none")
        return None
    kernel, notes = read_kernel(args.kernel, center=args.center_kernel, flip=args.flip_kernel)
    for note in notes:
        say(note)
    return kernel
