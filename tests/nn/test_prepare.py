"""Prepared networks, and networks whose maps are shared out to several devices."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from converse_jax.models import ConverseDnCNN, ConverseSRResNet, ConverseUSRNet
from converse_jax.nn import Converse2D, prepare, shard_maps

NETWORKS = {
    "dncnn": (lambda: ConverseDnCNN(1, 8, 2, rngs=nnx.Rngs(0)), (12, 14, 1), ()),
    "srresnet": (lambda: ConverseSRResNet(4, 3, 8, 2, rngs=nnx.Rngs(0)), (8, 8, 3), ()),
    "usrnet": (
        lambda: ConverseUSRNet(3, 8, 2, num_iterations=3, rngs=nnx.Rngs(0)),
        (16, 12, 3),
        (np.full((7, 7), 1 / 49, np.float32),),
    ),
}


def picture(shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(jax.random.key(1), shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_prepared_is_the_same_network(name: str) -> None:
    build, shape, args = NETWORKS[name]
    model = build()
    prepared = prepare(model, jax.ShapeDtypeStruct(shape, jnp.float32), *args)
    for seed in (1, 2):
        x = jax.random.uniform(jax.random.key(seed), shape)
        chex.assert_trees_all_close(prepared(x), model(x, *args), atol=1e-5, rtol=1e-5)


def test_an_operator_that_is_used_several_times_is_prepared_once() -> None:
    build, shape, args = NETWORKS["usrnet"]
    blocks, width, iterations = 2, 8, 3
    prepared = prepare(build(), picture(shape), *args)
    inside = (shape[0] + 4) // 2 + 1, (shape[1] + 4) // 2 + 1
    of_data = (shape[0] // 2 + 1), (shape[1] // 2 + 1)
    numbers = 4 * (blocks * 2 * width * np.prod(inside) + iterations * width * np.prod(of_data))
    assert prepared.nbytes == 4 * numbers


def test_a_kernel_within_the_stride_has_nothing_to_prepare() -> None:
    layer = Converse2D(4, 2, scale=2, rngs=nnx.Rngs(0))
    prepared = prepare(layer, picture((6, 6, 4)))
    assert prepared.nbytes == 0
    chex.assert_trees_all_close(prepared(picture((6, 6, 4))), layer(picture((6, 6, 4))), rtol=1e-5)


def test_prepared_for_one_shape_until_freed() -> None:
    build, shape, _ = NETWORKS["dncnn"]
    prepared = prepare(build(), picture(shape))
    with pytest.raises(ValueError, match=r"x has shape \(13, 14, 1\).*prepared for \(12, 14, 1\)"):
        prepared(picture((13, 14, 1)))
    assert prepared.nbytes > 0
    prepared.free()
    assert prepared.nbytes == 0
    with pytest.raises(RuntimeError, match="freed"):
        prepared(picture(shape))


@pytest.mark.parametrize("name", NETWORKS)
def test_one_picture_on_eight_devices(name: str) -> None:
    build, _, args = NETWORKS[name]
    model = build()
    x = picture((32, 24, 1 if name == "dncnn" else 3))
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    graphdef, state = nnx.split(model)

    def run(state: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(x, *args)

    alone = jax.jit(run).lower(state, x).compile()
    with shard_maps(mesh, "rows"):
        shared = jax.jit(lambda *a: run(*a)).lower(state, x).compile()
    expected = alone(state, x)
    tolerance = 1e-5 * float(jnp.max(jnp.abs(expected)))
    chex.assert_trees_all_close(shared(state, x), expected, atol=tolerance)
    # No device holds a whole map of the width inside the blocks, 16 channels.
    text = shared.as_text()
    assert "all-to-all" in text
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", text)
    sizes = [int(np.prod([int(n) for n in shape.split(",")])) for shape in gathered]
    assert max(sizes, default=0) < 32 * 24 * 16
