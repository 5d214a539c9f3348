"""Weights: the authors' `.pth` files, read without running them, and our own format."""

from converse_jax.weights._card import ModelCard
from converse_jax.weights._load import list_models, load, load_torch_state, save
from converse_jax.weights._pth import WeightsError

__all__ = ["ModelCard", "WeightsError", "list_models", "load", "load_torch_state", "save"]
