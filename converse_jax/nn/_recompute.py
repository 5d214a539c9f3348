"""Rematerialization: parts of a network that keep only their input for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.ops._memory import depends_on


def recomputed(
    fn: Callable[[Any, Array], Array], modules: Any, x: Float[Array, "*shape"]
) -> Float[Array, "*result"]:
    """``fn(modules, x)``, whose backward pass keeps x alone and computes the rest again.

    What is computed again must be cheap against the memory it would take: on a CPU the first touch
    of a page of memory costs more than the normalization or 1x1 convolution that is written to it.
    `jax.checkpoint` would not do: XLA's CPU backend drops its barrier, finds the values of the
    forward pass again, and keeps them. The modules may be any pytree; fn must not change them.
    """
    graphdef, state = nnx.split(modules)

    def of_state(state: Any, x: Array) -> Array:
        return fn(nnx.merge(graphdef, state), x)

    def backward(kept: tuple[Any, Array], cotangent: Array) -> tuple[Any, Array]:
        state, x = kept
        return jax.vjp(of_state, state, depends_on(x, cotangent))[1](cotangent)

    call = jax.custom_vjp(of_state)
    call.defvjp(lambda state, x: (of_state(state, x), (state, x)), backward)
    return call(state, x)
