"""Weights on the Hugging Face Hub: read from a repository, and a folder to make one of."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

from flax import nnx

from converse_jax.atomic import write_bytes
from converse_jax.messages import exists_already, one_line
from converse_jax.weights._card import ModelCard
from converse_jax.weights._errors import WeightsError

PREFIX = "hf:"
WEIGHTS_FILE = "model.safetensors"

_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")

# The Hub's words for what our networks do.
_TAGS = {"denoise": "image-denoising", "sr": "super-resolution", "deblur": "image-deblurring"}

_PAPER = "https://github.com/cszn/ConverseNet"

# Identifiers of https://huggingface.co/docs/hub/repositories-licenses, for names as in SPDX.
_LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "unlicense"),
    *("cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0"),
)


def hub_file(name: str) -> Path:
    """Fetch the weights of `hf:owner/name@revision`, or take them from the Hub's own cache.

    Of a repository only `model.safetensors` is read. `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE`
    are those of `huggingface_hub`.

    Raises:
        WeightsError: no such repository, revision or file, or the Hub cannot be reached.
        ModuleNotFoundError: the package huggingface_hub is not installed.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise WeightsError(f"{name}: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    try:
        from huggingface_hub import errors, hf_hub_download
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        text = f'{name}: needs the package huggingface_hub: pip install "converse-jax[hub]"'
        raise ModuleNotFoundError(text, name=error.name) from None
    repository, revision = found["repository"], found["revision"]
    try:
        return Path(hf_hub_download(repository, WEIGHTS_FILE, revision=revision))
    except errors.GatedRepoError:
        reason = "its owner grants access one by one: ask there, then run hf auth login"
    except errors.RepositoryNotFoundError:
        reason = "no such repository on the Hub, or a private one (then run hf auth login)"
    except errors.RevisionNotFoundError:
        reason = f"the repository has no revision {revision}"
    except errors.LocalEntryNotFoundError:
        reason = "the Hub cannot be reached, and the file is not in its cache"
    except errors.EntryNotFoundError:
        reason = f"holds no {WEIGHTS_FILE}, which is what converse-jax card writes"
    except errors.HFValidationError as error:
        reason = one_line(error, 160)
    except OSError as error:  # of the connection, the server or the disk
        reason = f"cannot be fetched ({one_line(error, 160)})"
    raise WeightsError(f"{name}: {reason}")


def write_hub_folder(
    model: nnx.Module,
    card: ModelCard,
    folder: str | os.PathLike[str],
    *,
    repository: str = "OWNER/NAME",
    overwrite: bool = False,
) -> None:
    """Write what a repository of the Hub needs: weights, `config.json` and a README with its YAML.

    Args:
        model: the network.
        card: its card, of which all else is made.
        folder: made if missing.
        repository: where it will lie, for the example in the README.
        overwrite: replace files of these names.

    Raises:
        WeightsError: a license that is not known, files that exist, or that cannot be written.
    """
    from converse_jax.weights._load import save

    folder = Path(folder)
    if not card.license or card.license.startswith(("unknown", "unspecified")):
        raise WeightsError(
            f"{card.name}: got weights of license {card.license!r}; expected one that lets them be "
            "published: write it into the card of your own weights (dataclasses.replace, save)"
        )
    texts = {"config.json": _config(card), "README.md": _readme(card, repository)}
    for name in (*texts, WEIGHTS_FILE):
        if os.path.lexists(folder / name) and not overwrite:
            raise WeightsError(exists_already(folder / name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / WEIGHTS_FILE, model, card, overwrite=overwrite)
        for name, text in texts.items():
            write_bytes(folder / name, text.encode(), overwrite=overwrite)
    except FileExistsError as error:
        raise WeightsError(exists_already(error.filename or folder)) from None
    except OSError as error:
        raise WeightsError(f"{folder}: cannot be written ({error.strerror})") from None


def _config(card: ModelCard) -> str:
    """What the card says of the network, for programs; the Hub counts its downloads."""
    values = asdict(card)
    del values["notes"]
    return json.dumps({"architectures": [card.architecture], **values}, indent=2) + "\n"


def _readme(card: ModelCard, repository: str) -> str:
    known = card.license.lower()
    yaml = {"library_name": "converse-jax"}
    yaml |= {"license": known if known in _LICENSES else "other"}
    if known not in _LICENSES:
        yaml["license_name"] = card.license
    yaml["pipeline_tag"] = "image-to-image"
    tags = ["image-restoration", _TAGS.get(card.task, card.task), "reverse-convolution", "jax"]
    # A JSON string is one of YAML.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in yaml.items())]
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags), "---", "", f"# {card.name}", ""]
    kernel = " --kernel k.npy" if card.needs_kernel else ""
    paper = f"[Reverse Convolution and Its Applications to Image Restoration]({_PAPER})"
    lines += [
        f"{card.architecture} ({card.purpose}), a network of reverse convolutions in JAX: {paper}.",
        *("", "```sh", 'pip install "converse-jax[app,hub]"'),
        f"converse-jax restore in.png out.png --model hf:{repository}{kernel}",
        *("```", "", "```python", "import converse_jax", ""),
        f'model, card = converse_jax.load("hf:{repository}")',
        *("```", "", "| | |", "|---|---|"),
    ]
    about = {
        "source": card.source,
        "license": card.license,
        "network's class": card.defined_in,
        **{
            key: card.notes.get(key)
            for key in ("trained_on", "measured", "not", "steps", "hardware")
        },
    }
    rows = {key.replace("_", " "): _cell(_joined(value)) for key, value in about.items() if value}
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(lines) + "\n"


def _joined(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_joined(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_joined, value))
    return "" if value is None else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
