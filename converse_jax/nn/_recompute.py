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


def recomputed(
    fn: Callable[[Any, Array], Array], modules: Any, x: Float[Array, "*shape"]
) -> Float[Array, "*result"]:
    """`fn(modules, x)`, whose backward pass keeps x alone and computes the rest again.

    What is computed again must be cheap against the memory it would take: on a CPU the first touch
    of a page of memory costs more than the normalization or 1x1 convolution that is written to it.
    `jax.checkpoint` would not do: XLA's CPU backend drops its barrier, finds the values of the
    forward pass again, and keeps them. The modules may be any pytree; fn must not change them.
    """
    graphdef, state = nnx.split(modules)
    leaves, tree = jax.tree.flatten(state)
    real = tuple(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves)
    parameters = tuple(leaf for leaf, is_real in zip(leaves, real, strict=True) if is_real)
    others = tuple(leaf for leaf, is_real in zip(leaves, real, strict=True) if not is_real)
    return _recomputed(fn, graphdef, tree, real)(x, parameters, others)


@functools.lru_cache(maxsize=256)  # equal layers share one function, which is traced once
def _recomputed(fn: Any, graphdef: Any, tree: Any, real: tuple[bool, ...]) -> Function:
    def of_state(x: Array, parameters: tuple[Array, ...], others: tuple[Array, ...]) -> Array:
        sources = {True: iter(parameters), False: iter(others)}
        state = jax.tree.unflatten(tree, [next(sources[is_real]) for is_real in real])
        return fn(nnx.merge(graphdef, state), x)

    def backward(
        x: Array, parameters: tuple[Array, ...], others: tuple[Array, ...], cotangent: Array
    ) -> tuple[Any, ...]:
        def again(x: Array, parameters: tuple[Array, ...]) -> Array:
            return of_state(x, parameters, others)

        return *jax.vjp(again, depends_on(x, cotangent), parameters)[1](cotangent), ()

    return Function(of_state, vjp=backward, leading=0)
