"""Make a per-map function local: under `jit`, each device computes the maps it holds.

XLA cannot split an FFT over a batch: under plain `jit` it gathers the whole batch on each device
first. A function wrapped by `partitioned` names the axes along which it is independent, and the
compiler then shards it along them without any communication in the forward pass. In the backward
pass the gradient of an argument that is shared between devices (a kernel) is summed where it is
smallest: as the argument itself, not as its spectrum.

XLA's multi-device TPU compiler does not support custom partitioning
(github.com/jax-ml/jax/issues/38196), and is given the plain function. It splits matrix products
over a batch by itself, but gathers it for an FFT.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

Fn = Callable[..., tuple[jax.Array, ...]]

# The axes of our maps along which nothing is shared: groups (maps with a kernel of their own),
# examples (maps of one group, which share their kernel), and channels.
INDEPENDENT = ("m", "n", "c")


@dataclass(frozen=True)
class Backward:
    """A backward pass that keeps something else in place of the first argument.

    Attributes:
      labels: of the arrays that are kept, as for `partitioned`.
      forward: from the arguments to the results, followed by the arrays that are kept.
      pullback: from the kept arrays, the other arguments and the cotangents of the results, to the
        cotangents of all arguments.
    """

    labels: tuple[str, ...]
    forward: Fn
    pullback: Fn


def partitioned(
    fn: Fn,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    backward: Backward | None = None,
    *,
    plain: bool = False,
) -> Fn:
    """Wrap a pure function of arrays so that it is sharded, batched and differentiated locally.

    Args:
      fn: a pure function from arrays to a tuple of arrays.
      inputs: one label for each axis of each argument, e.g. ``("m n h w c", "m a b c")``. Every
        array starts with "m"; "n" follows it where the array has one row an example. Axes m, n
        and c may be sharded, all others are replicated.
      outputs: the same for the results. A result without an axis of the arguments is *summed*
        over it by `fn` itself; here it is summed over the devices that share this axis.
      backward: how to differentiate it; None means from its arguments, which are kept.
      plain: return fn itself, which XLA may gather for.

    Returns:
      A function with the same arguments and results, usable under jit, vmap, reverse-mode
      differentiation of any order, scan, remat and shard_map. Forward-mode differentiation raises
      a TypeError, as for every `jax.custom_vjp`.
    """
    if plain:
        return fn

    @jax.custom_vjp
    def call(*args: jax.Array) -> tuple[jax.Array, ...]:
        return _batched(_sharded(fn, inputs, outputs), inputs, outputs)(*args)

    def from_arguments(*args: jax.Array) -> tuple[jax.Array, ...]:
        primals, cotangents = args[: len(inputs)], args[len(inputs) :]
        return jax.vjp(fn, *primals)[1](cotangents)

    # Both passes are partitioned functions as well, made when first needed, so that derivatives of
    # every order exist.
    @functools.cache
    def passes() -> tuple[Fn, Fn]:
        if backward is None:
            return call, partitioned(from_arguments, inputs + outputs, inputs)
        kept = backward.labels + inputs[1:]
        return (
            partitioned(backward.forward, inputs, outputs + backward.labels),
            partitioned(backward.pullback, kept + outputs, inputs),
        )

    def forward(*args: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        results = passes()[0](*args)
        kept = args if backward is None else (*results[len(outputs) :], *args[1:])
        return results[: len(outputs)], kept

    def pull_back(
        kept: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, ...]:
        return passes()[1](*kept, *cotangents)

    call.defvjp(forward, pull_back)
    return call


def _sharded(fn: Fn, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Fn:
    call = custom_partitioning(fn)

    def partition(mesh: Any, args: Any, results: Any) -> tuple[Any, Fn, Any, Any]:
        del results
        axes = _factor_axes(inputs, [arg.sharding for arg in args])

        def sharding(labels: str) -> NamedSharding:
            return NamedSharding(mesh, PartitionSpec(*(axes.get(f) for f in labels.split())))

        def local(*arrays: jax.Array) -> tuple[jax.Array, ...]:
            return tuple(
                _sum_shared(result, labels, axes)
                for result, labels in zip(fn(*arrays), outputs, strict=True)
            )

        return mesh, local, tuple(map(sharding, outputs)), tuple(map(sharding, inputs))

    # In order of first appearance, as the compiler insists.
    factors = dict.fromkeys(f for array in inputs + outputs for f in array.split())
    call.def_partition(
        partition=partition,
        sharding_rule=f"{', '.join(inputs)} -> {', '.join(outputs)}",
        need_replication_factors=tuple(f for f in factors if f not in INDEPENDENT),
    )

    def sharded(*args: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jax.lax.platform_dependent(*args, tpu=fn, default=call))

    return sharded


def _factor_axes(inputs: tuple[str, ...], shardings: list[Any]) -> dict[str, Any]:
    """Mesh axes of each independent axis: as the first (largest) argument that has it is laid."""
    axes: dict[str, Any] = {}
    for labels, sharding in zip(inputs, shardings, strict=True):
        spec = sharding.spec if isinstance(sharding, NamedSharding) else ()
        for factor, mesh_axes in zip(labels.split(), spec, strict=False):
            if factor in INDEPENDENT and mesh_axes is not None:
                used = {a for value in axes.values() for a in _as_tuple(value)}
                if factor not in axes and not used & set(_as_tuple(mesh_axes)):
                    axes[factor] = mesh_axes
    return axes


def _as_tuple(mesh_axes: Any) -> tuple[str, ...]:
    return mesh_axes if isinstance(mesh_axes, tuple) else (mesh_axes,)


def _sum_shared(result: jax.Array, labels: str, axes: dict[str, Any]) -> jax.Array:
    present = labels.split()
    shared = [
        a for factor, value in axes.items() if factor not in present for a in _as_tuple(value)
    ]
    return jax.lax.psum(result, tuple(shared)) if shared else result


def _batched(fn: Fn, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Fn:
    """vmap by folding the mapped axis into the examples, or into the groups where it must."""
    call = custom_vmap(fn)

    @call.def_vmap
    def rule(size: int, mapped: list[bool], *args: jax.Array) -> tuple[Any, Any]:
        shared = [not _has_examples(labels) for labels in inputs]
        # Examples share their kernel: fold into them if the kernels are not mapped, and if no
        # result is summed over the examples (else the sum would run over the mapped axis too).
        as_examples = all(map(_has_examples, outputs)) and not any(
            is_mapped and is_shared for is_mapped, is_shared in zip(mapped, shared, strict=True)
        )
        folded = []
        for arg, is_mapped, is_shared in zip(args, mapped, shared, strict=True):
            if as_examples and is_shared:
                folded.append(arg)
                continue
            if not is_mapped:
                arg = jnp.broadcast_to(arg, (size, *arg.shape))
            axis = 1 if as_examples else 0
            folded.append(_merge(arg, axis))
        results = _batched(fn, inputs, outputs)(*folded)
        unfolded = tuple(_split(result, size, 1 if as_examples else 0) for result in results)
        return unfolded, tuple(True for _ in results)

    return call


def _has_examples(labels: str) -> bool:
    return "n" in labels.split()


def _merge(x: jax.Array, axis: int) -> jax.Array:
    """Fold the leading axis into axis `axis` of what remains."""
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def _split(x: jax.Array, size: int, axis: int) -> jax.Array:
    """Undo `_merge`."""
    x = x.reshape(*x.shape[:axis], size, x.shape[axis] // size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)
