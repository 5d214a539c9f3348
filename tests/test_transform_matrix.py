"""Every transformation of JAX x every kind of operator x every kind of mesh, as a table.

`python -m tests.test_transform_matrix` prints the table of docs/transforms.md.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from converse_jax import apply_transfer, converse2d, converse2d_transfer
from converse_jax.models import ConverseDnCNN
from converse_jax.nn import Converse2D

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 7, 6, 4)).astype(np.float32)
KERNEL = (RNG.normal(size=(3, 3, 4)) / 9).astype(np.float32)


def operator(kernel: Any, x: Any) -> jax.Array:
    return converse2d(x, kernel, 0.1, padding=1)


def estimated(kernel: Any, x: Any) -> jax.Array:
    return converse2d(x, kernel, 0.1, padding=1, x0=x[..., ::-1])


def prepared(kernel: Any, x: Any) -> jax.Array:
    return apply_transfer(x, converse2d_transfer(kernel, 0.1, (9, 8)), padding=1)


def of_module(module: nnx.Module) -> tuple[Any, Callable[..., jax.Array]]:
    graphdef, state = nnx.split(module)
    return state, lambda state, x: nnx.merge(graphdef, state)(x)


THINGS: dict[str, tuple[Any, Callable[..., jax.Array]]] = {
    "operator": (KERNEL, operator),
    "x0 an array": (KERNEL, estimated),
    "prepared operator": (KERNEL, prepared),
    "layer": of_module(Converse2D(4, 3, rngs=nnx.Rngs(0))),
    "network": of_module(
        ConverseDnCNN(4, num_features=4, num_blocks=1, kernel_size=3, rngs=nnx.Rngs(0))
    ),
}


def loss(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return lambda *args: jnp.sum(jnp.sin(f(*args)))


def of_scale(f: Any, p: Any, x: Any) -> Callable[[Any], Any]:
    return lambda s: f(p, s * x)


ONE = np.float32(1)
TRANSFORMS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "jit": lambda f, p, x: f(p, x),
    "grad, input": lambda f, p, x: jax.grad(loss(f), 1)(p, x),
    "grad, parameters": lambda f, p, x: jax.grad(loss(f))(p, x),
    "jvp": lambda f, p, x: jax.jvp(f, (p, x), (p, x)),
    "linearize": lambda f, p, x: jax.linearize(lambda p: f(p, x), p)[1](p),
    "linear_transpose": lambda f, p, x: jax.linear_transpose(lambda x: f(p, x), x)(x),
    "jacfwd": lambda f, p, x: jax.jacfwd(of_scale(f, p, x))(ONE),
    "hessian": lambda f, p, x: jax.hessian(loss(of_scale(f, p, x)))(ONE),
    "grad of grad": lambda f, p, x: jax.grad(lambda p: jnp.sum(jax.grad(loss(f), 1)(p, x) ** 2))(p),
    "vmap": lambda f, p, x: jax.vmap(lambda x: f(p, x))(x),
    "scan": lambda f, p, x: jax.lax.scan(lambda c, _: (f(p, c), None), x, None, length=2)[0],
    "checkpoint": lambda f, p, x: jax.grad(jax.checkpoint(loss(f)))(p, x),
}
DEVICES = {"one device": None, "8, Explicit axes": AxisType.Explicit, "8, Auto axes": AxisType.Auto}
REASONS = {("network", "linear_transpose"): "not linear"}


def run(thing: str, transform: str, devices: str) -> str:
    """Assert that a transformation is right, and return the entry of the table."""
    if (thing, transform) in REASONS:
        return REASONS[thing, transform]
    (params, f), kind = THINGS[thing], DEVICES[devices]
    transformed = jax.jit(lambda p, x: TRANSFORMS[transform](f, p, x))
    expected = transformed(params, X)
    if kind is None:
        for a in jax.tree.leaves(expected):
            assert np.isfinite(a).all()
        return "yes"
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh) if kind == AxisType.Explicit else contextlib.nullcontext():
        arrays = (
            jax.device_put(params, NamedSharding(mesh, P())),
            jax.device_put(X, NamedSharding(mesh, P("data"))),
        )
        compiled = transformed.lower(*arrays).compile()
        result = compiled(*arrays)
    assert "all-gather" not in compiled.as_text()
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * (np.abs(b).max() + 1))
    return "yes"


def table() -> str:
    lines = ["| | " + " | ".join(THINGS) + " |", "|---" * (len(THINGS) + 1) + "|"]
    for transform in TRANSFORMS:
        entries = [{run(thing, transform, devices) for devices in DEVICES} for thing in THINGS]
        lines.append(f"| {transform} | " + " | ".join(", ".join(sorted(e)) for e in entries) + " |")
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("thing", THINGS)
def test_it_works(thing: str, transform: str, devices: str) -> None:
    assert run(thing, transform, devices) == REASONS.get((thing, transform), "yes")


def test_the_document_names_them_all() -> None:
    document = (Path(__file__).parents[1] / "docs" / "transforms.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in document.splitlines()]
    rows = [row for row in rows if len(row) == len(THINGS) + 1]
    assert rows[0][1:] == list(THINGS)
    told = {
        (thing, row[0]): entry
        for row in rows[2:]
        for thing, entry in zip(THINGS, row[1:], strict=True)
    }
    assert told == {
        (thing, transform): REASONS.get((thing, transform), "yes")
        for thing in THINGS
        for transform in TRANSFORMS
    }


if __name__ == "__main__":
    print(table())
