"""Networks in ONNX: each reads as the `__call__` that it repeats, in `models`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converse_jax import nn
from converse_jax.export._converse import converse
from converse_jax.export._errors import ExportError
from converse_jax.export._graph import Graph, Maps
from converse_jax.export._layers import BLOCKS, block, gelu, linear, numbers, spatial
from converse_jax.models import (
    ConvDnCNN,
    ConverseDnCNN,
    ConverseNet,
    ConverseSRResNet,
    ConverseUSRNet,
    ConvNet,
    ConvSRResNet,
    ConvTransposeDnCNN,
    ConvTransposeSRResNet,
    ConvUSRNet,
    DnCNN,
    SRResNet,
)
from converse_jax.nn import Block, Converse2D, lam_from_logit

Form = Callable[[Graph, Any, str, Mapping[str, str], int], str]
"""`(graph, model, images, further inputs, scale) -> images`, all `[N, H, W, C]`."""


@dataclass(frozen=True)
class Signature:
    """What a network takes and gives.

    Attributes:
        channels: of its images.
        outputs: channels of the result.
        scale: its enlargement.
        inputs: what it is called with besides the image: "sigma", "kernel".
    """

    channels: int
    outputs: int
    scale: int
    inputs: tuple[str, ...] = ()


def signature(model: Any, scale: int) -> Signature:
    """What a network takes and gives, called with this `scale` if it takes one.

    Raises:
        ExportError: a network without an ONNX form, or a scale for one that takes none.
    """
    if type(model) not in _FORMS:
        raise ExportError(
            f"model: got {type(model).__name__}; expected one of "
            f"{', '.join(kind.__name__ for kind in _FORMS)}, of which the ONNX form is known"
        )
    if type(model) is ConverseUSRNet:
        return Signature(model.channels, model.channels, scale, ("kernel",))
    if scale != 1:
        raise ExportError(
            f"scale: got {scale}, but {type(model).__name__} takes none when it is called; "
            "leave it out"
        )
    if isinstance(model, Block):
        channels = model.expand1.in_features
        return Signature(channels, channels, 1)
    if isinstance(model, Converse2D):
        return Signature(model.num_features, model.num_features, model.scale)
    if type(model) is ConvUSRNet:
        return Signature(model.channels, model.channels, 1, ("kernel",))
    inputs = ("sigma",) if getattr(model, "noise_level", False) else ()
    return Signature(model.channels, model.channels, getattr(model, "scale", 1), inputs)


def network(
    graph: Graph, model: Any, images: str, inputs: Mapping[str, str], *, scale: int = 1
) -> str:
    """A network's result for images `[N, H, W, C]`; check it by `signature` before."""
    return _FORMS[type(model)](graph, model, images, inputs, scale)


def _maps(graph: Graph, images: str, channels: int) -> Maps:
    height, width = graph.size(images, 1), graph.size(images, 2)
    return Maps(graph.reshape(images, -1, channels), height, width, channels)


def _images(graph: Graph, maps: Maps) -> str:
    return graph.reshape(maps.pixels, -1, maps.height, maps.width, maps.channels)


def _dense(graph: Graph, layer: Any, x: Maps, name: str) -> Maps:
    return x._replace(pixels=linear(graph, layer, x.pixels, name), channels=int(layer.out_features))


def _blocks(graph: Graph, layers: Sequence[Any], x: Maps) -> Maps:
    for i, layer in enumerate(layers):
        x = block(graph, layer, x, f"body.{i}")
    return x


def _layer(graph: Graph, model: Any, images: str, inputs: Mapping[str, str], scale: int) -> str:
    form = spatial if isinstance(model, Converse2D) else block
    channels = signature(model, scale).channels
    return _images(graph, form(graph, model, _maps(graph, images, channels), "layer"))


def _dncnn(graph: Graph, model: Any, images: str, inputs: Mapping[str, str], scale: int) -> str:
    s = model.downscale
    height, width = graph.size(images, 1), graph.size(images, 2)
    y = _to_cells(graph, images, height, width, model.channels, s)
    if "sigma" in inputs:
        shape = graph.op("Slice", graph.op("Shape", images), graph.integers(0), graph.integers(3))
        shape = graph.op("Concat", shape, graph.integers(1), axis=0)
        levels = graph.op("Expand", inputs["sigma"], shape)
        levels = _to_cells(graph, levels, height, width, 1, s).pixels
        mean = graph.op("ReduceMean", levels, graph.integers(1), keepdims=1)
        channels = y.channels + 1
        y = y._replace(pixels=graph.op("Concat", y.pixels, mean, axis=1), channels=channels)
    y = _blocks(graph, model.body, _dense(graph, model.head, y, "head"))
    result = _from_cells(graph, _dense(graph, model.tail, y, "tail"), height, width, s)
    return graph.op("Add", images, result) if model.residual else result


