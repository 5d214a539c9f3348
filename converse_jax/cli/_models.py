"""`converse-jax models`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from converse_jax.messages import printable

if TYPE_CHECKING:
    from converse_jax.weights import ModelCard

SUMMARY = "list the models that come with this package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options: none."""


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax.weights import list_models

    cards = list_models()
    for name, card in cards.items():
        line = f"{name:<28} {card.architecture:<17} {purpose(card):<41} {card.license}"
        print(printable(line))
    if not cards:
        print("No models come with this version of converse-jax.")
        print("Give the path of weights instead: the authors' .pth files, or our .safetensors:")
        print("  converse-jax restore in.png out.png --model converse_dncnn.pth")
    return 0


def purpose(card: ModelCard) -> str:
    """What a network is for, in a few words."""
    kind = "color" if card.channels == 3 else "gray"
    if card.task == "sr":
        return f"x{card.scale} super-resolution, {kind}"
    kernel = ", kernel given" if card.needs_kernel else ""
    untold = ", sigma unknown" if card.task == "denoise" and not card.needs_sigma else ""
    sigma = untold if card.sigma is None else f", sigma {card.sigma:g}"
    if card.sigma_range is not None:
        sigma = ", sigma {:g} to {:g}".format(*card.sigma_range)
    return f"{card.task}, {kind}{sigma}{kernel}"
