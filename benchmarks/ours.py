"""Our side of the rows: operator, networks and training step. Nothing here needs PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import nnx

from benchmarks.measure import Program
from benchmarks.suite import Inference, Operator, Training
from converse_jax import converse2d, models
from train.config import Config, Optimizer
from train.networks import ConverseDnCNNConfig
from train.state import FunctionalNetwork, make_optimizer
from train.tasks import Denoise

EPS = 1e-5
LEARNING_RATE = 1e-4


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


def network(row: Inference) -> Any:
    """The network of a row with shapes in place of its weights."""
    make = getattr(models, row.network)
    return nnx.eval_shape(lambda: make(**row.options, rngs=nnx.Rngs(0)))


def pure(module: nnx.Module) -> tuple[Callable[..., jax.Array], nnx.State]:
    """A network as a pure function of its state and its inputs, and that state.

    As arguments parameters are not folded into the program by XLA, nor are they by PyTorch.
    """
    graph, state = nnx.split(module)
    return lambda state, *inputs: nnx.merge(graph, state)(*inputs), state


def training(row: Training) -> tuple[Config, FunctionalNetwork, optax.GradientTransformation]:
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
