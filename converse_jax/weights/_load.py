"""Load and save weights, and list the models that come with the package."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from converse_jax import models
from converse_jax.messages import one_line
from converse_jax.weights._card import ModelCard, check_arguments
from converse_jax.weights._errors import WeightsError, listed, shown, shown_path
from converse_jax.weights._hub import PREFIX, hub_file
from converse_jax.weights._pth import read_state
from converse_jax.weights._safetensors import read_safetensors, write_safetensors
from converse_jax.weights._torch_names import AUTHORS, recognize, translate

BUNDLED = Path(__file__).parent / "bundled"

# No file records its noise level. These are the authors' own, known by their hashes, and the levels
# of the paper's experiments.
_SIGMAS = {
    "3b86c7f6e41a014448f923bc331232e1f45e2eae350dd7f9e18440803d283e89": 25.0,  # Converse-DnCNN
    "729529b8bc8cbda152d6b60734b01032b49c20fcb8b6da2fb33141d9c3378d82": 2.55,  # Converse-USRNet
    "603cbb29075178410db9ab6166b247d2ddff32f349c59a7e1763c46feca270bd": 2.55,  # ConverseNet
}

_DTYPES = ("float16", "bfloat16", "float32", "float64")


def list_models() -> dict[str, ModelCard]:
    """Cards of the models that come with this package, by name; `load` takes these names."""
    cards = {}
    for path in sorted(BUNDLED.glob("*.safetensors"), key=lambda path: path.stem):
        _, metadata = read_safetensors(path)
        cards[path.stem] = ModelCard.from_metadata(metadata)
    return cards


def load(name_or_path: str | os.PathLike[str]) -> tuple[nnx.Module, ModelCard]:
    """Load a network with its weights; nothing in a file is ever executed.

    Args:
        name_or_path: a name of `list_models`, a `.safetensors` file written by `save`, or one of
            the authors' `.pth` files, whose architecture, width, depth and kernel size are
            recognized from the contents; so are those of other weights for these networks, whose
            noise level is unknown. `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION` is a repository of
            the Hugging Face Hub, the only name for which something is downloaded.

    Returns:
        `(model, card)`; `card.notes["read"]` says which of several state dicts was taken. Batch
        normalization, where there is any, uses its running averages (`model.eval()`).

    Raises:
        WeightsError: no such name or file, a network that is not registered (`models.register`), or
            a file that cannot be trusted or does not fit; the message says why, and lists the
            missing, unexpected and misshapen parameters, the first 50 of each.
    """
    path = weights_file(name_or_path)
    if path.suffix == ".safetensors":
        arrays, metadata = read_safetensors(path)
        try:
            card = ModelCard.from_metadata(metadata)
        except ValueError as error:
            raise WeightsError(
                f"{shown_path(path)}: {error}: only files written by converse-jax can be loaded"
            ) from None
        model = assemble(card, arrays, origin=path)
        _check_card(path, model, card)
        return model, card
    theirs, chosen = read_state(path)
    recognized = recognize(theirs)
    if recognized is None:
        raise WeightsError(
            f"{shown_path(path)}: its {len(theirs)} arrays ({listed(list(theirs)[:3])}, ...) "
            f"belong to none of the networks {', '.join(AUTHORS)}"
        )
    architecture, config = recognized
    model = _build(path, architecture, config, "", len(theirs))
    arrays, unknown = translate(architecture, theirs)
    return _fill(path, model, arrays, unknown), _foreign_card(path, architecture, config, chosen)


def weights_file(name_or_path: str | os.PathLike[str]) -> Path:
    """The file that `load` reads for a name or a path.

    Raises:
        WeightsError: no such name or file.
    """
    if str(name_or_path).startswith(PREFIX):
        return hub_file(str(name_or_path))
    path = Path(name_or_path)
    bundled = BUNDLED / f"{name_or_path}.safetensors"
    if path.name == str(name_or_path) and not path.exists() and bundled.exists():
        return bundled
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in BUNDLED.glob("*.safetensors"))) or "none yet"
        raise WeightsError(
            f"{shown_path(name_or_path)}: no such file, and no model of this name: give a path to "
            f"a .pth or .safetensors file, or one of the bundled models ({names})"
        )
    if (path / "checkpoints").is_dir():
        raise WeightsError(
            f"{shown_path(path)}: is the folder of a training run: write its weights to a file "
            f"first: python -m train.export {shown_path(path)} OUT.safetensors"
        )
    return path


def assemble(
    card: ModelCard, arrays: Mapping[str, np.ndarray], *, origin: object = "weights"
) -> nnx.Module:
    """Make the network that a card describes, with these weights.

    Args:
        card: its architecture and config.
        arrays: by the dotted names of our modules' parameters, e.g. "body.0.expand1.kernel".
        origin: name of the weights in messages.

    Raises:
        WeightsError: an unknown architecture, or weights that do not fit it.
    """
    model = _build(origin, card.architecture, card.config, card.defined_in, len(arrays))
    return _fill(origin, model, arrays, [])


def save(
    path: str | os.PathLike[str], model: nnx.Module, card: ModelCard, *, overwrite: bool = False
) -> None:
    """Write a network's weights and its card as one `.safetensors` file, atomically.

    Weights are what is learned and the running averages of batch normalization.

    Raises:
        WeightsError: the file exists and overwrite is False, it cannot be written, or the card
            holds what `load` would refuse.
    """
    try:
        ModelCard.from_values(asdict(card))
    except ValueError as error:
        raise WeightsError(f"{shown_path(path)}: {error}") from None
    arrays = {name: np.asarray(variable[...]) for name, variable in _parameters(model).items()}
    write_safetensors(path, arrays, card.to_metadata(), overwrite=overwrite)


def load_torch_state(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Put PyTorch-named arrays into one of our networks, in place.

    Raises:
        WeightsError: missing, unexpected or misshapen parameters, of which the message lists the
            first 50 of each; arrays that are not floating point, or not finite.
    """
    architecture = type(model).__name__
    if architecture not in AUTHORS:
        raise WeightsError(
            f"model: got {architecture}, of which the authors have no weights; expected one of "
            f"{', '.join(AUTHORS)}"
        )
    ours, unknown = translate(architecture, arrays)
    _fill("state dict", model, ours, unknown)