def _to_cells(graph: Graph, x: str, height: str, width: str, channels: int, s: int) -> Maps:
    """Space to depth, the last row and column repeated up to a multiple of s."""
    if s == 1:
        return _maps(graph, x, channels)
    cells = [graph.integer("Div", graph.integer("Add", size, s - 1), s) for size in (height, width)]
    missing = [
        graph.vector(graph.op("Sub", graph.integer("Mul", n, s), size))
        for n, size in zip(cells, (height, width), strict=True)
    ]
    pads = graph.op("Concat", graph.integers(0, 0, 0, 0, 0), *missing, graph.integers(0), axis=0)
    x = graph.op("Pad", x, pads, mode="edge")
    x = graph.reshape(x, -1, cells[0], s, cells[1], s, channels)
    x = graph.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
    channels *= s * s
    return Maps(graph.reshape(x, -1, channels), cells[0], cells[1], channels)


def _from_cells(graph: Graph, x: Maps, height: str, width: str, s: int) -> str:
    """Depth to space, cropped to this size."""
    if s == 1:
        return _images(graph, x)
    channels = x.channels // (s * s)
    y = graph.reshape(x.pixels, -1, x.height, x.width, s, s, channels)
    y = graph.op("Transpose", y, perm=[0, 1, 3, 2, 4, 5])
    sizes = (graph.integer("Mul", size, s) for size in (x.height, x.width))
    y = graph.reshape(y, -1, *sizes, channels)
    end = graph.shape(height, width)
    return graph.op("Slice", y, graph.integers(0, 0), end, graph.integers(1, 2))


def _plain_dncnn(
    graph: Graph, model: Any, images: str, inputs: Mapping[str, str], scale: int
) -> str:
    model, _ = model.for_inference()
    y = _relu(graph, spatial(graph, model.head, _maps(graph, images, model.channels), "head"))
    for i, layer in enumerate(model.body):
        y = _relu(graph, spatial(graph, layer, y, f"body.{i}"))
    return graph.op("Sub", images, _images(graph, spatial(graph, model.tail, y, "tail")))


def _relu(graph: Graph, x: Maps) -> Maps:
    return x._replace(pixels=graph.op("Relu", x.pixels))


def _bilinear(graph: Graph, images: str, scale: int) -> str:
    scales = graph.constant([1, scale, scale, 1], np.float32)
    mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return graph.op("Resize", images, "", scales, **mode)


def _srresnet(graph: Graph, model: Any, images: str, inputs: Mapping[str, str], scale: int) -> str:
    enlarged = _bilinear(graph, images, model.scale)

    def activated(x: Maps) -> Maps:
        return x._replace(pixels=gelu(graph, x.pixels))

    y = activated(_dense(graph, model.head, _maps(graph, images, model.channels), "head"))
    y = _blocks(graph, model.body, y)
    steps = itertools.zip_longest(model.up_blocks, model.upsamplers)
    for i, (before, upsampler) in enumerate(steps):
        if before is not None:
            y = block(graph, before, y, f"up_blocks.{i}")
        y = activated(spatial(graph, upsampler, y, f"upsamplers.{i}"))
    if model.high_block is not None:
        y = activated(block(graph, model.high_block, y, "high_block"))
    return graph.op("Add", _images(graph, _dense(graph, model.tail, y, "tail")), enlarged)


