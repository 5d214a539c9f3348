"""`python -m train.export RUN OUT.safetensors`: the averaged weights of a run, with a model card.

`converse_jax.load` and `converse-jax restore --model` take the file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converse_jax.messages import one_line, printable, say
from converse_jax.plugins import PluginError, load_plugin
from converse_jax.weights import ModelCard, WeightsError, assemble, save
from train.command import exit_status
from train.errors import TrainError
from train.json_file import read_object


def export(
    run: Path,
    target: Path,
    *,
    step: int | None = None,
    best: bool = False,
    name: str | None = None,
    license: str | None = None,
    source: str | None = None,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ModelCard:
    """Write the averaged weights of a checkpoint, batch normalization merged into convolutions.

    Args:
        run: the run's folder.
        target: the file to write, *.safetensors.
        step: step of the checkpoint; the latest intact one by default.
        best: use the checkpoint with the highest PSNR instead.
        name: model name; the run's name by default.
        license: license of the weights, for the card.
        source: who made the weights, and from what data, for the card.
        notes: further notes for the card, e.g. measured figures; they replace the run's notes of
            the same name.
        overwrite: replace an existing file.

    Returns:
        The card that was written.

    Raises:
        TrainError: no such run or checkpoint, or a damaged one.
        WeightsError: the file cannot be written.
    """
    # Orbax takes a second to import: report a wrong path without waiting for it.
    from train.checkpoint import CHECKPOINT_DIR, Checkpoints

    if target.suffix != ".safetensors":
        raise TrainError(f"{target}: name a file that ends in .safetensors")
    if os.path.lexists(target) and not overwrite:
        raise TrainError(f"{target}: exists already; name another, or replace it (--overwrite)")
    if not (run / CHECKPOINT_DIR).is_dir():
        raise TrainError(f"{run}: holds no checkpoints; give the folder of a run, e.g. runs/NAME")
    with Checkpoints(run, keep=1, read_only=True) as checkpoints:
        steps = checkpoints.steps
        listed = ", ".join(map(str, steps)) or "none"
        if best:
            step = checkpoints.best
            if step is None:
                raise TrainError(f"{run}: no checkpoint was measured; there are steps {listed}")
        if step is not None and step not in steps:
            raise TrainError(f"{run}: has no checkpoint of step {step}; there are steps {listed}")
        step, details, state = checkpoints.last_whole(say, None if step is None else [step])
    arrays = {
        key.removeprefix("ema."): np.asarray(value)
        for key, value in state.items()
        if key.startswith("ema.")
    }
    changes = {"name": name, "license": license, "source": source}
    values = {key: value for key, value in changes.items() if value is not None}
    try:
        card = ModelCard.from_values({"license": "unspecified", **details["card"], **values})
        card = replace(card, notes=card.notes | dict(notes or {}))
    except (KeyError, TypeError, ValueError) as error:
        raise TrainError(f"{run}, step {step}: holds no model card ({one_line(error)})") from None
    model = assemble(card, arrays, origin=f"{run}, step {step}")
    if hasattr(model, "for_inference"):
        model, changed = model.for_inference()
        card = replace(card, config=card.config | changed)
    save(target, model, card, overwrite=overwrite)
    return card


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return exit_status(
        "train.export",
        lambda: _run(argv),
        interrupted="interrupted; nothing was written",
        mistakes=(PluginError, WeightsError),
    )


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.export", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("target", type=Path, help="the file to write, *.safetensors")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, help="step of the checkpoint (default: the last)")
    which.add_argument("--best", action="store_true", help="export the one with the highest PSNR")
    parser.add_argument("--name", help="model name (default: the run's name)")
    parser.add_argument("--license", help="license of the weights, for the card")
    parser.add_argument("--source", help="who made the weights and from what, for the card")
    parser.add_argument(
        "--notes", type=Path, metavar="NOTES.JSON", help="JSON object of further notes for the card"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="NETWORK.PY",
        help="Python file or module to run first, which registers the network of the run",
    )
    args = vars(parser.parse_args(argv))
    for plugin in args.pop("plugin"):
        load_plugin(plugin)
    path = args["notes"]
    args["notes"] = {} if path is None else read_object(path)
    card = export(args.pop("run"), args.pop("target"), **args)
    psnr = card.notes.get("held_out_psnr")
    of = " (Y)" if card.task == "sr" else ""
    measured = "" if psnr is None else f", PSNR{of} {psnr:.2f} dB on held-out images"
    after = f"{card.architecture} after step {card.notes.get('step')}{measured}"
    print(printable(f"{card.name}: {after}"))
    return 0


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    sys.exit(main())
