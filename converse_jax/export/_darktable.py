"""Packages for darktable (>= 5.6), which denoises and enlarges photographs with ONNX networks.

What it asks for is documented in its `dev-doc/AI.md` and `AI_Tasks.md` and in its model policy
(github.com/darktable-org/darktable-ai/wiki): a zip archive whose one folder has the name of the
model, with a `config.json` and the ONNX files; float32 RGB in [0, 1], encoded as sRGB, as
`[1, 3, height, width]`; an opset of 20; weights with a license, and their provenance.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from converse_jax._version import __version__
from converse_jax.export._errors import ExportError
from converse_jax.export._onnx import check_target, checked_onnx, write
from converse_jax.weights import ModelCard

_TASKS = {"denoise": "denoise", "sr": "upscale"}
_SCALES = (2, 4)

# Sides of the tiles, the first that fits into memory. It cuts 64 pixels from each side of a tile
# before it denoises, and 16 before it enlarges: more than our networks need. The transforms of
# smaller tiles are cheaper.
_TILES = {"denoise": [512, 384, 256], "upscale": [256, 192]}


def export_dtmodel(
    networks: Sequence[tuple[nnx.Module, ModelCard]],
    path: str | os.PathLike[str],
    *,
    sigma: float | None = None,
    overwrite: bool = False,
) -> float | None:
    """Write a package that darktable installs: preferences, AI, import from file.

    A network that takes a noise level has two inputs; darktable gives the second 25 / 255
    everywhere. With `sigma` the level is fixed to another, and there is one input.

    Args:
        networks: what `converse_jax.load` returns: one denoiser of color images, or one or two
            networks that enlarge them by 2 and 4.
        path: the file to make. Its name is that of the model in darktable: `denoise-NAME.dtmodel`
            or `upscale-NAME.dtmodel`, lower case, with hyphens.
        sigma: fix the noise level, in the units of the image.
        overwrite: replace an existing file.

    Returns:
        As `export_onnx`: the largest difference from the models, or None if it was not checked.

    Raises:
        ExportError: a network that darktable has no use for, weights without license or source, a
            name that it does not take, or as `export_onnx`.
        ModuleNotFoundError: the package onnx is not installed.
    """
    path = Path(path)
    check_target(path, overwrite=overwrite)
    task = _task([card for _, card in networks])
    identity = path.name.removesuffix(".dtmodel")
    if not re.fullmatch(rf"{task}(-[a-z0-9]+)+", identity):
        raise ExportError(
            f"{path}: got the name {identity!r}, which is that of the model in darktable; expected "
            f"{task}-NAME.dtmodel, lower case, with hyphens"
        )
    if sigma is not None and not any(card.needs_sigma for _, card in networks):
        raise ExportError(f"sigma: {networks[0][1].name} takes no noise level; leave it out")
    files: dict[str, bytes] = {}
    errors = []
    for model, card in networks:
        content, error = checked_onnx(model, card, layout="nchw", sigma=sigma, images_only=True)
        files["model.onnx" if task == "denoise" else f"model_x{card.scale}.onnx"] = content
        errors.append(error)
    inputs = 2 if sigma is None and networks[0][1].needs_sigma else 1
    cards = [card for _, card in networks]
    config = json.dumps(_config(identity, task, cards, inputs), indent=4, ensure_ascii=False)
    files["config.json"] = (config + "\n").encode()
    write(path, _archive(identity, files), overwrite=overwrite)
    return None if None in errors else max(e for e in errors if e is not None)


def _task(cards: Sequence[ModelCard]) -> str:
    """The task of darktable that these networks are for, after a check of what it asks for."""
    for card in cards:
        if card.task not in _TASKS or card.channels != 3 or card.needs_kernel:
            kind = "color" if card.channels == 3 else "gray"
            raise ExportError(
                f"{card.name}: got a network for {card.task} of {kind} images; expected one that "
                "denoises or enlarges color images"
            )
        if not card.license or card.license.startswith("unknown") or not card.source:
            raise ExportError(
                f"{card.name}: got weights of license {card.license!r} from {card.source!r}; "
                "expected both known: darktable takes only licensed weights with their provenance"
            )
    if cards[0].task == "denoise" and len(cards) == 1:
        return "denoise"
    scales = [card.scale for card in cards]
    if (
        {card.task for card in cards} != {"sr"}
        or not set(scales) <= set(_SCALES)
        or len(set(scales)) < len(scales)
    ):
        what = ", ".join(f"{card.task} x{card.scale}" for card in cards)
        raise ExportError(
            f"networks: got {what}; expected one that denoises, or one that enlarges by 2, by 4, "
            "or one of each"
        )
    return "upscale"


def _config(identity: str, task: str, cards: Sequence[ModelCard], inputs: int) -> dict[str, Any]:
    scales = " and ".join(f"{card.scale}x" for card in cards)
    what = "denoiser of color images" if task == "denoise" else f"{scales} enlargement"
    return {
        "id": identity,
        "name": identity.replace("-", " "),
        "description": f"Converse: reverse convolution network, {what}",
        "task": task,
        "arch": "converse",
        "backend": "onnx",
        "version": __version__,
        "num_inputs": inputs,
        "tiling": True,
        "spatial_dims": ["height", "width"],
        "model_card": {
            "long_description": "; ".join(f"{card.name}: {_about(card)}" for card in cards),
            "scope": "single-image denoising" if task == "denoise" else "image upscaling",
            "source": _together(card.source for card in cards),
            "paper": "Reverse Convolution and Its Applications to Image Restoration, ICCV 2025",
            "license": _together(card.license for card in cards),
            "training_data": _together(
                data for card in cards for data in _listed(card.notes.get("trained_on"))
            )
            or "not recorded",
            "training_data_license": "as said of the training data",
            "notes": _together(
                f"not {card.notes['not']}" for card in cards if card.notes.get("not")
            ),
        },
        "attributes": {"input_sizes": _TILES[task]},
    }


def _about(card: ModelCard) -> str:
    measured = card.notes.get("measured")
    figures = measured.items() if isinstance(measured, dict) else ()
    return ", ".join([card.architecture, *(f"{what}: {value}" for what, value in figures)])


def _listed(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list | tuple) else [value]) if item]


def _together(texts: Any) -> str:
    return "; ".join(dict.fromkeys(texts))


def _archive(folder: str, files: dict[str, bytes]) -> bytes:
    """A zip archive of one folder; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{folder}/{name}")  # of 1980
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
