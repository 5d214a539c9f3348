"""Hints to compilers: when intermediate results are computed, and where they are written.

Every function here returns what it is given. Programs are right without them, and on CPUs several
times slower or larger. All are left out by ``plain=True``: layout constraints and custom
partitioning are what `jax.export` refuses, and what forward-mode differentiation does not pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from converse_jax.ops._adjoint import adjoint_pair

# Measured: with chunks of 8 MB the temporaries of one, three to four times as much, stay below what
# glibc keeps of freed memory (32 MB). Anything larger is mapped and touched anew in every call.
_CHUNK_BYTES = 8 * 1024 * 1024
_FEWEST_CHANNELS = 16


def depends_on(
    x: Float[Array, "*shape"], other: Float[Array, "*other"], *, plain: bool = False
) -> Float[Array, "*shape"]:
    """x with an artificial data dependency on `other`.

    XLA can then neither schedule it earlier than `other` nor merge it with an equal value (CSE).
    Otherwise it computes the transfer functions of all layers first, as they depend on weights
    alone, and keeps them alive: most of a network's memory. `optimization_barrier` is dropped
    before instructions are ordered. What is added is 0 whatever `other` holds, NaN included, and no
    compiler has found that out so far (of `0 * (other > 0)` that for GPUs has).
    """
    if plain or other.size == 0:
        return x
    first = other.ravel()[0]
    return x + ((first > 0) & (first < 0)).astype(x.dtype)


def _on_cpu(fn: Callable[[Array], Array], x: Array) -> Array:
    return jax.lax.platform_dependent(x, cpu=fn, default=lambda x: x)


def _row_major(x: Array) -> Array:
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def _local_row_major(x: Float[Array, "*shape"], *, plain: bool = False) -> Float[Array, "*shape"]:
    """On CPU, have x written to memory in row-major order, so that nothing is fused across.

    XLA's CPU backend fuses whatever it can, and computes again for each user what is cheap by its
    own reckoning; it transposes well where it only transposes, and several times slower where it
    computes, pads or slices in the same loop. `optimization_barrier` is dropped before it fuses.
    The same holds for the cotangent. It is for use within functions that are `partitioned`; others
    take `sharded_row_major`.
    """
    return x if plain else _on_cpu(_row_major, x)


def _sharded_row_major(x: Float[Array, "*shape"], *, plain: bool = False) -> Float[Array, "*shape"]:
    """`row_major` for any place: each device writes its own part of a sharded array."""
    return x if plain else _on_cpu(_batched_row_major, x)


# Each is its own adjoint.
row_major, _ = adjoint_pair(_local_row_major, _local_row_major)
sharded_row_major, _ = adjoint_pair(_sharded_row_major, _sharded_row_major)


@custom_vmap
def _batched_row_major(x: Array) -> Array:
    return _partitioned_row_major(x.ndim)(x)


@_batched_row_major.def_vmap
def _batch_row_major(size: int, mapped: list[bool], x: Array) -> tuple[Array, bool]:
    del size, mapped
    return _batched_row_major(x), True


@functools.cache
def _partitioned_row_major(ndim: int) -> Any:
    # The compiler knows the layout of a whole array only, and would gather it on each device.
    call = custom_partitioning(_row_major)

    def partition(mesh: Any, args: Any, result: Any) -> Any:
        return mesh, _row_major, args[0].sharding, (args[0].sharding,)

    axes = " ".join(f"a{i}" for i in range(ndim))
    call.def_partition(partition=partition, sharding_rule=f"{axes} -> {axes}")
    return call


def _chunk(x: Array, *others: Array) -> int:
    """How many channels of maps ``[..., C]`` to work on at a time: all, but for large maps.

    A loop is handed copies of its arrays: it must be the maps that are large, not the others.
    """
    channels = x.shape[-1]
    if 2 * sum(a.size for a in others) > x.size:
        return channels
    while (
        x.size // x.shape[-1] * channels * 4 > _CHUNK_BYTES
        and channels % 2 == 0
        and channels // 2 >= _FEWEST_CHANNELS
    ):
        channels //= 2
    return channels


def in_channel_chunks(
    fn: Callable[..., Array], x: Array, *others: Array, scale: int = 1, plain: bool = False
) -> Array:
    """``fn(x, *others)``, on CPUs in channel chunks, so that temporaries fit what malloc reuses.

    Args:
      fn: a function that treats each channel by itself, from maps to maps `scale` times as large.
      x: maps ``[m, n, H, W, C]``.
      *others: further arrays; all have the channels last.
      scale: of the result.
      plain: leave it out.
    """
    if plain or (channels := _chunk(x, *others)) == x.shape[-1]:
        return fn(x, *others)

    def in_chunks(x: Array, *others: Array) -> Array:
        def add(i: Array, y: Array) -> Array:
            chunks = (
                jax.lax.dynamic_slice_in_dim(a, i * channels, channels, a.ndim - 1)
                for a in (x, *others)
            )
            return jax.lax.dynamic_update_slice_in_dim(y, fn(*chunks), i * channels, y.ndim - 1)

        m, n, height, width, _ = x.shape
        shape = (m, n, scale * height, scale * width, x.shape[-1])
        # Computed from x: the compiler would else make room for the results of all layers at once.
        zero = depends_on(jnp.zeros((), x.dtype), x)
        return jax.lax.fori_loop(0, x.shape[-1] // channels, add, jnp.broadcast_to(zero, shape))

    return jax.lax.platform_dependent(x, *others, cpu=in_chunks, default=fn)
