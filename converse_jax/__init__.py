"""Reverse convolution (Converse2D) for JAX: operator, Flax layers, networks and weights."""

from converse_jax import models, nn
from converse_jax._version import __version__ as __version__
from converse_jax.ops import (
    Transfer,
    apply_transfer,
    blur_downsample,
    blur_downsample_adjoint,
    converse2d,
    converse2d_transfer,
)
from converse_jax.weights import ModelCard, WeightsError, list_models, load, save

__all__ = [
    "ModelCard",
    "Transfer",
    "WeightsError",
    "apply_transfer",
    "blur_downsample",
    "blur_downsample_adjoint",
    "converse2d",
    "converse2d_transfer",
    "list_models",
    "load",
    "models",
    "nn",
    "save",
]
