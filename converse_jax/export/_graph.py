"""An ONNX graph under construction: a node is a call, and a value is the name that it returns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""The first with Gelu, and what darktable asks for; IR version 9 came with it."""

IR_VERSION = 9

DOMAIN = "converse"
"""Of the functions in the file, which are made of standard operators."""


class Maps(NamedTuple):
    """Feature maps as pixels `[N H W, C]`, with the size that they have as `[N, H, W, C]`.

    A linear layer and its bias are one product of matrices on pixels. Height and width are integer
    scalars; layers that see maps of one size share their names, and so all that depends on them.
    """

    pixels: str
    height: str
    width: str
    channels: int


class Graph:
    """Nodes in the order of their execution, and the numbers they use."""

    def __init__(self) -> None:
        """Start with an empty graph."""
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.functions: dict[str, Any] = {}
        self._count = 0
        self._shared: dict[Hashable, Any] = {}

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the name of that."""
        (output,) = self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)
        return output

    def ops(
        self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node; returns the names of its outputs."""
        names = [self._name(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def constant(self, value: Any, dtype: Any = None, name: str | None = None) -> str:
        """A number or an array; equal ones without a name are kept once."""
        array = np.asarray(value, dtype)
        if name is not None:
            return self.initializer(name, array)
        key = (array.dtype.str, array.shape, array.tobytes())
        return self.shared(key, lambda: self.initializer(self._name("constant"), array))

    def initializer(self, name: str, array: np.ndarray) -> str:
        """Keep an array under this name."""
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("="))
        # Not `ascontiguousarray`, which makes () to (1,).
        self.initializers[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def integers(self, *values: int) -> str:
        """A vector of integers: axes, shapes, bounds."""
        return self.constant(values, np.int64)

    def real(self, value: float) -> str:
        """A single-precision number."""
        return self.constant(value, np.float32)

    def shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first called for this key."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def reshape(self, x: str, *shape: int | str) -> str:
        """Reshape to integers and integer scalars of the graph."""
        return self.op("Reshape", x, self.shape(*shape))

    def shape(self, *sizes: int | str) -> str:
        """A shape as a vector."""
        if all(isinstance(size, int) for size in sizes):
            return self.constant(sizes, np.int64)
        return self.shared(("shape", sizes), lambda: self._shape(sizes))

    def _shape(self, sizes: Sequence[int | str]) -> str:
        parts = [
            self.integers(size) if isinstance(size, int) else self.vector(size) for size in sizes
        ]
        return self.op("Concat", *parts, axis=0)

    def vector(self, scalar: str) -> str:
        """A scalar as a vector of one element."""
        key = ("vector", scalar)
        return self.shared(key, lambda: self.op("Reshape", scalar, self.integers(1)))

    def size(self, x: str, axis: int) -> str:
        """The size of an axis, an integer scalar."""
        shape = self.shared(("sizes", x), lambda: self.op("Shape", x))
        return self.op("Gather", shape, self.constant(axis, np.int64), axis=0)

    def integer(self, kind: str, size: str, other: int) -> str:
        """An operation of an integer scalar and a number, such as "Mul"."""
        key = (kind, size, other)
        return self.shared(key, lambda: self.op(kind, size, self.constant(other, np.int64)))

    def call(
        self, name: str, inputs: Sequence[str], outputs: int, build: Callable[..., Sequence[str]]
    ) -> list[str]:
        """Call a function of the file, which `build(graph, *inputs)` makes if it is new."""
        if name not in self.functions:
            self.functions[name] = self._function(name, len(inputs), build)
        return self.ops(name, *inputs, outputs=outputs, domain=DOMAIN)

    @staticmethod
    def _function(name: str, inputs: int, build: Callable[..., Sequence[str]]) -> Any:
        graph = Graph()
        names = [f"input{i}" for i in range(inputs)]
        outputs = build(graph, *names)
        # A function has no initializers.
        numbers = [
            helper.make_node("Constant", [], [key], value=tensor)
            for key, tensor in graph.initializers.items()
        ]
        opset = helper.make_opsetid("", OPSET)
        return helper.make_function(
            DOMAIN, name, names, list(outputs), numbers + graph.nodes, [opset]
        )

    def model(
        self,
        name: str,
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Mapping[str, Sequence[int | str]],
        metadata: dict[str, str],
        version: str,
    ) -> onnx.ModelProto:
        """The finished file: float32 inputs and outputs with these axes, named if they are free."""

        def info(key: str, shape: Sequence[int | str]) -> Any:
            return helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self.nodes,
            name,
            [info(key, shape) for key, shape in inputs.items()],
            [info(key, shape) for key, shape in outputs.items()],
            list(self.initializers.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            functions=list(self.functions.values()),
            ir_version=IR_VERSION,
            producer_name="converse-jax",
            producer_version=version,
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model

    def rename(self, value: str, name: str) -> None:
        """Give the output of the last node the name that it has outside."""
        assert list(self.nodes[-1].output) == [value]
        self.nodes[-1].output[0] = name

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"
