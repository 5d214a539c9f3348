"""`converse-jax models`."""

from __future__ import annotations

import argparse
import textwrap

from converse_jax.messages import printable

SUMMARY = "list the models that come with this package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options: none."""


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax.weights import list_models

    cards = list_models()
    for name, card in cards.items():
        line = f"{name:<28} {card.architecture:<17} {card.purpose:<41} {card.license}"
        print(printable(line))
    # The terms of the images concern whoever builds on the weights.
    images: dict[str, list[str]] = {}
    for name, card in cards.items():
        for source in card.notes.get("trained_on", ()):
            images.setdefault(source, []).append(name)
    for source, names in images.items():
        text = f"Trained on {source}: {', '.join(names)}."
        print("\n" + textwrap.fill(printable(text), 100, break_on_hyphens=False))
    if not cards:
        print("No models come with this version of converse-jax.")
        print("Give the path of weights instead: the authors' .pth files, or our .safetensors:")
        print("  converse-jax restore in.png out.png --model converse_dncnn.pth")
    return 0
