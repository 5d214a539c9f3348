"""The weights a new run starts from (`--init`) instead of random ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from converse_jax import ModelCard, WeightsError, load, models
from converse_jax.weights import assemble, weights_file
from train.config import Config
from train.errors import TrainError
from train.state import FunctionalNetwork


@dataclass(frozen=True)
class Initial:
    """Weights from a file, and what is recorded of it.

    Attributes:
        arrays: float32, by name in the run's network; with `--init-partial` only some.
        record: `name` as given, `sha256` of the file, and `partial`, how many of the network's
            arrays came from it, if not all did.
        note: one line for the user.
    """

    arrays: dict[str, np.ndarray]
    record: dict[str, Any]
    note: str


def read_initial(
    config: Config, network: FunctionalNetwork, name: str, *, partial: bool
) -> Initial:
    """Read weights for the network of a run.

    Args:
        config: the run.
        network: its network.
        name: whatever `converse_jax.load` takes.
        partial: use only the arrays that match in name and shape.

    Raises:
        TrainError: they cannot be read, or do not fit; the message lists everything missing,
            unexpected or misshapen.
    """
    try:
        model, card = load(name)
        digest = hashlib.sha256(weights_file(name).read_bytes()).hexdigest()
    except (WeightsError, OSError) as error:
        raise TrainError(f"--init: {error}") from None
    flat = nnx.to_flat_state(nnx.state(model, models.WEIGHTS))
    arrays = {".".join(map(str, path)): np.asarray(v[...], np.float32) for path, v in flat}
    wanted = network.shapes
    fitting = {key: x for key, x in arrays.items() if wanted.get(key) == x.shape}
    arguments = config.model.arguments(config.task.scale)
    record: dict[str, Any] = {"name": name, "sha256": digest}
    notes = [f"starting from {name} ({card.architecture})"]
    if not partial:
        ours = ModelCard(
            name=config.name,
            architecture=config.model.architecture,
            config=arguments,
            task=config.task.name,
            channels=config.model.channels,
        )
        try:
            assemble(ours, arrays, origin=name)
        except WeightsError as error:
            raise TrainError(f"--init: {error}; --init-partial takes what fits") from None
    elif not fitting:
        raise TrainError(
            f"--init: {name} ({card.architecture}): none of its {len(arrays)} arrays fits this "
            "network; start without it"
        )
    elif wanted.keys() != arrays.keys() or len(fitting) < len(wanted):
        record["partial"] = f"{len(fitting)} of {len(wanted)} arrays"
        drawn = ", ".join(sorted(wanted.keys() - fitting.keys())) or "none"
        unused = ", ".join(sorted(arrays.keys() - wanted.keys())) or "none"
        notes.append(f"{record['partial']}; drawn at random: {drawn}; not used: {unused}")
    # Some settings do not show in the shapes of the weights.
    changed = [
        f"{key} {card.config[key]!r} -> {value!r}"
        for key, value in arguments.items()
        if key in card.config and card.config[key] != value
    ]
    if changed:
        notes.append(f"made with other settings: {', '.join(changed)}")
    return Initial(fitting, record, "; ".join(notes))
