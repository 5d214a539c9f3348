"""The training state: named arrays, made on the devices with their sharding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from converse_jax.messages import one_line
from train.config import Config, Optimizer
from train.errors import TrainError

Arrays = dict[str, jax.Array]
Batch = dict[str, jax.Array]

BATCH_AXIS = "data"
"""The mesh axis along which a batch is split."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that is saved.

    Attributes:
        step: steps done, including skipped ones; with the seed it determines the next batch.
        params: what is learned, by name, float32.
        stats: running averages of batch normalization, by name; empty for most networks.
        ema: moving average of `params` and `stats`: weights for use.
        opt_state: Adam's state; it counts only steps that were not skipped.
        skipped: steps skipped so far.
        skipped_in_a_row: steps skipped since the last one that was not.
    """

    step: jax.Array
    params: Arrays
    stats: Arrays
    ema: Arrays
    opt_state: Any
    skipped: jax.Array
    skipped_in_a_row: jax.Array


class FunctionalNetwork:
    """The configured network as a pure function of its named weights.

    Weights are parameters and, of networks with batch normalization, its running averages.
    """

    def __init__(self, config: Config) -> None:
        """Build its structure without weights; raises a TrainError if that is impossible."""
        self._config = config
        graph, state = nnx.split(nnx.eval_shape(self._built))
        self._graph = graph
        flat = nnx.to_flat_state(state)
        self._paths = {".".join(map(str, path)): path for path, _ in flat}
        self.shapes = {".".join(map(str, path)): variable.shape for path, variable in flat}
        self._kinds = {".".join(map(str, path)): type(variable) for path, variable in flat}
        kinds = (nnx.Param, nnx.BatchStat)
        others = [name for name, kind in self._kinds.items() if not issubclass(kind, kinds)]
        if others:
            # TrainState has no place for them.
            raise TrainError(
                f"model: {config.model.architecture} holds variables that are neither nnx.Param "
                f"nor nnx.BatchStat ({', '.join(others)}); random streams are not supported"
            )

    def check_output(self, example: Mapping[str, np.ndarray]) -> None:
        """Raise a TrainError if the output for an example has another shape than its target."""
        batch = {
            k: jax.ShapeDtypeStruct((1, *x.shape), jax.dtypes.canonicalize_dtype(x.dtype))
            for k, x in example.items()
        }
        weights = {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in self.shapes.items()}
        made, wanted = jax.eval_shape(self, weights, batch).shape, batch["target"].shape
        if made != wanted:
            raise TrainError(
                f"model: {self._config.model.architecture} makes {list(made)} from an input "
                f"{list(batch['input'].shape)}, but the targets of "
                f"{type(self._config.task).__name__} are {list(wanted)}; make them agree"
            )

    def _built(self) -> nnx.Module:
        try:
            return self._build()
        except TrainError:
            raise
        except Exception as error:  # from a class in a user's file
            c = self._config
            reason = one_line(error)
            raise TrainError(
                f"model: {c.model.architecture} cannot be built from "
                f"{c.model.arguments(c.task.scale)} ({type(error).__name__}: {reason})"
            ) from error

    def _build(self) -> nnx.Module:
        c = self._config
        # Parameters are float32 whatever the type of the computation.
        return c.model.build(
            c.task.scale, dtype=jnp.dtype(c.dtype), remat=c.remat, rngs=nnx.Rngs(c.seed)
        )

    def init(self) -> Arrays:
        """Fresh weights, a function of the seed."""
        return self.arrays(self._build())

    def arrays(self, module: nnx.Module) -> Arrays:
        """The named weights of such a network: the inverse of `module`."""
        flat = nnx.to_flat_state(nnx.state(module))
        return {".".join(map(str, path)): variable[...] for path, variable in flat}

    def split(self, weights: Arrays) -> tuple[Arrays, Arrays]:
        """Parameters and running averages; `params | stats` puts them together again."""
        is_stat = {name: issubclass(self._kinds[name], nnx.BatchStat) for name in weights}
        params = {name: x for name, x in weights.items() if not is_stat[name]}
        return params, {name: x for name, x in weights.items() if is_stat[name]}

    def module(self, weights: Arrays) -> Any:
        """The network with these weights."""
        flat = [(self._paths[name], self._kinds[name](x)) for name, x in weights.items()]
        return nnx.merge(self._graph, nnx.from_flat_state(flat))

    def __call__(self, weights: Arrays, batch: Batch) -> jax.Array:
        """Restore a batch; float32, not clipped. Running averages are used, not updated."""
        return self._restored(self.module(weights), batch, training=False)

    def train(self, params: Arrays, stats: Arrays, batch: Batch) -> tuple[jax.Array, Arrays]:
        """Restore a batch, normalized by its own statistics; also the running averages after it."""
        module = self.module(params | stats)
        restored = self._restored(module, batch, training=True)
        return restored, self.split(self.arrays(module))[1]

    def _restored(self, module: Any, batch: Batch, *, training: bool) -> jax.Array:
        module.train() if training else module.eval()
        inputs = [batch[name] for name in self._config.model.inputs]
        restored: jax.Array = module(*inputs).astype(jnp.float32)
        return restored


def make_schedule(config: Optimizer, steps: int) -> optax.Schedule:
    """Learning rate as a function of the step, for a run of so many steps.

    "halving" is `max(rate / 2^floor(step / halve_every), min)`, "cosine" falls from the rate to the
    minimum over all steps; the warm-up multiplies either by `(step + 1) / warmup`.
    """
    low, high = config.min_learning_rate, config.learning_rate

    def schedule(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        if config.schedule == "halving":
            rate = jnp.maximum(high * 0.5 ** jnp.floor(step / config.halve_every), low)
        elif config.schedule == "cosine":
            turn = jnp.pi * jnp.clip(step / steps, 0, 1)
            rate = low + (high - low) * (1 + jnp.cos(turn)) / 2
        else:
            rate = jnp.full_like(step, high)
        return rate * jnp.clip((step + 1) / max(config.warmup, 1), 0, 1)

    return schedule


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """Adam or AdamW after clipping by the global norm."""
    # No clipping is an infinite limit: a run may be resumed with another, and the state must fit.
    clip = optax.clip_by_global_norm(float("inf") if config.clip is None else config.clip)
    rate = optax.scale_by_learning_rate(make_schedule(config, steps))

    def decay(x: jax.Array, weight: jax.Array) -> jax.Array:
        return x + config.weight_decay * weight if weight.ndim >= 2 else x

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if config.weight_decay:
            updates = jax.tree.map(decay, updates, params)
        scaled: tuple[Any, Any] = rate.update(updates, state, params)
        return scaled

    # Not optax.adamw, whose state differs: a run may be resumed with or without decay.
    adam = optax.scale_by_adam(*config.betas)
    return optax.chain(clip, optax.chain(adam, optax.GradientTransformation(rate.init, update)))


def make_mesh() -> Mesh:
    """All devices of all processes, along the axis of the batch."""
    return jax.make_mesh((jax.device_count(),), (BATCH_AXIS,))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The whole array on every device; for the weights, fewer than a million."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """A share of the examples on every device."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def init_state(network: FunctionalNetwork, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step, a function of the seed."""
    weights = network.init()
    params, stats = network.split(weights)
    zero = jnp.zeros((), jnp.int32)
    # A copy: one buffer cannot be donated twice.
    ema = jax.tree.map(jnp.copy, weights)
    return TrainState(zero, params, stats, ema, optimizer.init(params), zero, zero)


def abstract_state(
    network: FunctionalNetwork, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes and shardings of the state."""
    whole = replicated_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
        jax.eval_shape(lambda: init_state(network, optimizer)),
    )


def make_state(
    network: FunctionalNetwork, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """The state before the first step, made on all devices."""
    # A thousand small draws that run once: LLVM would take seconds to optimize them.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    make = jax.jit(
        lambda: init_state(network, optimizer),
        out_shardings=replicated_sharding(mesh),
        compiler_options=quick,
    )
    return make()


def start_from(state: TrainState, arrays: Mapping[str, np.ndarray], mesh: Mesh) -> TrainState:
    """A state before its first step, with these weights in place of the random ones."""

    def put(value: np.ndarray) -> jax.Array:
        # Every process has read the same file.
        return jax.make_array_from_callback(
            value.shape, replicated_sharding(mesh), lambda i: value[i]
        )

    def replaced(old: Arrays) -> Arrays:
        # A buffer of its own each time: one cannot be donated twice.
        return old | {name: put(arrays[name]) for name in old.keys() & arrays.keys()}

    return replace(
        state,
        params=replaced(state.params),
        stats=replaced(state.stats),
        ema=replaced(state.ema),
    )
