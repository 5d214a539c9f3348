r"""The method "direct": kernels no larger than the stride, solved without any transform.

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

from converse_jax.ops._checks import compute_dtype
from converse_jax.ops._options import Options
from converse_jax.ops._pad import pad_map
from converse_jax.ops._partition import Fn, partitioned

TRANSFER = ("m a b c", "m c")
"""Labels (see `partitioned`) of what `transfer` returns."""

Tap = tuple[int, int] | None
"""Along one axis, the index of a phase's tap in the kernel and its shift; None if it has none."""


def make_tap(phase: int, taps: int, scale: int) -> Tap:
    """The tap that a phase of one axis holds, of a kernel of at most `scale` taps."""
    for tap in range(taps):
        offset = tap - taps // 2
        if -offset % scale == phase:
            return tap, (offset + phase) // scale
    return None


def transfer(
    kernel: Float[Array, "m kh kw C"],
    lam: Float[Array, "m C"],
    shape: tuple[int, int],
    options: Options,
) -> tuple[Float[Array, "m kh kw C"], Float[Array, "m C"]]:
    """The taps, and ``1 / (sum k^2 + lambda)``: all that the solution depends on, at any size."""
    del shape, options
    return kernel, 1 / (jnp.sum(kernel**2, (1, 2)) + lam)


@functools.cache
def apply(options: Options) -> Fn:
    """The operator on groups of maps, from `transfer`."""

    def local(x: Array, kernel: Array, gain: Array) -> tuple[Array]:
        return (_filter_maps(x.astype(kernel.dtype), kernel, gain, options).astype(x.dtype),)

    return partitioned(local, ("m n h w c", *TRANSFER), ("m n i j c",), plain=options.plain)


@functools.cache
def solve(options: Options) -> Fn:
    """The operator on groups of maps, from kernel and lambda."""

    def local(x: Array, kernel: Array, lam: Array) -> tuple[Array]:
        dtype = compute_dtype(x)
        padded = options.padded(*x.shape[2:4])
        filters = transfer(kernel.astype(dtype), lam.astype(dtype), padded, options)
        return (_filter_maps(x.astype(dtype), *filters, options).astype(x.dtype),)

    labels = ("m n h w c", "m a b c", "m c")
    return partitioned(local, labels, ("m n i j c",), plain=options.plain)


def _filter_maps(
    x: Float[Array, "m n H W C"],
    kernel: Float[Array, "m kh kw C"],
    gain: Float[Array, "m C"],
    options: Options,
) -> Float[Array, "m n sH sW C"]:
    m, n, height, width, channels = x.shape
    scale, padding = options.scale, options.padding
    rows, columns = (
        [make_tap(phase, taps, scale) for phase in range(scale)] for taps in kernel.shape[1:3]
    )
    shape = (m, n, scale * height, scale * width, channels)
    base = 1.0 if options.x0 == "nearest" else 0.0
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

    pad = functools.partial(
        pad_map, padding=padding, mode=options.padding_mode, plain=options.plain
    )
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
