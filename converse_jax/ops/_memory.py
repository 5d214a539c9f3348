"""Hints to compilers: when intermediate results are computed, and where they are written.

Results do not depend on them. Without them, programs are several times slower or larger on CPUs.
Exported programs do without layout constraints and custom partitioning, which `jax.export` refuses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from converse_jax.ops._partition import explicit_axes, needs_devices, no_mesh

# Measured: with chunks of 8 MB the temporaries of one, three to four times as much, stay below what
# glibc keeps of freed memory (32 MB). Anything larger is mapped and touched anew in every call.
_CHUNK_BYTES = 8 * 1024 * 1024
_FEWEST_CHANNELS = 16


def depends_on(x: Float[Array, "*shape"], other: Float[Array, "*other"]) -> Float[Array, "*shape"]:
    """x with an artificial data dependency on `other`.

    XLA can then neither schedule it earlier than `other` nor merge it with an equal value (CSE).
    Otherwise it computes the transfer functions of all layers first, as they depend on weights
    alone, and keeps them alive: most of a network's memory. `optimization_barrier` is dropped
    before instructions are ordered. What is added is 0 whatever `other` holds, NaN included, and no
    compiler has found that out so far (for `0 * (other > 0)`, the GPU compiler has).
    """
    if 0 in other.shape:
        return x

    def plus_zero(x: Array, other: Array) -> Array:
        first = other.ravel()[0]
        return x + ((first > 0) & (first < 0)).astype(x.dtype)

    mesh, spec = jax.typeof(other).sharding.mesh, jax.typeof(x).sharding.spec
    if explicit := explicit_axes(mesh):  # no type says how a single element is sharded
        out = NamedSharding(mesh, spec)
        plus_zero = jax.sharding.auto_axes(plus_zero, axes=explicit, out_sharding=out)
    return plus_zero(x, other)


def row_major(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """On CPU, have x written to memory in row-major order, so that nothing is fused across it.

    XLA's CPU backend fuses whatever it can, and recomputes for each user what it reckons cheap. It
    transposes well where it only transposes, and several times slower where it computes, pads or
    slices in the same loop. `optimization_barrier` is dropped before it fuses. The same holds for
    the cotangent. For use within a `Function` with labels; others take `sharded_row_major`.
    """
    return row_major_p.bind(x, devices=None)


def sharded_row_major(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`row_major` for any place: each device writes its own part of a sharded array."""
    return row_major_p.bind(x, devices=needs_devices())


row_major_p = Primitive("row_major")
row_major_p.def_impl(lambda x, devices: x)
row_major_p.def_abstract_eval(lambda x, devices: x)
ad.deflinear2(row_major_p, lambda y, x, devices: [row_major_p.bind(y, devices=devices)])
batching.defvectorized(row_major_p)
mlir.register_lowering(row_major_p, lambda ctx, x, devices: [x])


def _lower_on_cpu(ctx: Any, x: Any, *, devices: Any) -> Any:
    (aval,) = ctx.avals_in
    if ctx.module_context.lowering_parameters.for_export:  # which refuses layout constraints
        return [x]
    fn = _partitioned_row_major(aval.ndim) if devices else _row_major
    return mlir.lower_fun(fn, multiple_results=False)(ctx, x)


mlir.register_lowering(row_major_p, _lower_on_cpu, platform="cpu")


def _row_major(x: Array) -> Array:
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


@functools.cache
def _partitioned_row_major(ndim: int) -> Any:
    # The compiler only knows the layout of a whole array, and would gather it on each device.
    call = custom_partitioning(_row_major)

    def local(x: Array) -> Array:
        with no_mesh():
            return _row_major(x)

    def partition(mesh: Any, args: Any, result: Any) -> Any:
        return mesh, local, args[0].sharding, (args[0].sharding,)

    axes = " ".join(f"a{i}" for i in range(ndim))
    call.def_partition(partition=partition, sharding_rule=f"{axes} -> {axes}")
    return call


def in_channel_chunks(fn: Callable[..., Array], x: Array, *others: Array, scale: int = 1) -> Array:
    """`fn(x, *others)`, on CPUs in channel chunks, so that temporaries fit what malloc reuses.

    fn treats each channel by itself. It makes maps `scale` times as large from maps
    `[m, n, H, W, C]`; all other arrays have their channels last, too.
    """
    if not all(isinstance(size, int) for size in x.shape):  # symbolic, to be exported
        return fn(x, *others)
    chunk = _channels_of_a_chunk(x, *others)
    if chunk == x.shape[-1]:
        return fn(x, *others)

    def in_chunks(x: Array, *others: Array) -> Array:
        def add(i: Array, y: Array) -> Array:
            chunks = (
                jax.lax.dynamic_slice_in_dim(a, i * chunk, chunk, a.ndim - 1) for a in (x, *others)
            )
            return jax.lax.dynamic_update_slice_in_dim(y, fn(*chunks), i * chunk, y.ndim - 1)

        m, n, height, width, channels = x.shape
        # Computed from x: XLA would else make room for the results of all layers at once.
        zero = depends_on(jnp.zeros((), x.dtype), x)
        empty = jnp.broadcast_to(zero, (m, n, scale * height, scale * width, channels))
        return jax.lax.fori_loop(0, channels // chunk, add, empty)

    return jax.lax.platform_dependent(x, *others, cpu=in_chunks, default=fn)


def _channels_of_a_chunk(x: Array, *others: Array) -> int:
    channels = x.shape[-1]
    # A loop is handed copies of its arrays: it must be the maps that are large, not the others.
    if 2 * sum(a.size for a in others) > x.size:
        return channels
    pixels = x.size // channels
    while 4 * pixels * channels > _CHUNK_BYTES and channels % 2 == 0:
        if channels // 2 < _FEWEST_CHANNELS:
            break
        channels //= 2
    return channels
