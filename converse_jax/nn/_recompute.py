"""Rematerialization: parts of a network that keep only their input for the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.ops._memory import depends_on


def recomputed(
    fn: Callable[[Any, Array], Array], modules: Any, x: Float[Array, "*shape"]
) -> Float[Array, "*result"]:
    """``fn(modules, x)``, of which the backward pass keeps x alone and computes the rest again.

    What is computed again must be cheap against the memory it would take: on a CPU the first touch
    of a page of memory costs more than the normalization or 1x1 convolution that is written to it.
    `jax.checkpoint` would not do: XLA's CPU backend drops its barrier and finds the values of the
    forward pass again, and keeps them.

    Args:
      fn: a pure function of the modules and of x.
      modules: Flax modules, in any pytree, whose state fn reads and does not change.
      x: its input.
    """
    graphdef, state = nnx.split(modules)

    def of_state(state: Any, x: Array) -> Array:
        return fn(nnx.merge(graphdef, state), x)

    return _recomputed(of_state, state, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recomputed(fn: Callable[[Any, Array], Array], state: Any, x: Array) -> Array:
    return fn(state, x)


def _fwd(fn: Callable[[Any, Array], Array], state: Any, x: Array) -> tuple[Array, Any]:
    return fn(state, x), (state, x)


def _bwd(fn: Callable[[Any, Array], Array], kept: Any, cotangent: Array) -> tuple[Any, Array]:
    state, x = kept
    return jax.vjp(fn, state, depends_on(x, cotangent))[1](cotangent)


_recomputed.defvjp(_fwd, _bwd)
