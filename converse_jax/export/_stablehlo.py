"""A network as StableHLO, for programs that have JAX or another of its compilers."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from converse_jax.export._errors import ExportError
from converse_jax.export._onnx import check_target, without_transfers, write
from converse_jax.nn import Converse2D, use_method

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(
    model: nnx.Module,
    path: str | os.PathLike[str],
    *,
    scale: int = 1,
    overwrite: bool = False,
) -> None:
    """Write a network as StableHLO for any number of images of any size, on CPU, CUDA and TPU.

        network = jax.export.deserialize(bytearray(Path("network.stablehlo").read_bytes()))
        restored = network.call(images)  # [batch, height, width, C] float32

    Reading it takes JAX alone. A network that takes a noise level or a blur kernel is called with
    one for each image after them: `sigma` `[batch]`, `kernel` `[batch, k, k]`, float32. Sides are
    multiples of the network's `downscale`, if it has one: JAX cannot pad to a multiple by a number
    that it does not know. The weights are in the file; nothing of this package is.

    Args:
        model: a network of `converse_jax.models`, or any module called with images.
        path: the file to make; its folder must exist.
        scale: of a `ConverseUSRNet`: also enlarge by this factor.
        overwrite: replace an existing file.

    Raises:
        ExportError: a file that exists, or a network that JAX cannot export.
    """
    check_target(path, overwrite=overwrite)
    model = without_transfers(model)
    # Not the "fft" that a layer may ask for: XLA has none of unknown size.
    use_method(model, "dft")
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, Converse2D) and max(layer.kernel.shape[:2]) <= layer.scale:
            layer.method = "direct"
    graphdef, state = nnx.split(model)

    def call(x: jax.Array, *arguments: jax.Array) -> jax.Array:
        merged: Any = nnx.merge(graphdef, state)
        return merged(x, *arguments, **({"scale": scale} if scale != 1 else {}))

    s = getattr(model, "downscale", 1)
    least = _least_side(model)
    batch, height, width = jax.export.symbolic_shape(
        f"batch, {s}*height, {s}*width" if s > 1 else "batch, height, width",
        constraints=[f"height >= {least}", f"width >= {least}"],
    )
    channels = getattr(model, "channels", None) or getattr(model, "num_features", None)
    if channels is None:
        raise ExportError(
            f"model: got {type(model).__name__}, which does not say how many channels it takes; "
            "expected an attribute `channels`"
        )

    def argument(*shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    arguments = [argument(batch, height, width, channels)]
    if getattr(model, "noise_level", False):
        arguments.append(argument(batch))
    if side := getattr(model, "blur_size", None):
        arguments.append(argument(batch, side, side))
    exported = jax.export.export(jax.jit(call), platforms=PLATFORMS)(*arguments)
    write(path, bytes(exported.serialize()), overwrite=overwrite)


def _least_side(model: nnx.Module) -> int:
    """The smallest side of maps that all layers take, so that no size is left in question."""
    least = getattr(model, "blur_size", 1)
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, Converse2D):
            kernel = max(layer.kernel.shape[:2])
            reflected = layer.padding + 1 if layer.padding_mode == "reflect" else 1
            least = max(least, reflected, -(-kernel // layer.scale) - 2 * layer.padding)
    return least
