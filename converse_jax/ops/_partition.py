"""Make a per-map function local: under `jit`, each device computes the maps it holds.

XLA cannot split an FFT over a batch: under plain `jit` it first gathers the whole batch on each
device. A function wrapped by `partitioned` names the axes along which it is independent, and the
compiler then shards it along them without any communication in the forward pass. In the backward
pass, the gradient of an argument that devices share (a kernel) is summed where it is smallest: as
the argument itself, not as its spectrum.

XLA's multi-device TPU compiler does not support custom partitioning
(github.com/jax-ml/jax/issues/38196), and is given the plain function. It splits matrix products
over a batch by itself, but gathers the batch for an FFT.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
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


def partitioned(
    fn: Fn, inputs: tuple[str, ...], outputs: tuple[str, ...], *, plain: bool = False
) -> Fn:
    """Wrap a pure function of arrays so that it is sharded, batched and differentiated locally.

    Args:
      fn: a pure function from arrays to a tuple of arrays.
      inputs: one label for each axis of each argument, e.g. ``("m n h w c", "m a b c")``. Every
        array starts with "m"; "n" follows where it has one row per example. Axes m, n and c may
        be sharded, all others are replicated.
      outputs: the same for the results. A result without an axis of the arguments is *summed*
        over it by `fn` itself; here it is summed over the devices that share this axis.
      plain: return fn itself, for which XLA may gather.

    Returns:
      A function with the same arguments and results, usable under jit, vmap, reverse-mode
      differentiation of any order, scan, remat and shard_map. Its backward pass keeps the
      arguments. Forward-mode differentiation raises a TypeError, as for every `jax.custom_vjp`.
    """
    if plain:
        return fn
    call = jax.custom_vjp(_batched(_sharded(fn, inputs, outputs), inputs, outputs))

    def pull_back(*args: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(fn, *args[: len(inputs)])[1](args[len(inputs) :])

    # Partitioned as well, and made when first needed, so that derivatives of every order exist.
    @functools.cache
    def backward() -> Fn:
        return partitioned(pull_back, inputs + outputs, inputs)

    call.defvjp(
        lambda *args: (call(*args), args),
        lambda args, cotangents: backward()(*args, *cotangents),
    )
    return call


def _sharded(fn: Fn, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Fn:
    call = custom_partitioning(fn)

    def partition(mesh: Any, args: Any, results: Any) -> tuple[Any, Fn, Any, Any]:
        axes = _mesh_axes(inputs, [arg.sharding for arg in args])

        def sharding(labels: str) -> NamedSharding:
            return NamedSharding(mesh, PartitionSpec(*(axes.get(a) for a in labels.split())))

        def local(*arrays: jax.Array) -> tuple[jax.Array, ...]:
            return tuple(
                _sum_over_devices(result, labels, axes)
                for result, labels in zip(fn(*arrays), outputs, strict=True)
            )

        return mesh, local, tuple(map(sharding, outputs)), tuple(map(sharding, inputs))

    # In order of first appearance, as the compiler insists.
    factors = dict.fromkeys(" ".join(inputs + outputs).split())
    call.def_partition(
        partition=partition,
        sharding_rule=f"{', '.join(inputs)} -> {', '.join(outputs)}",
        need_replication_factors=tuple(f for f in factors if f not in INDEPENDENT),
    )

    def sharded(*args: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jax.lax.platform_dependent(*args, tpu=fn, default=call))

    return sharded


def _mesh_axes(inputs: tuple[str, ...], shardings: list[Any]) -> dict[str, tuple[str, ...]]:
    """Mesh axes of each independent axis: those of the first (largest) argument that has any."""
    axes: dict[str, tuple[str, ...]] = {}
    for labels, sharding in zip(inputs, shardings, strict=True):
        spec = sharding.spec if isinstance(sharding, NamedSharding) else ()
        for label, names in zip(labels.split(), spec, strict=False):
            names = (names,) if isinstance(names, str) else tuple(names or ())
            free = names and label in INDEPENDENT and label not in axes
            if free and not any(name in used for used in axes.values() for name in names):
                axes[label] = names
    return axes


def _sum_over_devices(
    result: jax.Array, labels: str, axes: dict[str, tuple[str, ...]]
) -> jax.Array:
    """Sum a result over the mesh axes of those independent axes that it does not have."""
    summed = [name for label in axes if label not in labels.split() for name in axes[label]]
    return jax.lax.psum(result, tuple(summed)) if summed else result


def _batched(fn: Fn, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Fn:
    """vmap by folding the mapped axis into the examples, or into the groups where it must."""
    call = custom_vmap(fn)

    @call.def_vmap
    def rule(size: int, mapped: list[bool], *args: jax.Array) -> tuple[Any, Any]:
        per_example = ["n" in labels.split() for labels in inputs]
        # Examples share their kernel: fold into them if the kernels are not mapped, and if no
        # result is summed over the examples (else the sum would run over the mapped axis too).
        into_examples = all("n" in labels.split() for labels in outputs) and all(
            has_examples or not is_mapped
            for has_examples, is_mapped in zip(per_example, mapped, strict=True)
        )
        axis = 1 if into_examples else 0
        folded = [
            arg
            if into_examples and not has_examples
            else _merge(arg if is_mapped else jnp.broadcast_to(arg, (size, *arg.shape)), axis)
            for arg, has_examples, is_mapped in zip(args, per_example, mapped, strict=True)
        ]
        results = _batched(fn, inputs, outputs)(*folded)
        return tuple(_split(result, size, axis) for result in results), (True,) * len(results)

    return call


def _merge(x: jax.Array, axis: int) -> jax.Array:
    """Fold the leading axis into axis `axis` of what remains."""
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def _split(x: jax.Array, size: int, axis: int) -> jax.Array:
    """Undo `_merge`."""
    x = x.reshape(*x.shape[:axis], size, x.shape[axis] // size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)
