"""Leading axes: maps and kernels with any batch axes, brought to groups that share a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from converse_jax.ops._partition import match_varying_axes, over_explicit_axes


def over_groups(
    fn: Callable[..., Array],
    x: Array | tuple[Array, ...],
    shared: tuple[Array, ...],
    labels: tuple[str, ...],
    maps: str = "h w c",
) -> Array:
    """Apply a function of `[groups, examples, H, W, C]` to maps with any leading axes.

    Args:
        fn: from maps and arrays that the maps of a group share, `[groups, ...]`, to maps.
        x: maps `[..., H, W, C]`, or a tuple of such, of any sizes.
        shared: arrays whose leading axes broadcast against each other's and those of x.
        labels: of each array of `shared`, starting with "m" (see `Function`).
        maps: labels of the last axes of maps.
    """
    cores = tuple(s.removeprefix("m ") for s in labels)
    leaves, tree = jax.tree.flatten(x)

    def local(*arrays: Array) -> Array:
        x = jax.tree.unflatten(tree, arrays[: len(leaves)])
        shared = broadcast_leading(arrays[len(leaves) :], labels)
        return _group(fn, x, shared, labels, len(maps.split()))

    return over_explicit_axes(local, (*leaves, *shared), (*(maps for _ in leaves), *cores), maps)


def broadcast_leading(arrays: tuple[Array, ...], labels: tuple[str, ...]) -> tuple[Array, ...]:
    """Arrays with the same leading axes, where their labels have "m"."""
    cores = [len(s.split()) - 1 for s in labels]
    leading = jnp.broadcast_shapes(
        *(a.shape[: a.ndim - n] for a, n in zip(arrays, cores, strict=True))
    )
    return tuple(
        jnp.broadcast_to(a, (*leading, *a.shape[a.ndim - n :]))
        for a, n in zip(arrays, cores, strict=True)
    )


def _group(
    fn: Callable[..., Array],
    x: Array | tuple[Array, ...],
    shared: tuple[Array, ...],
    labels: tuple[str, ...],
    map_axes: int,
) -> Array:
    leading = shared[0].shape[: shared[0].ndim + 1 - len(labels[0].split())]
    cores = [a.shape[len(leading) :] for a in shared]
    maps, tree = jax.tree.flatten(x)
    batch = jnp.broadcast_shapes(*(a.shape[:-map_axes] for a in maps), leading)
    leading = (1,) * (len(batch) - len(leading)) + leading
    # Trailing batch axes along which nothing shared varies become the examples of a group.
    split = max((i + 1 for i, size in enumerate(leading) if size != 1), default=0)
    groups, examples = math.prod(batch[:split]), math.prod(batch[split:])
    grouped = []
    for array in maps:
        core = array.shape[-map_axes:]
        array = jnp.broadcast_to(array, (*batch, *core))
        grouped.append(array.reshape(groups, examples, *core))
    for array, core in zip(shared, cores, strict=True):
        array = jnp.broadcast_to(array.reshape(*leading[:split], *core), (*batch[:split], *core))
        grouped.append(array.reshape(groups, *core))
    arrays = match_varying_axes(*grouped)
    result = fn(jax.tree.unflatten(tree, arrays[: len(maps)]), *arrays[len(maps) :])
    return result.reshape(*batch, *result.shape[2:])


def per_channel(lam: Array, kernel: Array) -> Array:
    """Lambda `[..., C]`, from a scalar too."""
    return jnp.broadcast_to(lam, kernel.shape[-1:]) if lam.ndim == 0 else lam
