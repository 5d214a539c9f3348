r"""Kernels no larger than the stride: the exact solution without any transform.

Each phase of such a kernel holds a single tap k_ij (see `_otf`), at a shift t_ij of 0 or 1 pixel on
each axis, so that ``K_ij = k_ij exp(-i w t_ij)`` and ``sum |K_ij|^2 = sum k_ij^2`` is a number:

    X*_ij[n] = b y[n] + k_ij r[n + t_ij] / (sum k^2 + lambda) ,
    r[n]     = y[n] - b sum_kl k_kl y[n - t_kl] .

With kernels of at most 2 taps all shifts are 0, and a pixel of the result is a pixel of the map
times a number: padding has no effect at all.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops._pad import pad_map

Tap = tuple[int, int] | None
"""Along one axis, the index of a phase's tap in the kernel and its shift; None if it has none."""


def tap_of(phase: int, taps: int, scale: int) -> Tap:
    """The tap that a phase of one axis holds, of a kernel of at most `scale` taps."""
    for tap in range(taps):
        offset = tap - taps // 2
        if -offset % scale == phase:
            return tap, (offset + phase) // scale
    return None


def solve(
    x: Float[Array, "m n H W C"],
    kernel: Float[Array, "m kh kw C"],
    lam: Float[Array, "m C"],
    scale: int,
    padding: int,
    mode: str,
    x0: str,
) -> Float[Array, "m n sH sW C"]:
    """`converse2d` for a kernel of at most s x s taps."""
    m, n, height, width, channels = x.shape
    rows, columns = (
        [tap_of(phase, taps, scale) for phase in range(scale)] for taps in kernel.shape[1:3]
    )
    shape = (m, n, scale * height, scale * width, channels)
    gain = 1 / (jnp.sum(kernel**2, (1, 2)) + lam)
    base = 1.0 if x0 == "nearest" else 0.0
    if max(kernel.shape[1:3]) <= 2:
        # One number for each phase and channel: base + k (1 - base sum k) / (sum k^2 + lambda).
        factor = gain * (1 - base * jnp.sum(kernel, (1, 2)))
        phases = jnp.stack(
            [
                jnp.stack([base + _tap(kernel, row, column) * factor for column in columns], 1)
                for row in rows
            ],
            1,
        )
        grid = x[:, :, :, None, :, None] * phases[:, None, None, :, None]
        return grid.reshape(shape)

    pad = functools.partial(pad_map, padding=padding, mode=mode)
    y = jax.vmap(jax.vmap(jax.vmap(pad, -1, -1)))(x)

    def roll(z: Array, row: Tap, column: Tap, sign: int) -> Array:
        shift = (sign * row[1], sign * column[1]) if row and column else (0, 0)
        return jnp.roll(z, shift, (2, 3)) if any(shift) else z

    def spread(factor: Float[Array, "m C"]) -> Float[Array, "m 1 1 1 C"]:
        return factor[:, None, None, None]

    rest = y
    for row, column in itertools.product(rows, columns):
        rest = rest - base * spread(_tap(kernel, row, column)) * roll(y, row, column, 1)

    def phase(row: Tap, column: Tap) -> Array:
        factor = spread(_tap(kernel, row, column) * gain)
        z = base * y + factor * roll(rest, row, column, -1)
        return z[:, :, padding : padding + height, padding : padding + width]

    # [m, n, H, i, W, j, C]: each axis followed by that of its phases.
    grid = jnp.stack([jnp.stack([phase(r, c) for c in columns], 4) for r in rows], 3)
    return grid.reshape(shape)


def _tap(kernel: Float[Array, "m kh kw C"], row: Tap, column: Tap) -> Float[Array, "m C"]:
    if row is None or column is None:
        return jnp.zeros_like(kernel[:, 0, 0])
    return kernel[:, row[0], column[0]]
