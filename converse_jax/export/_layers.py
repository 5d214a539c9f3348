"""Layers in ONNX: what each of `nn` does to maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import nnx

from converse_jax.export._converse import converse
from converse_jax.export._errors import ExportError
from converse_jax.export._graph import Graph, Maps
from converse_jax.nn import Block, Converse2D, ConverseBlock


def numbers(parameter: Any) -> np.ndarray:
    """A parameter in single precision."""
    return np.asarray(parameter[...], np.float32)


def gelu(graph: Graph, x: str) -> str:
    """The exact (erf) GELU."""
    return graph.op("Gelu", x, approximate="none")


def linear(graph: Graph, layer: Any, x: str, name: str) -> str:
    """A linear layer of pixels `[n, C]`.

    Raises:
        ExportError: a layer that is no plain `nnx.Linear`.
    """
    _check_type(layer, nnx.Linear, name)
    inputs = [x, graph.constant(numbers(layer.kernel), name=f"{name}.kernel")]
    if layer.bias is not None:
        inputs.append(graph.constant(numbers(layer.bias), name=f"{name}.bias"))
    return graph.op("Gemm", *inputs)


def normalization(graph: Graph, layer: Any, x: str, name: str) -> str:
    """A layer normalization over the channels of pixels `[n, C]`.

    Raises:
        ExportError: a layer that is no plain `nnx.LayerNorm` with scale and bias.
    """
    _check_type(layer, nnx.LayerNorm, name)
    if layer.scale is None or layer.bias is None:
        raise ExportError(f"{name}: got a normalization without scale or bias; expected both")
    scale = graph.constant(numbers(layer.scale), name=f"{name}.scale")
    bias = graph.constant(numbers(layer.bias), name=f"{name}.bias")
    return graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=float(layer.epsilon))


def converse_layer(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    """A `Converse2D`.

    Raises:
        ExportError: another spatial operator.
    """
    _check_type(layer, Converse2D, name)
    kernel = numbers(layer.kernel)
    return converse(
        graph,
        x,
        graph.constant(kernel[None], name=f"{name}.kernel"),
        np.asarray(layer.lam, np.float32),
        taps=kernel.shape[:2],
        scale=layer.scale,
        padding=layer.padding,
        padding_mode=layer.padding_mode,
        x0=layer.x0,
    )


def block(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    """A `Block` whose spatial operator is a `Converse2D`.

    Raises:
        ExportError: another block, or one with other layers inside.
    """
    _check_type(layer, (Block, ConverseBlock), name)

    def add(y: str, factor: Any, stem: str, to: str) -> str:
        if factor is not None:
            y = graph.op("Mul", y, graph.constant(numbers(factor), name=f"{name}.{stem}"))
        return graph.op("Add", to, y)

    def expand(pixels: str, i: int) -> str:
        norm, dense = f"norm{i}", f"expand{i}"
        y = normalization(graph, getattr(layer, norm), pixels, f"{name}.{norm}")
        return gelu(graph, linear(graph, getattr(layer, dense), y, f"{name}.{dense}"))

    def project(pixels: str, i: int) -> str:
        dense = f"project{i}"
        return linear(graph, getattr(layer, dense), pixels, f"{name}.{dense}")

    wide = x._replace(pixels=expand(x.pixels, 1), channels=layer.expand1.out_features)
    y = converse_layer(graph, layer.spatial, wide, f"{name}.spatial").pixels
    pixels = add(project(gelu(graph, y), 1), layer.scale1, "scale1", x.pixels)
    pixels = add(project(expand(pixels, 2), 2), layer.scale2, "scale2", pixels)
    return x._replace(pixels=pixels)


def _check_type(layer: Any, kinds: Any, name: str) -> None:
    # A class of the user's may do anything in its call.
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if type(layer) not in kinds:
        raise ExportError(
            f"{name}: got {type(layer).__name__}; expected "
            f"{' or '.join(kind.__name__ for kind in kinds)}, of which the ONNX form is known"
        )
