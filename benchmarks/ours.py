"""Our side of the rows (operator, networks, training step), and the bare limit of each row.

The limit is the time of the FFTs and 1x1 products alone. Nothing here needs PyTorch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.measure import Program, median_ms, race
from benchmarks.suite import Network, Operator, Row
from converse_jax import converse2d, models
from train.config import Config, Optimizer
from train.networks import ConverseDnCNNConfig
from train.state import FunctionalNetwork, make_optimizer
from train.tasks import Denoise

EPS = 1e-5
LEARNING_RATE = 1e-4
_FEATURES = 64

Piece = tuple[str, tuple[int, int, int]]
"""`rfft2` or `irfft2` of real maps `(maps, height, width)`, `product` `(pixels, in, out)`."""


def lam_of(logit: jax.Array) -> jax.Array:
    """The paper's lambda."""
    return jax.nn.sigmoid(logit - 9) + EPS


def operator(row: Operator, method: Any = "auto") -> Callable[..., tuple[jax.Array, ...]]:
    """A function of map, kernel and lambda logit; the gradient takes a cotangent as well."""

    def forward(x: jax.Array, kernel: jax.Array, logit: jax.Array) -> jax.Array:
        lam = lam_of(logit)
        return converse2d(x, kernel, lam, scale=row.scale, method=method, **row.border)

    def gradient(*args: jax.Array) -> tuple[jax.Array, ...]:
        *inputs, cotangent = args
        return jax.vjp(forward, *inputs)[1](cotangent)

    return gradient if row.what == "gradient" else lambda *args: (forward(*args),)


def network(row: Network) -> Any:
    """The network of a row with shapes in place of its weights."""
    make = getattr(models, row.network)
    return nnx.eval_shape(lambda: make(**row.options, rngs=nnx.Rngs(0)))


def pure(module: nnx.Module) -> tuple[Callable[..., jax.Array], nnx.State]:
    """A network as a pure function of its state and its inputs, and that state."""
    graph, state = nnx.split(module)
    # As arguments, parameters are not folded into the program; PyTorch does not fold them either.
    return lambda state, *inputs: nnx.merge(graph, state)(*inputs), state


def training(row: Network) -> tuple[Config, FunctionalNetwork, optax.GradientTransformation]:
    """What `python -m train` makes its step of: configuration, network and Adam."""
    model = ConverseDnCNNConfig(num_blocks=row.blocks)
    adam = Optimizer(learning_rate=LEARNING_RATE, schedule="constant")
    config = Config("row", model, Denoise(), optimizer=adam, batch_size=row.batch)
    return config, FunctionalNetwork(config), make_optimizer(adam, config.steps)


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Program, float]:
    """A program that calls a function on `args`, and the MB that XLA plans for it beyond them."""
    executable = jax.jit(function).lower(*args).compile()
    return lambda: jax.block_until_ready(executable(*args)), planned_mb(executable)


def planned_mb(executable: Any) -> float:
    """MB of temporaries and results; results written over donated arguments do not count."""
    plan = executable.memory_analysis()
    results = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return (plan.temp_size_in_bytes + results) / 1e6


def pieces(row: Row) -> Counter[Piece]:
    """What a row cannot do without.

    The operator: a transform of the map and an inverse one for each phase of the result; its
    gradient: a transform of the map and of each phase of the cotangent, and an inverse one.
    Networks: those of the blocks, of the layers that enlarge and of the data modules. Training
    takes each product three times, twice of these in the backward pass, each transform twice.
    """
    n = row.size
    if isinstance(row, Operator):
        phases = row.scale**2
        counts = (1 + phases, 1) if row.what == "gradient" else (1, phases)
        return _pair(row.batch * row.channels, row.padded, *counts)
    if row.what == "training step":
        forward = _block(n, n + 8, row.blocks, batch=row.batch)
        return Counter({p: m * (3 if p[0] == "product" else 2) for p, m in forward.items()})
    if row.network == "ConverseDnCNN":
        return _block(n, n + 8, row.blocks)
    if row.network == "ConverseUSRNet":
        blocks = _block(n, n + 4, row.blocks * row.iterations)
        return blocks + _pair(_FEATURES, n, row.iterations, row.iterations)
    found = _block(n, n + 8, row.blocks + 1)
    for side in (2 * n, 4 * n):
        found += _block(side, side + 8, 1) + _pair(_FEATURES, side // 2 + 4, 1, 4)
    return found


def _block(side: int, padded: int, count: int, *, batch: int = 1) -> Counter[Piece]:
    pixels, wide = batch * side * side, 2 * _FEATURES
    shapes = (pixels, _FEATURES, wide), (pixels, wide, _FEATURES)
    products = Counter({("product", shape): 2 * count for shape in shapes})
    return products + _pair(wide * batch, padded, count, count)


def _pair(maps: int, side: int, forward: int, inverse: int) -> Counter[Piece]:
    shape = (maps, side, side)
    return Counter({("rfft2", shape): forward, ("irfft2", shape): inverse})


def bare_ms(found: Counter[Piece], *, quick: bool = False) -> float:
    """Milliseconds that pieces take, each timed alone as a program of its own."""
    seconds = 0.2 if quick else 1.0
    total = 0.0
    for piece, count in found.items():
        program = _bare_program(piece)
        program()
        total += count * median_ms(race({"": program}, seconds=seconds, max_rounds=20)[""])
    return total


def _bare_program(piece: Piece) -> Program:
    kind, shape = piece
    if kind == "product":
        return compiled(jnp.matmul, jnp.ones(shape[:2]), jnp.ones(shape[1:]))[0]
    maps = jnp.ones(shape)
    if kind == "rfft2":
        return compiled(jnp.fft.rfft2, maps)[0]
    # A half spectrum alone does not tell whether the result's width is even or odd.
    return compiled(partial(jnp.fft.irfft2, s=shape[1:]), jnp.fft.rfft2(maps))[0]
