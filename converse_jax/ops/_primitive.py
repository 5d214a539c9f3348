"""The JAX primitive that calls a `Function`, and its rules: one for each transformation of JAX.

The rules only say which of what a `Function` states they use; the mathematics is there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.experimental.jet import jet_rules
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from converse_jax.ops._partition import is_sharded, needs_devices, no_mesh, unsharded

if TYPE_CHECKING:
    from converse_jax.ops._function import Function

_config: Any = jax.config

call_p = Primitive("converse_jax")
call_p.multiple_results = True


def bind(*leaves: Any, function: Function, tree: Any) -> list[Any]:
    """Call a function with the leaves of its arguments."""
    return call_p.bind(*leaves, function=function, tree=tree, devices=needs_devices())


@functools.partial(jax.jit, static_argnames=("function", "tree"))
def _eager(*leaves: Any, function: Function, tree: Any) -> Any:
    return bind(*leaves, function=function, tree=tree)


def _run(*leaves: Any, function: Function, tree: Any, devices: Any) -> Any:
    if _config.jax_disable_jit:
        return function.flat(tree)(*leaves)
    return _eager(*leaves, function=function, tree=tree)


def _type(*types: Any, function: Function, tree: Any, devices: Any) -> Any:
    return function.result(tree, types)[0]


def _jvp(
    primals: Any, tangents: Any, *, function: Function, tree: Any, devices: Any
) -> tuple[Any, Any]:
    args = jax.tree.unflatten(tree, primals)
    moving = [type(t) is not ad.Zero for t in tangents]
    # Of an argument with a tangent, arrays without one have zeros.
    directions = jax.tree.unflatten(tree, list(map(ad.instantiate_zeros, tangents)))
    active = tuple(i for i, _ in enumerate(args) if any(_leaves_of(tree, moving, i)))
    if set(active) <= set(function.linear):
        result = function(*args)
        terms = [
            function(*(directions[j] if i == j else arg for j, arg in enumerate(args)))
            for i in active
        ]
        tangent = functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), terms)
    else:
        forward, along = function.linearized(active, args)
        result, kept = forward(*args)
        tangent = along(kept, tuple(directions[i] for i in active))
    return jax.tree.leaves(result), jax.tree.leaves(tangent)


def _leaves_of(tree: Any, leaves: Any, position: int) -> Any:
    counts = [child.num_leaves for child in tree.children()]
    start = sum(counts[:position])
    return leaves[start : start + counts[position]]


def _transpose(
    cotangents: Any, *leaves: Any, function: Function, tree: Any, devices: Any
) -> list[Any]:
    unknown = [ad.is_undefined_primal(leaf) for leaf in leaves]
    (position,) = (i for i in function.linear if any(_leaves_of(tree, unknown, i)))
    types = [leaf.aval if ad.is_undefined_primal(leaf) else jax.typeof(leaf) for leaf in leaves]
    filled = [None if missing else leaf for leaf, missing in zip(leaves, unknown, strict=True)]
    if not function.has_transpose:
        filled = [
            ad.instantiate_zeros(ad.Zero(kind)) if missing else leaf
            for leaf, kind, missing in zip(leaves, types, unknown, strict=True)
        ]
    structure = function.result(tree, types)[1]
    cotangent = jax.tree.unflatten(structure, list(map(ad.instantiate_zeros, cotangents)))
    result = function.transpose(position, jax.tree.unflatten(tree, filled), cotangent)
    found = iter(jax.tree.leaves(result))
    inside = jax.tree.unflatten(tree, list(range(len(leaves))))[position]
    of_leaf = dict(zip(jax.tree.leaves(inside), found, strict=True))
    return [of_leaf[i] if missing else None for i, missing in enumerate(unknown)]


def _batch(args: Any, axes: Any, *, function: Function, tree: Any, devices: Any) -> tuple[Any, Any]:
    mapped = [axis is not None for axis in axes]
    (size,) = {arg.shape[axis] for arg, axis in zip(args, axes, strict=True) if axis is not None}
    args = [
        a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(args, axes, strict=True)
    ]
    if function.labels is not None:
        results = _fold(function, tree, size, mapped, args)
    elif function.has_vjp:
        in_axes = jax.tree.unflatten(tree, [0 if m else None for m in mapped])
        key = ("mapped", tree, tuple(mapped))
        results = bind(
            *args, function=function.once(key, lambda: function.mapped(in_axes)), tree=tree
        )
    else:
        results = jax.vmap(function.flat(tree), tuple(0 if m else None for m in mapped))(*args)
    return results, (0,) * len(results)


def _fold(
    function: Function, tree: Any, size: Any, mapped: list[bool], args: list[Any]
) -> list[Any]:
    """Fold a mapped axis into the examples, or into the groups where it must be."""
    inputs, outputs = map(jax.tree.leaves, function.labels or ())
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
    results = bind(*folded, function=function, tree=tree)
    # Sizes come from the arguments: an empty axis could not be split.
    rows = args[0].shape[1 + axis] if mapped[0] else args[0].shape[axis]
    return [_split(result, size, rows, axis) for result in results]


def _merge(x: jax.Array, axis: int) -> jax.Array:
    """Fold the leading axis into axis `axis` of what remains."""
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def _split(x: jax.Array, size: int, rows: int, axis: int) -> jax.Array:
    """Undo `_merge`."""
    x = x.reshape(*x.shape[:axis], size, rows, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _jet(primals: Any, series: Any, *, function: Function, tree: Any, devices: Any) -> Any:
    """Coefficients of the Taylor series along a curve, by forward mode within forward mode."""

    def along(t: Any) -> Any:
        point = [
            primal + sum(term * t**k for k, term in enumerate(terms, 1))
            for primal, terms in zip(primals, series, strict=True)
        ]
        return bind(*point, function=function, tree=tree)

    coefficients, derivative = [], along
    for order, _ in enumerate(series[0], 1):
        derivative = functools.partial(_slope, derivative)
        coefficients.append([d / math.factorial(order) for d in derivative(0.0)])
    return along(0.0), [list(terms) for terms in zip(*coefficients, strict=True)]


def _slope(f: Callable[..., Any], t: Any) -> Any:
    return jax.jvp(f, (t,), (1.0,))[1]


def _lower(ctx: Any, *operands: Any, function: Function, tree: Any, devices: Any) -> Any:
    exported = ctx.module_context.lowering_parameters.for_export
    # Inside a `shard_map` over some axes of a mesh, custom partitioning sees no others.
    some = getattr(ctx.module_context.axis_context, "manual_axes", None)
    fn = function.flat(tree) if exported or some else function.partitioned(tree)
    if function.labels is not None and is_sharded(ctx.avals_in):
        with no_mesh():
            ctx = ctx.replace(avals_in=unsharded(ctx.avals_in), avals_out=unsharded(ctx.avals_out))
            return mlir.lower_fun(fn, multiple_results=True)(ctx, *operands)
    return mlir.lower_fun(fn, multiple_results=True)(ctx, *operands)


def _lower_plain(ctx: Any, *operands: Any, function: Function, tree: Any, devices: Any) -> Any:
    return mlir.lower_fun(function.flat(tree), multiple_results=True)(ctx, *operands)


call_p.def_impl(_run)
call_p.def_abstract_eval(_type)
ad.primitive_jvps[call_p] = _jvp
ad.primitive_transposes[call_p] = _transpose
batching.primitive_batchers[call_p] = _batch
jet_rules[call_p] = _jet  # type: ignore[assignment]
mlir.register_lowering(call_p, _lower)
mlir.register_lowering(call_p, _lower_plain, platform="tpu")
