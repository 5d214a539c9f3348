"""One training step, a pure function: gradient, Adam, moving average; skipped if not finite."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from train.config import Config
from train.state import (
    Arrays,
    Batch,
    FunctionalNetwork,
    TrainState,
    batch_sharding,
    make_schedule,
    replicated_sharding,
)

Metrics = dict[str, jax.Array]

_CHARBONNIER_EPS = 1e-3


def loss_value(kind: str, restored: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over all values of |d| ("l1"), sqrt(d^2 + 1e-6) ("charbonnier") or d^2 ("l2")."""
    d = restored - target
    if kind == "l1":
        return jnp.mean(jnp.abs(d))
    if kind == "charbonnier":
        return jnp.mean(jnp.sqrt(d * d + _CHARBONNIER_EPS**2))
    return jnp.mean(d * d)


def loss_and_gradient(
    config: Config, network: FunctionalNetwork, params: Arrays, stats: Arrays, batch: Batch
) -> tuple[jax.Array, Arrays, Arrays]:
    """The mean loss of a batch, its gradient, and the running averages after the batch.

    It is computed in `accumulation` parts. They are equal, so the mean of their gradients is the
    gradient of the batch; only batch normalization sees each part by itself.
    """

    def loss(params: Arrays, stats: Arrays, part: Batch) -> tuple[jax.Array, Arrays]:
        restored, after = network.train(params, stats, part)
        return loss_value(config.loss, restored, part["target"]), after

    compute = jax.value_and_grad(loss, has_aux=True)
    parts = config.accumulation
    if parts == 1:
        (value, after), gradient = compute(params, stats, batch)
        return value, gradient, after

    def split(x: jax.Array) -> jax.Array:
        # Rows i, i + parts, ... are part i: every device splits its own rows and exchanges none.
        return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

    def add(carry: Any, part: Batch) -> tuple[Any, None]:
        total, stats = carry
        (value, after), gradient = compute(params, stats, part)
        return (jax.tree.map(jnp.add, total, (value, gradient)), after), None

    zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    (total, after), _ = jax.lax.scan(add, (zero, stats), jax.tree.map(split, batch))
    value, gradient = jax.tree.map(lambda x: x / parts, total)
    return value, gradient, after


def make_step(
    config: Config, network: FunctionalNetwork, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step as a pure function of state and batch.

    A loss or a gradient that is not finite changes nothing but the counters.
    """
    schedule = make_schedule(config.optimizer, config.steps)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        loss, gradient, stats = loss_and_gradient(config, network, state.params, state.stats, batch)
        norm = optax.tree.norm(gradient)
        # The float32 norm may overflow although no gradient does: such a step is skipped too.
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # At first the decay is smaller, so that the average soon forgets the initial weights.
        count = (state.step - state.skipped).astype(jnp.float32)
        decay = jnp.minimum(config.ema, (1 + count) / (10 + count))
        weights = params | stats
        ema = jax.tree.map(lambda mean, new: mean + (1 - decay) * (new - mean), state.ema, weights)

        def chosen(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        skipped = jnp.where(finite, 0, 1)
        after = TrainState(
            step=state.step + 1,
            params=chosen(params, state.params),
            stats=chosen(stats, state.stats),
            ema=chosen(ema, state.ema),
            opt_state=chosen(opt_state, state.opt_state),
            skipped=state.skipped + skipped,
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
        )
        metrics = {
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": schedule(state.step - state.skipped),
            "skipped": after.skipped,
            "skipped_in_a_row": after.skipped_in_a_row,
        }
        return after, metrics

    return step


def jit_step(step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]], mesh: Mesh) -> Any:
    """The step under `jax.jit`: the state replicated and donated, the batch split over devices."""
    whole, share = replicated_sharding(mesh), batch_sharding(mesh)

    @functools.wraps(step)
    def typed(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        # A batch of the host has no sharding in its type, and would be gathered.
        return step(state, jax.reshard(batch, share))

    return jax.jit(
        typed, in_shardings=(whole, share), out_shardings=(whole, whole), donate_argnums=0
    )
