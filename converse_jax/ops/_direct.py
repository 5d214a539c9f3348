r"""The method "direct": kernels no larger than the stride, solved without any transform.

Each phase of such a kernel holds a single tap k_ij (see `_otf`), at a shift t_ij of 0 or 1 pixel on
each axis, so that `K_ij = k_ij exp(-i w t_ij)` and `sum |K_ij|^2 = sum k_ij^2` is a number:

    X*_ij[n] = X0_ij[n] + k_ij r[n + t_ij] / (sum k^2 + lambda) ,
    r[n]     = y[n] - sum_kl k_kl X0_kl[n - t_kl] .

With kernels of at most 2 taps all shifts are 0 and padding has no effect at all: a pixel of the
result is a pixel of the map times a number, unless X0 is an array.
"""

from __future__ import annotations

import functools
import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops._options import Options
from converse_jax.ops._pad import crop_map, pad_map

TRANSFER = TRANSFER_OF_ARRAY = ("m a b c", "m c")
"""Labels (see `Function`) of what `transfer` returns."""


def transfer(
    kernel: Float[Array, "m kh kw C"],
    lam: Float[Array, "m C"],
    shape: tuple[int, int],
    options: Options,
) -> tuple[Float[Array, "m kh kw C"], Float[Array, "m C"]]:
    """The taps, and `1 / (sum k^2 + lambda)`: all that the solution depends on, at any size."""
    return kernel, 1 / (jnp.sum(kernel**2, (1, 2)) + lam)


def apply(
    x: Float[Array, "m n H W C"],
    filters: tuple[Float[Array, "m kh kw C"], Float[Array, "m C"]],
    options: Options,
    x0: Float[Array, "m n sH sW C"] | None = None,
) -> Float[Array, "m n sH sW C"]:
    """Filter groups of maps, given `transfer`."""
    kernel, gain = filters
    m, n, height, width, channels = x.shape
    _, kh, kw, _ = kernel.shape
    scale, p = options.scale, options.padding
    base = 1.0 if options.x0 == "nearest" else 0.0
    phases = range(scale)

    def tap(i: int, j: int) -> Float[Array, "m C"]:
        """The tap of a phase, 0 if it has none."""
        a, b = (kh // 2 - i) % scale, (kw // 2 - j) % scale
        return kernel[:, a, b] if a < kh and b < kw else jnp.zeros_like(kernel[:, 0, 0])

    if x0 is None and max(kh, kw) <= 2:
        # One number for each phase and channel: base + k (1 - base sum k) / (sum k^2 + lambda).
        factor = gain * (1 - base * jnp.sum(kernel, (1, 2)))
        rows = [jnp.stack([base + tap(i, j) * factor for j in phases], 1) for i in phases]
        grid = x[:, :, :, None, :, None] * jnp.stack(rows, 1)[:, None, None, :, None]
        return grid.reshape(m, n, scale * height, scale * width, channels)

    pad = functools.partial(pad_map, padding=p, mode=options.padding_mode, axis=2)
    y = pad(x)
    cells = None if x0 is None else x0.reshape(m, n, height, scale, width, scale, channels)

    def roll(z: Array, i: int, j: int, sign: int) -> Array:
        return jnp.roll(z, (sign * (i > kh // 2), sign * (j > kw // 2)), (2, 3))

    def spread(factor: Float[Array, "m C"]) -> Float[Array, "m 1 1 1 C"]:
        return factor[:, None, None, None]

    def estimate(i: int, j: int) -> Float[Array, "m n H W C"]:
        return base * y if cells is None else pad(cells[:, :, :, i, :, j])

    rest = y
    for i, j in itertools.product(phases, phases):
        rest = rest - spread(tap(i, j)) * roll(estimate(i, j), i, j, 1)

    def phase(i: int, j: int) -> Float[Array, "m n H W C"]:
        z = estimate(i, j) + spread(tap(i, j) * gain) * roll(rest, i, j, -1)
        return crop_map(z, p, axis=2)

    # [m, n, H, i, W, j, C]: each axis followed by that of its phases.
    rows = [jnp.stack([phase(i, j) for j in phases], 4) for i in phases]
    return jnp.stack(rows, 3).reshape(m, n, scale * height, scale * width, channels)
