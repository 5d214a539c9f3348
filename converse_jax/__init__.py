"""Reverse convolution (Converse2D) for JAX: operator, Flax layers, networks and weights."""

from typing import TYPE_CHECKING, Any

from converse_jax import models, nn
from converse_jax._version import __version__ as __version__
from converse_jax.ops import (
    Transfer,
    apply_transfer,
    blur_downsample,
    blur_downsample_adjoint,
    converse1d,
    converse2d,
    converse2d_transfer,
    converse3d,
)
from converse_jax.weights import ModelCard, WeightsError, list_models, load, save

if TYPE_CHECKING:
    from converse_jax.export import export_dtmodel, export_onnx, export_stablehlo
    from converse_jax.restore import Restorer
    from converse_jax.restore_array import restore_image

__all__ = [
    "ModelCard",
    "Restorer",
    "Transfer",
    "WeightsError",
    "apply_transfer",
    "blur_downsample",
    "blur_downsample_adjoint",
    "converse1d",
    "converse2d",
    "converse2d_transfer",
    "converse3d",
    "export_dtmodel",
    "export_onnx",
    "export_stablehlo",
    "list_models",
    "load",
    "models",
    "nn",
    "restore_image",
    "save",
]


def __getattr__(name: str) -> Any:
    # Loaded on demand: training and layers need no image files, nor files for other runtimes.
    if name == "Restorer":
        from converse_jax.restore import Restorer

        return Restorer
    if name == "restore_image":
        from converse_jax.restore_array import restore_image

        return restore_image
    if name.startswith("export_") and name in __all__:
        from converse_jax import export

        return getattr(export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
