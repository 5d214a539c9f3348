"""Where intermediate results are written to memory, on the CPU."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float


@jax.custom_vjp
def materialised(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """On CPU, have x written to memory in row-major order, so that nothing is fused across.

    XLA's CPU backend fuses whatever it can, and computes again for each user what is cheap by its
    own reckoning; it transposes well where it only transposes, and several times slower where it
    computes, pads or slices in the same loop. `optimization_barrier` is dropped before it fuses.
    The same holds for the cotangent. It is for use within functions that are `partitioned`; others
    take `sharded_materialised`.
    """
    return jax.lax.platform_dependent(x, cpu=_row_major, default=lambda x: x)


def _row_major(x: Array) -> Array:
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def _forward(x: Array) -> tuple[Array, None]:
    return materialised(x), None


def _backward(_: None, cotangent: Array) -> tuple[Array]:
    return (materialised(cotangent),)


materialised.defvjp(_forward, _backward)


@jax.custom_vjp
def sharded_materialised(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`materialised` for any place: each device writes its own part of a sharded array."""
    return jax.lax.platform_dependent(x, cpu=_batched_row_major, default=lambda x: x)


@custom_vmap
def _batched_row_major(x: Array) -> Array:
    return _sharded_row_major(x.ndim)(x)


@_batched_row_major.def_vmap
def _(size: int, mapped: list[bool], x: Array) -> tuple[Array, bool]:
    del size, mapped
    return _batched_row_major(x), True


@functools.cache
def _sharded_row_major(ndim: int) -> Any:
    # The compiler knows the layout of a whole array only, and would gather it on each device.
    call = custom_partitioning(_row_major)

    def partition(mesh: Any, args: Any, result: Any) -> Any:
        return mesh, _row_major, args[0].sharding, (args[0].sharding,)

    axes = " ".join(f"a{i}" for i in range(ndim))
    call.def_partition(partition=partition, sharding_rule=f"{axes} -> {axes}")
    return call


def _sharded_forward(x: Array) -> tuple[Array, None]:
    return sharded_materialised(x), None


def _sharded_backward(_: None, cotangent: Array) -> tuple[Array]:
    return (sharded_materialised(cotangent),)


sharded_materialised.defvjp(_sharded_forward, _sharded_backward)
