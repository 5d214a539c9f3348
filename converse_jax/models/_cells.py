"""Cells of s x s pixels as one pixel with more channels, and back.

Axes are split and merged one at a time: of a batch of one image JAX would not see, in a single
reshape, that its sharded axis stays as it is.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array


def to_cells(x: Array, s: int) -> Array:
    """`[..., s H, s W, C] -> [..., H, W, s s C]`: space to depth."""
    if s == 1:
        return x
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height // s, s, width, channels)
    x = x.reshape(*batch, height // s, s, width // s, s, channels)
    x = jnp.moveaxis(x, -4, -3)
    return x.reshape(*batch, height // s, width // s, s * s * channels)


def from_cells(x: Array, s: int) -> Array:
    """`[..., H, W, s s C] -> [..., s H, s W, C]`: depth to space, the inverse of `to_cells`."""
    if s == 1:
        return x
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height, width, s, s, channels // (s * s))
    x = jnp.moveaxis(x, -3, -4)
    x = x.reshape(*batch, height * s, width, s, channels // (s * s))
    return x.reshape(*batch, height * s, width * s, channels // (s * s))
