"""Weights: the authors' `.pth` files, read without running them, and our own format."""

from converse_jax.weights._card import ModelCard
from converse_jax.weights._errors import WeightsError
from converse_jax.weights._hub import write_hub_folder
from converse_jax.weights._load import (
    assemble,
    list_models,
    load,
    load_torch_state,
    save,
    weights_file,
)

__all__ = [
    "ModelCard",
    "WeightsError",
    "assemble",
    "list_models",
    "load",
    "load_torch_state",
    "save",
    "weights_file",
    "write_hub_folder",
]
