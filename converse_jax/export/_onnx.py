"""A network as one ONNX file for images of every size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flax import nnx

from converse_jax._version import __version__
from converse_jax.atomic import write_bytes
from converse_jax.export._check import SIZES, check_onnx
from converse_jax.export._errors import ExportError
from converse_jax.messages import cannot_be_written, exists_already, no_folder
from converse_jax.nn import TransferState
from converse_jax.weights import ModelCard

Layout = Literal["nhwc", "nchw"]


def export_onnx(
    model: nnx.Module,
    card: ModelCard | None,
    path: str | os.PathLike[str],
    *,
    layout: Layout = "nhwc",
    sigma: float | None = None,
    scale: int = 1,
    overwrite: bool = False,
) -> float | None:
    """Write a network as an ONNX file for any number of images of any size.

    The file holds the weights and, for `Converse2D`, products of matrices alone: no FFT, no
    operator of ours (opset 20, float32). The matrices are made of the image's size when it runs. It
    is compared with the model by ONNX Runtime, where that is installed, before it is written.

    Inputs and output are float32, images in [0, 1], not clipped:

    - `input` `[batch, height, width, C]`, or `[batch, C, height, width]` for "nchw";
    - `sigma`, of networks that take a noise level: its standard deviation in the units of the
      image, of any shape that broadcasts against one channel of it, e.g. `[1, 1, 1, 1]`;
    - `kernel` `[kernels, k, k]`, of networks that take a blur kernel, for true convolution: one
      for all images or one for each;
    - `output`, `scale` times as high and wide as the input.

    Args:
        model: a network of `converse_jax.models`, a `Converse2D` or a block.
        card: its card, which becomes the file's metadata; None for a network without one.
        path: the file to make; its folder must exist.
        layout: the order of the axes of images.
        sigma: of a network that takes a noise level: fix it, in the units of the image. The file
            then has no such input.
        scale: of a `ConverseUSRNet`: also enlarge by this factor.
        overwrite: replace an existing file.

    Returns:
        The largest difference from the model in the check, at most 1e-5; None if ONNX Runtime is
        not installed, and so nothing was checked.

    Raises:
        ExportError: a network whose ONNX form is not known, an option that it does not take, a file
            that exists, or a result that differs from the model's.
        ModuleNotFoundError: the package onnx is not installed.
    """
    check_target(path, overwrite=overwrite)
    content, error = checked_onnx(model, card, layout=layout, sigma=sigma, scale=scale)
    write(path, content, overwrite=overwrite)
    return error


def checked_onnx(
    model: nnx.Module,
    card: ModelCard | None,
    *,
    layout: Layout = "nhwc",
    sigma: float | None = None,
    scale: int = 1,
    images_only: bool = False,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> tuple[bytes, float | None]:
    """The content of an ONNX file, and what `export_onnx` returns.

    With `images_only` all inputs have the axes of the image, as darktable gives them; `sizes` are
    those of the images that are compared.
    """
    from converse_jax.export._graph import Graph
    from converse_jax.export._networks import network, signature

    if layout not in ("nhwc", "nchw"):
        raise ExportError(f"layout: got {layout!r}; expected 'nhwc' or 'nchw'")
    model = without_transfers(model)
    takes = signature(model, scale)
    if sigma is not None and "sigma" not in takes.inputs:
        raise ExportError(f"sigma: {type(model).__name__} takes no noise level; leave it out")

    def axes(channels: int, prefix: str = "", factor: int = 1) -> list[int | str]:
        times = f"{factor}*" if factor > 1 else ""
        size = [f"{times}{prefix}height", f"{times}{prefix}width"]
        batch = f"{prefix}batch"
        return [batch, channels, *size] if layout == "nchw" else [batch, *size, channels]

    graph = Graph()
    inputs = {"input": axes(takes.channels)}
    given: dict[str, str] = {}
    if "kernel" in takes.inputs:
        side = model.blur_size  # type: ignore[attr-defined]
        inputs["kernel"] = ["kernels", side, side]
        given["kernel"] = "kernel"
    if sigma is not None:
        given["sigma"] = graph.constant(np.full((1, 1, 1, 1), sigma), np.float32)
    elif "sigma" in takes.inputs:
        inputs["sigma"] = axes(1, "" if images_only else "sigma_")
        given["sigma"] = _channels_last(graph, "sigma", layout)
    result = network(graph, model, _channels_last(graph, "input", layout), given, scale=scale)
    turn: tuple[str, dict[str, Any]] = (
        ("Transpose", {"perm": [0, 3, 1, 2]}) if layout == "nchw" else ("Identity", {})
    )
    result = graph.op(turn[0], result, **turn[1])
    graph.rename(result, "output")
    metadata = {} if card is None else card.to_metadata()
    content = graph.model(
        type(model).__name__,
        inputs,
        {"output": axes(takes.outputs, factor=takes.scale)},
        metadata | {"layout": layout},
        __version__,
    ).SerializeToString()
    error = check_onnx(
        content,
        model,
        takes,
        layout=layout,
        sigma=sigma,
        scale=scale,
        images_only=images_only,
        sizes=sizes,
    )
    return content, error


def without_transfers(model: nnx.Module) -> nnx.Module:
    """A copy of a network that is prepared for no size."""
    model = nnx.clone(model)
    nnx.pop(model, TransferState)
    return model


def write(path: str | os.PathLike[str], content: bytes, *, overwrite: bool) -> None:
    """Write a file, completely or not at all.

    Raises:
        ExportError: it exists and `overwrite` is False, or it cannot be written.
    """
    try:
        write_bytes(Path(path), content, overwrite=overwrite)
    except FileExistsError:
        raise ExportError(exists_already(path)) from None
    except OSError as error:
        raise ExportError(cannot_be_written(path, error)) from None


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a file that could not be written, before the work.

    Raises:
        ExportError: it exists and `overwrite` is False, or its folder does not exist.
    """
    if os.path.lexists(path) and not overwrite:
        raise ExportError(exists_already(path))
    if not os.path.isdir(Path(path).parent):
        raise ExportError(no_folder(path))


def _channels_last(graph: Any, name: str, layout: Layout) -> str:
    return graph.op("Transpose", name, perm=[0, 2, 3, 1]) if layout == "nchw" else name
