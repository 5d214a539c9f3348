"""When and where intermediate results are computed and written to memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float


def after(x: Float[Array, "*shape"], other: Float[Array, "*other"]) -> Float[Array, "*shape"]:
    """x, computed from `other` as well: the compiler can neither do it before, nor find it done.

    XLA would otherwise compute first what has few arguments, for all layers of a network, and keep
    it: most of its memory. `optimization_barrier` is dropped before instructions are ordered. What
    is added is 0 whatever `other` holds, NaN included, and no compiler has found that out so far
    (of `0 * (other > 0)` that for GPUs has).
    """
    if other.size == 0:
        return x
    first = other.ravel()[0]
    return x + ((first > 0) & (first < 0)).astype(x.dtype)


def _on_cpu(fn: Callable[[Array], Array], x: Array) -> Array:
    return jax.lax.platform_dependent(x, cpu=fn, default=lambda x: x)


def _row_major(x: Array) -> Array:
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


@jax.custom_vjp
def materialised(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """On CPU, have x written to memory in row-major order, so that nothing is fused across.

    XLA's CPU backend fuses whatever it can, and computes again for each user what is cheap by its
    own reckoning; it transposes well where it only transposes, and several times slower where it
    computes, pads or slices in the same loop. `optimization_barrier` is dropped before it fuses.
    The same holds for the cotangent. It is for use within functions that are `partitioned`; others
    take `sharded_materialised`.
    """
    return _on_cpu(_row_major, x)


@jax.custom_vjp
def sharded_materialised(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`materialised` for any place: each device writes its own part of a sharded array."""
    return _on_cpu(_batched_row_major, x)


for _identity in (materialised, sharded_materialised):
    # Its own adjoint.
    _identity.defvjp(
        lambda x, identity=_identity: (identity(x), None),
        lambda _, cotangent, identity=_identity: (identity(cotangent),),
    )


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
