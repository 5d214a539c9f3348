"""Prepared networks, and networks whose maps are shared out to several devices."""

import contextlib
import gc
import re
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from converse_jax.models import ConverseDnCNN, ConverseSRResNet, ConverseUSRNet
from converse_jax.nn import (
    Converse2D,
    ConverseBlock,
    Operator,
    TransferState,
    prepare,
    shard_spatially,
)
from converse_jax.nn._operator import Preparation

NETWORKS = {
    "dncnn": (
        lambda: ConverseDnCNN(1, num_features=8, num_blocks=2, rngs=nnx.Rngs(0)),
        (12, 14, 1),
        (),
    ),
    "srresnet": (
        lambda: ConverseSRResNet(4, 3, num_features=8, num_blocks=2, rngs=nnx.Rngs(0)),
        (8, 8, 3),
        (),
    ),
    "usrnet": (
        lambda: ConverseUSRNet(3, num_features=8, num_blocks=2, num_iterations=3, rngs=nnx.Rngs(0)),
        (16, 12, 3),
        (np.full((7, 7), 1 / 49, np.float32),),
    ),
}


def image(shape: tuple[int, ...], seed: int = 1) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), shape)


def nbytes(model: nnx.Module) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model, TransferState)))


def test_jax_keeps_nothing_of_a_preparation() -> None:
    # Its caches kept a description of the network for each image size: 0.1 MB at each.
    layer = Converse2D(2, 3, padding=2, rngs=nnx.Rngs(0))
    jax.jit(lambda x: nnx.state(prepare(layer, x), TransferState))(image((6, 5, 2)))
    gc.collect()
    assert not [known for known in gc.get_objects() if isinstance(known, Preparation)]


