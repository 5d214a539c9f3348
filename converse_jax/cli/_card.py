"""`converse-jax card`."""

from __future__ import annotations

import argparse

from converse_jax.cli._arguments import add_overwrite, add_plugin, load_plugins, loaded
from converse_jax.messages import say

SUMMARY = "write a network as a folder for the Hugging Face Hub: weights, config, model card"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    text = "a name from `converse-jax models`, a .safetensors or an authors' .pth file"
    parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument("folder", metavar="DIR", help="folder to make, for `hf upload`")
    parser.add_argument(
        "--repository",
        default="OWNER/NAME",
        metavar="OWNER/NAME",
        help="where it will lie, for the example in its README",
    )
    add_plugin(parser, "MODEL")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax.weights import write_hub_folder

    load_plugins(args)
    model, card = loaded(args.model)
    write_hub_folder(model, card, args.folder, repository=args.repository, overwrite=args.overwrite)
    say(f"{args.folder}: {card.name}; upload it: hf upload {args.repository} {args.folder}")
    return 0
