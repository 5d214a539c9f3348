"""Rematerialization: parts of a network that keep only their input for the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.ops._function import Function
from converse_jax.ops._memory import depends_on
from converse_jax.ops._partition import match_varying_axes


def recomputed(
    fn: Callable[[Any, Array], Array], modules: Any, x: Float[Array, "*shape"]
) -> Float[Array, "*result"]:
    """`fn(modules, x)`, whose backward pass keeps x alone and computes the rest again.

    What is computed again must be cheap against the memory it would take: on a CPU the first touch
    of a page of memory costs more than the normalization or 1x1 convolution that is written to it.
    `jax.checkpoint` would not do: XLA's CPU backend drops its barrier, finds the values of the
    forward pass again, and keeps them. The modules may be any pytree. What fn may
    change (random streams, batch statistics: anything but parameters) makes this a plain call.
    """
    graphdef, parameters, *rest = nnx.split(modules, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(parameters)
    if jax.tree.leaves(rest) or not all(
        jnp.issubdtype(jnp.result_type(a), jnp.inexact) for a in leaves
    ):
        return fn(modules, x)
    try:
        function = _recomputed(fn, graphdef, tree, jax.tree.structure(rest))
    except TypeError:  # an attribute that cannot be hashed
        return fn(modules, x)
    x, *leaves = match_varying_axes(x, *map(jnp.asarray, leaves))
    return function(x, tuple(leaves))


@functools.lru_cache(maxsize=256)  # equal layers share one function, which is traced once
def _recomputed(fn: Any, graphdef: Any, tree: Any, empty: Any) -> Function:
    def of_parameters(x: Array, leaves: tuple[Array, ...]) -> Array:
        parameters, rest = jax.tree.unflatten(tree, leaves), jax.tree.unflatten(empty, ())
        return fn(nnx.merge(graphdef, parameters, *rest), x)

    def backward(x: Array, leaves: tuple[Array, ...], cotangent: Array) -> tuple[Any, ...]:
        return jax.vjp(of_parameters, depends_on(x, cotangent), leaves)[1](cotangent)

    return Function(of_parameters, vjp=backward)