def _plain_srresnet(
    graph: Graph, model: Any, images: str, inputs: Mapping[str, str], scale: int
) -> str:
    enlarged = _bilinear(graph, images, model.scale)

    def activated(x: Maps) -> Maps:
        if model.activation is nn.gelu:
            return x._replace(pixels=gelu(graph, x.pixels))
        return x._replace(pixels=graph.op("LeakyRelu", x.pixels, alpha=0.1))

    y = activated(spatial(graph, model.head, _maps(graph, images, model.channels), "head"))
    for i, layers in enumerate(model.body):
        z = _relu(graph, spatial(graph, layers["conv1"], y, f"body.{i}.conv1"))
        z = spatial(graph, layers["conv2"], z, f"body.{i}.conv2")
        y = y._replace(pixels=graph.op("Add", y.pixels, z.pixels))
    for i, upsampler in enumerate(model.upsamplers):
        y = activated(spatial(graph, upsampler, y, f"upsamplers.{i}"))
    y = activated(spatial(graph, model.high, y, "high"))
    return graph.op("Add", _images(graph, spatial(graph, model.tail, y, "tail")), enlarged)


def _conversenet(
    graph: Graph, model: Any, images: str, inputs: Mapping[str, str], scale: int
) -> str:
    y = _dense(graph, model.head, _maps(graph, images, model.channels), "head")
    for _ in range(model.num_iterations):
        y = _blocks(graph, model.body, y)
    return _images(graph, _dense(graph, model.tail, y, "tail"))


def _conv_usrnet(
    graph: Graph, model: Any, images: str, inputs: Mapping[str, str], scale: int
) -> str:
    k = model.blur_size
    blur = graph.op("Unsqueeze", inputs["kernel"], graph.integers(3))
    options: dict[str, Any] = {"taps": (k, k), "scale": 1, "padding": 0, "padding_mode": "circular"}
    y = _maps(graph, images, model.channels)
    z = y
    for logit in numbers(model.lam_logit):
        lam = np.asarray(lam_from_logit(logit, 1e-3), np.float32)
        data = converse(graph, y, blur, lam, x0="zero", **options)
        prior = converse(graph, z, blur, lam, x0="prior", **options)
        z = y._replace(pixels=graph.op("Add", data.pixels, prior.pixels))
        z = _maps(
            graph, _conversenet(graph, model.denoiser, _images(graph, z), {}, 1), model.channels
        )
    return _images(graph, z)


def _usrnet(graph: Graph, model: Any, images: str, inputs: Mapping[str, str], scale: int) -> str:
    k, net = model.blur_size, model.kernel_net
    embedded = graph.reshape(inputs["kernel"], -1, k * k)
    for i in (1, 2, 3):
        embedded = gelu(graph, embedded) if i > 1 else embedded
        embedded = linear(graph, getattr(net, f"fc{i}"), embedded, f"kernel_net.fc{i}")
    embedded = graph.reshape(embedded, -1, net.num_maps, k, k)
    embedded = graph.op("Transpose", embedded, perm=[0, 2, 3, 1])
    embedded = graph.reshape(embedded, -1, net.num_maps)

    y = _dense(graph, model.head, _maps(graph, images, model.channels), "head")
    lam = np.asarray(model.lam, np.float32)
    start = graph.op("Unsqueeze", inputs["kernel"], graph.integers(3))
    impulse = np.zeros((1, k, k, 1), np.float32)
    impulse[:, k // 2, k // 2] = 1
    for i, kernel_map in enumerate(model.kernel_maps):
        kernels = linear(graph, kernel_map, embedded, f"kernel_maps.{i}")
        kernels = graph.reshape(kernels, -1, k, k, y.channels)
        if model.kernel_residual:
            kernels = graph.op("Add", kernels, start)
            start = graph.constant(impulse)
        y = converse(
            graph,
            y,
            kernels,
            lam,
            taps=(k, k),
            scale=scale if i == 0 else 1,
            padding=0,
            padding_mode="circular",
            x0="nearest",
        )
        y = _blocks(graph, model.body, y)
    return _images(graph, _dense(graph, model.tail, y, "tail"))


_FORMS: dict[type, Form] = {
    **dict.fromkeys((ConverseDnCNN, ConvDnCNN, ConvTransposeDnCNN), _dncnn),
    DnCNN: _plain_dncnn,
    **dict.fromkeys((ConverseSRResNet, ConvSRResNet, ConvTransposeSRResNet), _srresnet),
    SRResNet: _plain_srresnet,
    ConverseUSRNet: _usrnet,
    ConvUSRNet: _conv_usrnet,
    **dict.fromkeys((ConverseNet, ConvNet), _conversenet),
    **dict.fromkeys((Converse2D, *BLOCKS), _layer),
}
