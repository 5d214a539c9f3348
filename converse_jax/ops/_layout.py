"""Where intermediate results are written to memory, on the CPU."""

from __future__ import annotations

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float


@jax.custom_vjp
def materialised(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """On CPU, have x written to memory in row-major order, so that nothing is fused across.

    XLA's CPU backend fuses whatever it can, and computes again for each user what is cheap by its
    own reckoning; it transposes well where it only transposes, and several times slower where it
    computes, pads or slices in the same loop. `optimization_barrier` is dropped before it fuses.
    The same holds for the cotangent.
    """
    rows = Layout(major_to_minor=tuple(range(x.ndim)))
    return jax.lax.platform_dependent(
        x, cpu=lambda x: with_layout_constraint(x, rows), default=lambda x: x
    )


def _forward(x: Array) -> tuple[Array, None]:
    return materialised(x), None


def _backward(_: None, cotangent: Array) -> tuple[Array]:
    return (materialised(cotangent),)


materialised.defvjp(_forward, _backward)