@pytest.mark.parametrize(
    "name", ["dncnn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("srresnet", "usrnet"))]
)
def test_prepared_is_the_same_network(name: str) -> None:
    build, shape, args = NETWORKS[name]
    model = build()
    prepared = prepare(model, jax.ShapeDtypeStruct(shape, jnp.float32), *args)
    assert nbytes(prepared) > 0
    assert nbytes(model) == 0
    run = nnx.jit(prepared)
    for seed in (1, 2):
        x = image(shape, seed)
        chex.assert_trees_all_close(run(x), model(x, *args), atol=1e-5, rtol=1e-5)


def test_transforms_alone_are_left() -> None:
    x = image((12, 14, 4))
    layer = Converse2D(4, 3, method="fft", rngs=nnx.Rngs(0))
    prepared = prepare(layer, x)
    graphdef, state = nnx.split(prepared)
    text = jax.jit(lambda s, x: nnx.merge(graphdef, s)(x)).lower(state, x).as_text()
    assert "logistic" not in text  # of lambda
    assert "cosine" not in text  # of the kernel's spectrum


def test_an_operator_that_is_used_several_times_is_prepared_once() -> None:
    build, shape, args = NETWORKS["usrnet"]
    blocks, width, iterations = 2, 8, 3
    prepared = prepare(build(), image(shape), *args)
    inside = (shape[0] + 4) // 2 + 1, (shape[1] + 4) // 2 + 1
    of_data = (shape[0] // 2 + 1), (shape[1] // 2 + 1)
    numbers = 4 * (blocks * 2 * width * np.prod(inside) + iterations * width * np.prod(of_data))
    assert nbytes(prepared) == 4 * numbers


def test_a_kernel_within_the_stride_keeps_its_taps_alone() -> None:
    layer = Converse2D(4, 2, scale=2, rngs=nnx.Rngs(0))
    prepared = prepare(layer, image((6, 6, 4)))
    assert nbytes(prepared) == 4 * (2 * 2 * 4 + 4)
    x = image((6, 6, 4))
    chex.assert_trees_all_close(prepared(x), layer(x), rtol=1e-5)


def test_other_sizes_are_computed_as_before() -> None:
    build, shape, _ = NETWORKS["dncnn"]
    model = build()
    prepared = prepare(model, image(shape))
    x = image((13, 14, 1))
    chex.assert_trees_all_close(prepared(x), model(x), atol=1e-6)
    nnx.pop(prepared, TransferState)
    assert nbytes(prepared) == 0
    chex.assert_trees_all_close(prepared(image(shape)), model(image(shape)), atol=1e-6)


def test_a_network_prepared_for_a_kernel_takes_no_other() -> None:
    build, shape, args = NETWORKS["usrnet"]
    model = build()
    with pytest.raises(ValueError, match="kernel: got none; expected the blur kernel"):
        model(image(shape))
    prepared = prepare(model, image(shape), *args)
    with pytest.raises(ValueError, match="prepared for a kernel: leave it out, or prepare it anew"):
        prepared(image(shape), 2 * args[0])
    with pytest.raises(ValueError, match="kernel: got none, and nothing is prepared for 20x12"):
        prepared(image((20, 12, 3)))


class Stack(nnx.Module):
    """Two layers, each called under a transformation of its own."""

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.layers = nnx.List(Converse2D(4, 3, rngs=nnx.Rngs(i)) for i in range(2))
        self.transform = transform

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = self.transform(lambda layer, x: jnp.sin(layer(x)))(layer, x)
        return x


class Stacked(nnx.Module):
    """Two layers of one form, stacked: one after the other, or side by side."""

    def __init__(self, transform: str) -> None:
        make = nnx.vmap(lambda key: Converse2D(4, 3, rngs=nnx.Rngs(key)))
        self.layers = make(jax.random.split(jax.random.key(0), 2))
        self.transform = transform

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.transform == "vmap":
            return nnx.vmap(lambda x, layer: layer(x), in_axes=(None, 0))(x, self.layers)
        step = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return step(x, self.layers)


@pytest.mark.parametrize("transform", ["remat", "jit", "scan", "vmap"])
def test_lifted_transformations_inside(transform: str) -> None:
    stacked = transform in ("scan", "vmap")
    model = Stacked(transform) if stacked else Stack(getattr(nnx, transform))
    x = image((9, 8, 4))
    prepared = prepare(model, x)
    assert nbytes(prepared) == 2 * 4 * 4 * 7 * 7 * 4
    chex.assert_trees_all_close(prepared(x), model(x), atol=1e-6)


def test_layers_that_are_made_in_the_call_are_right() -> None:
    class Hyper(nnx.Module):
        def __init__(self) -> None:
            self.kernels = nnx.Param(jax.random.uniform(jax.random.key(0), (3, 3, 3, 4)))

        def __call__(self, x: jax.Array) -> jax.Array:
            for kernel in self.kernels[...]:
                layer = Converse2D(4, 3, rngs=nnx.Rngs(0))
                layer.kernel[...] = kernel
                x = layer(x)
            return x

    model, x = Hyper(), image((8, 8, 4))
    chex.assert_trees_all_close(prepare(model, x)(x), model(x), atol=1e-6)


@pytest.mark.parametrize("changed", [False, True])
def test_one_layer_that_is_called_twice(changed: bool) -> None:
    class Twice(nnx.Module):
        def __init__(self) -> None:
            self.layer = Converse2D(4, 3, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            kernel = self.layer.kernel[...]
            x = self.layer(x)
            if changed:
                self.layer.kernel[...] = kernel[::-1] / 2
            x = self.layer(x)
            self.layer.kernel[...] = kernel
            return x

    model, x = Twice(), image((8, 8, 4))
    prepared = prepare(model, x)
    chex.assert_trees_all_close(prepared(x), model(x), atol=1e-6)
    assert (nbytes(prepared) == 0) == changed


def test_one_operator_with_two_kernels() -> None:
    class Two(Operator):
        def __call__(self, x: jax.Array) -> jax.Array:
            kernels = jnp.ones((3, 3, 4)) / 9, jnp.ones((5, 5, 4)) / 25
            return sum(self.operate(x, kernel, jnp.float32(0.1)) for kernel in kernels)

    model, x = Two(), image((8, 8, 4))
    chex.assert_trees_all_close(prepare(model, x)(x), model(x), atol=1e-6)


def on_eight_devices(kind: AxisType = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("rows",), axis_types=(kind,))


@pytest.mark.parametrize(
    ("prepared", "kind"),
    [
        (False, AxisType.Explicit),
        (True, AxisType.Auto),
        pytest.param(False, AxisType.Auto, marks=pytest.mark.slow),
        pytest.param(True, AxisType.Explicit, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "name", ["dncnn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("srresnet", "usrnet"))]
)
def test_one_image_on_eight_devices(name: str, prepared: bool, kind: AxisType) -> None:
    build, _, args = NETWORKS[name]
    model = build()
    x = image((32, 24, 1 if name == "dncnn" else 3))
    expected = nnx.jit(model)(x, *args)
    if prepared:
        model, args = prepare(model, x, *args), ()
    mesh = on_eight_devices(kind)
    graphdef, state = nnx.split(shard_spatially(model, mesh, "rows"))
    jitted = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, *args))
    with contextlib.nullcontext() if kind == AxisType.Auto else jax.set_mesh(mesh):
        shared = jitted.lower(state, x).compile()
    tolerance = 1e-5 * float(jnp.max(jnp.abs(expected)))
    chex.assert_trees_all_close(shared(state, x), expected, atol=tolerance)
    # No device holds a whole map of the width inside the blocks, 16 channels.
    text = shared.as_text()
    assert "all-to-all" in text
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", text)
    sizes = [int(np.prod([int(n) for n in shape.split(",")])) for shape in gathered]
    assert max(sizes, default=0) < 32 * 24 * 16


@pytest.mark.slow
def test_what_was_traced_before_does_not_matter() -> None:
    """JAX caches traces: what changes a program must be part of the module."""
    model, x = ConverseBlock(8, 3, rngs=nnx.Rngs(0)), image((16, 8, 8))

    @nnx.jit
    def run(model: nnx.Module, x: jax.Array) -> jax.Array:
        return model(x)

    sharded = shard_spatially(model, on_eight_devices(), "rows")
    results = [run(m, x) for m in (model, sharded, model, sharded)]
    assert [len(r.sharding.device_set) for r in results] == [1, 8, 1, 8]
    chex.assert_trees_all_close(results[0], results[1], atol=1e-5)
