"""Maps worked on some channels at a time, where that saves memory and the time to touch it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from converse_jax.ops._layout import after

# Measured: with parts of 8 MB the temporaries of one, three to four times as much, stay below what
# glibc keeps of freed memory (32 MB). Anything larger is mapped and touched anew in every call.
_PART_BYTES = 8 * 1024 * 1024
_FEWEST_CHANNELS = 16


def channels_at_once(x: Array, *others: Array) -> int:
    """How many channels of maps ``[..., C]`` to work on at a time: all, but for large maps.

    A loop is handed copies of its arrays: it must be the maps that are large, not the others.
    """
    channels = x.shape[-1]
    if 2 * sum(a.size for a in others) > x.size:
        return channels
    while (
        x.size // x.shape[-1] * channels * 4 > _PART_BYTES
        and channels % 2 == 0
        and channels // 2 >= _FEWEST_CHANNELS
    ):
        channels //= 2
    return channels


def by_channels(fn: Callable[..., Array], x: Array, *others: Array, scale: int = 1) -> Array:
    """``fn(x, *others)``, computed some channels at a time on CPUs; all arrays have them last.

    Args:
      fn: a function that treats each channel by itself, from maps to maps `scale` times as large.
      x: maps ``[m, n, H, W, C]``.
      *others: further arrays.
      scale: of the result.
    """
    channels = channels_at_once(x, *others)
    if channels == x.shape[-1]:
        return fn(x, *others)

    def in_parts(x: Array, *others: Array) -> Array:
        def add(i: Array, y: Array) -> Array:
            parts = (
                jax.lax.dynamic_slice_in_dim(a, i * channels, channels, a.ndim - 1)
                for a in (x, *others)
            )
            return jax.lax.dynamic_update_slice_in_dim(y, fn(*parts), i * channels, y.ndim - 1)

        m, n, height, width, _ = x.shape
        shape = (m, n, scale * height, scale * width, x.shape[-1])
        # Computed from x: the compiler would else make room for the results of all layers at once.
        zero = after(jnp.zeros((), x.dtype), x)
        return jax.lax.fori_loop(0, x.shape[-1] // channels, add, jnp.broadcast_to(zero, shape))

    return jax.lax.platform_dependent(x, *others, cpu=in_parts, default=fn)
