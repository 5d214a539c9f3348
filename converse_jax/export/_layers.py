"""Layers in ONNX: what each of `nn` does to maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from converse_jax.export._converse import converse
from converse_jax.export._errors import ExportError
from converse_jax.export._graph import Graph, Maps
from converse_jax.models.srresnet import Nearest, PixelShuffle, ZerosAbove
from converse_jax.nn import (
    Block,
    ConvBlock,
    Converse2D,
    ConverseBlock,
    ConvTransposeBlock,
    DepthwiseConv,
    DepthwiseConvTranspose,
)

BLOCKS = (Block, ConverseBlock, ConvBlock, ConvTransposeBlock)


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


def spatial(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    """A layer that sees more than a pixel, or a sequence of them.

    Raises:
        ExportError: a layer whose ONNX form is not known.
    """
    if type(layer) is nnx.Sequential:
        for i, part in enumerate(layer.layers):
            x = spatial(graph, part, x, f"{name}.layers.{i}")
        return x
    _check_type(layer, tuple(_SPATIAL), name)
    return _SPATIAL[type(layer)](graph, layer, x, name)


def _converse_layer(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
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


def _convolution(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    """A `nnx.Conv` as the baselines have it: with a bias, zeros outside, and the map's size."""
    plain = (layer.padding, layer.strides, layer.kernel_dilation, layer.feature_group_count)
    if plain not in (("SAME", 1, 1, 1), ("SAME", (1, 1), (1, 1), 1)) or layer.bias is None:
        raise ExportError(f"{name}: got a convolution with options; expected a plain one")
    kernel = numbers(layer.kernel).transpose(3, 2, 0, 1)
    pads = [(k - 1) // 2 for k in kernel.shape[2:]] + [k // 2 for k in kernel.shape[2:]]
    y = _convolved(graph, "Conv", layer, x, kernel, name, pads=pads)
    return y._replace(channels=kernel.shape[0])


def _depthwise(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    kernel = numbers(layer.kernel)
    before, after = [(k - 1) // 2 for k in kernel.shape[:2]], [k // 2 for k in kernel.shape[:2]]
    images = graph.reshape(x.pixels, -1, x.height, x.width, x.channels)
    pads = graph.integers(0, *before, 0, 0, *after, 0)
    images = graph.op("Pad", images, pads, mode=_PAD_MODES[layer.padding_mode])
    taps = kernel.transpose(2, 0, 1)[:, None]
    return _convolved(graph, "Conv", layer, x, taps, name, images=images, group=x.channels)


def _depthwise_transposed(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    kernel, s = numbers(layer.kernel), layer.scale
    pads = [(k - 1) // 2 for k in kernel.shape[:2]]
    height, width = (
        graph.integer("Add", graph.integer("Mul", size, s), k - s - 2 * p)
        for size, k, p in zip((x.height, x.width), kernel.shape[:2], pads, strict=True)
    )
    taps = kernel.transpose(2, 0, 1)[:, None]
    options: dict[str, Any] = {"group": x.channels, "pads": pads * 2, "strides": [s, s]}
    y = _convolved(graph, "ConvTranspose", layer, x, taps, name, **options)
    return y._replace(height=height, width=width)


def _convolved(
    graph: Graph,
    kind: str,
    layer: Any,
    x: Maps,
    kernel: np.ndarray,
    name: str,
    *,
    images: str | None = None,
    **options: Any,
) -> Maps:
    """A convolution of channels first, which is ONNX's only kind; maps of the size of x."""
    if images is None:
        images = graph.reshape(x.pixels, -1, x.height, x.width, x.channels)
    y = graph.op(
        kind,
        graph.op("Transpose", images, perm=[0, 3, 1, 2]),
        graph.constant(kernel, name=f"{name}.kernel"),
        graph.constant(numbers(layer.bias), name=f"{name}.bias"),
        **options,
    )
    y = graph.op("Transpose", y, perm=[0, 2, 3, 1])
    return x._replace(pixels=graph.reshape(y, -1, int(layer.bias.shape[0])))


def _nearest(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    s = layer.scale
    cells = graph.reshape(x.pixels, -1, x.height, 1, x.width, 1, x.channels)
    return _enlarged(graph, graph.op("Tile", cells, graph.integers(1, 1, s, 1, s, 1)), x, s)


def _pixel_shuffle(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    s = layer.scale
    channels = x.channels // s**2
    cells = graph.reshape(x.pixels, -1, x.height, x.width, s, s, channels)
    cells = graph.op("Transpose", cells, perm=[0, 1, 3, 2, 4, 5])
    return _enlarged(graph, cells, x._replace(channels=channels), s)


def _enlarged(graph: Graph, cells: str, x: Maps, s: int) -> Maps:
    height, width = (graph.integer("Mul", size, s) for size in (x.height, x.width))
    return Maps(graph.reshape(cells, -1, x.channels), height, width, x.channels)


def _zeros_above(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    n = layer.size
    images = graph.reshape(x.pixels, -1, x.height, x.width, x.channels)
    images = graph.op("Pad", images, graph.integers(0, n, n, 0, 0, 0, 0, 0))
    height, width = (graph.integer("Add", size, n) for size in (x.height, x.width))
    return Maps(graph.reshape(images, -1, x.channels), height, width, x.channels)


_PAD_MODES = {"circular": "wrap", "replicate": "edge", "reflect": "reflect", "constant": "constant"}

_SPATIAL: dict[type, Callable[[Graph, Any, Maps, str], Maps]] = {
    Converse2D: _converse_layer,
    nnx.Conv: _convolution,
    DepthwiseConv: _depthwise,
    DepthwiseConvTranspose: _depthwise_transposed,
    Nearest: _nearest,
    PixelShuffle: _pixel_shuffle,
    ZerosAbove: _zeros_above,
}


def block(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    """A `Block`, with any spatial operator that is known.

    Raises:
        ExportError: another block, or one with other layers inside.
    """
    _check_type(layer, BLOCKS, name)

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
    y = spatial(graph, layer.spatial, wide, f"{name}.spatial").pixels
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