def _build(
    path: object, architecture: str, config: Mapping[str, Any], defined_in: object, arrays: int
) -> nnx.Module:
    networks, where = models.registered(), shown_path(path)
    if architecture not in networks:
        # Never run because a card says so: the user has to name it.
        file = ascii(str(defined_in)[:500]) if defined_in else "the file that registers it"
        raise WeightsError(
            f"{where}: unknown architecture {shown(architecture)}, known are "
            f"{', '.join(networks)}; if you trust it, give {file} (--plugin), or import it before "
            "you load the weights"
        )
    make: Any = networks[architecture].make
    try:
        check_arguments(config, arrays)
        # Shapes only: the values are replaced at once.
        return nnx.eval_shape(lambda: make(**config, rngs=nnx.Rngs(0)))
    except Exception as error:  # arguments of wrong types make a network raise almost anything
        arguments = ", ".join(f"{shown(key)}: {shown(config[key])}" for key in list(config)[:20])
        raise WeightsError(
            f"{where}: {architecture} cannot be built from {{{arguments}}}: {one_line(error, 300)}"
        ) from error


def _check_card(path: object, model: nnx.Module, card: ModelCard) -> None:
    """Raise a WeightsError if one of our networks is not what the card says."""
    network = models.registered()[card.architecture]
    if network.defined_in:  # others may name things differently
        return
    inputs = network.inputs(card.config)
    facts: dict[str, object] = {
        "channels": getattr(model, "channels", card.channels),
        "scale": getattr(model, "scale", 1),
        "needs_kernel": "kernel" in inputs,
        "needs_sigma": "sigma" in inputs,
    }
    wrong = [
        f"{name} {shown(getattr(card, name))}, where {card.architecture} has {shown(value)}"
        for name, value in facts.items()
        if getattr(card, name) != value
    ]
    if card.task not in network.tasks:
        wrong.append(f"task {card.task!r}, where {card.architecture} has {'/'.join(network.tasks)}")
    if wrong:
        raise WeightsError(f"{shown_path(path)}: its model card says {'; '.join(wrong)}")


def _parameters(model: nnx.Module) -> dict[str, nnx.Variable]:
    flat = nnx.to_flat_state(nnx.state(model, models.WEIGHTS))
    return {".".join(map(str, path)): variable for path, variable in flat}


def _fill(
    path: object, model: nnx.Module, arrays: Mapping[str, np.ndarray], unexpected: list[str]
) -> nnx.Module:
    wanted, where = _parameters(model), shown_path(path)
    missing = sorted(wanted.keys() - arrays.keys())
    unexpected = sorted(unexpected) + sorted(arrays.keys() - wanted.keys())
    common = sorted(wanted.keys() & arrays.keys())
    misshapen = [
        f"{name} is {arrays[name].shape}, needs {wanted[name].shape}"
        for name in common
        if arrays[name].shape != wanted[name].shape
    ]
    problems = [
        f"{len(names)} {kind} ({listed(names)})"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"{where}: does not fit {type(model).__name__}: parameters {'; '.join(problems)}"
        )
    for name in common:
        if arrays[name].dtype.name not in _DTYPES:
            raise WeightsError(
                f"{where}: {name} is {arrays[name].dtype}; expected floating point "
                f"({', '.join(_DTYPES)})"
            )
    with np.errstate(over="ignore"):  # float64 becomes float32, and too large a number infinity
        values = {name: jnp.asarray(arrays[name]) for name in common}
    not_finite = [name for name in common if not np.isfinite(np.asarray(values[name])).all()]
    if not_finite:
        raise WeightsError(
            f"{where}: {listed(not_finite, 3)}: holds NaN or infinity, as would every result; "
            "fetch it again, or train it anew"
        )
    state = nnx.state(model, models.WEIGHTS)
    flat = [
        (key, variable.replace(values[".".join(map(str, key))]))
        for key, variable in nnx.to_flat_state(state)
    ]
    nnx.update(model, nnx.from_flat_state(flat))
    model.eval()
    return model


def _foreign_card(
    path: Path, architecture: str, config: dict[str, Any], chosen: str | None
) -> ModelCard:
    network = models.registered()[architecture]
    (task,), inputs = network.tasks, network.inputs(config)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return ModelCard(
        name=path.stem,
        architecture=architecture,
        config=config,
        task=task,
        channels=config["channels"],
        sigma=_SIGMAS.get(sha256),
        scale=config.get("scale", 1),
        needs_kernel="kernel" in inputs,
        needs_sigma="sigma" in inputs,
        source=f"PyTorch state dict {path.name}",
        license="unknown: the authors' release carries none",
        sha256=sha256,
        notes={} if chosen is None else {"read": chosen},
    )
