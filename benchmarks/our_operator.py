"""Our operator of a row, as everything here calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from benchmarks.suite import Operator
from converse_jax import converse2d

EPS = 1e-5


def our_operator(row: Operator, method: Any = "auto") -> Callable[..., tuple[Any, ...]]:
    """Of map, kernel and lambda logit; for gradients of a cotangent as well, which are returned."""

    def forward(x: jax.Array, kernel: jax.Array, logit: jax.Array) -> jax.Array:
        lam = our_lam(logit)
        return converse2d(x, kernel, lam, scale=row.scale, method=method, **border(row))

    def gradient(*args: jax.Array) -> Any:
        *inputs, cotangent = args
        return jax.vjp(forward, *inputs)[1](cotangent)

    return gradient if row.what == "gradient" else lambda *args: (forward(*args),)


def our_lam(logit: jax.Array) -> jax.Array:
    """The paper's lambda."""
    return jax.nn.sigmoid(logit - 9) + EPS


def border(row: Operator) -> dict[str, Any]:
    """How the map is padded."""
    return {"padding": row.padding, "padding_mode": row.padding_mode}


def shapes(row: Operator) -> list[tuple[int, ...]]:
    """Of the operator's arguments."""
    c, k, side = row.channels, row.kernel_size, row.scale * row.size
    inputs: list[tuple[int, ...]] = [(row.batch, row.size, row.size, c), (k, k, c), (c,)]
    return inputs + [(row.batch, side, side, c)] * (row.what == "gradient")
