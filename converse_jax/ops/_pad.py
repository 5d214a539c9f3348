"""Padding before the filter and cropping after it: linear maps, each with its adjoint.

XLA differentiates a concatenation into full-size copies. Here one copy enlarges the map, and the
border is written into it; the adjoint folds the border back onto the pixels it came from.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from converse_jax.ops._function import adjoint_pair


def crop_map(x: Array, border: int, axis: int = -2) -> Array:
    """Remove `border` pixels from every side of maps, whose rows lie along `axis`."""
    if border == 0:
        return x
    for along in _spatial(x, axis):
        x = jax.lax.slice_in_dim(x, border, x.shape[along] - border, axis=along)
    return x


def pad_map(x: Array, padding: int, mode: str, axis: int = -2) -> Array:
    """Add `padding` pixels to every side of maps, whose rows lie along `axis`."""
    axes = _spatial(x, axis)
    if padding == 0:
        return x
    if mode == "circular" and any(padding > x.shape[along] for along in axes):
        # Wraps more than once: rare, and left to the generic routine.
        return jnp.pad(x, [(padding * (i in axes),) * 2 for i in range(x.ndim)], mode="wrap")
    return pad(x, padding, mode, axes)


def _spatial(x: Array, axis: int) -> tuple[int, int]:
    return axis % x.ndim, axis % x.ndim + 1


def _pad(x: Array, padding: int, mode: str, axes: tuple[int, int]) -> Array:
    x = jnp.pad(x, [(padding * (i in axes),) * 2 for i in range(x.ndim)])
    for _, side, source in _sides(x.shape, padding, mode, axes):
        x = x.at[side].set(x[source])
    return x


def _pad_adjoint(x: Array, padding: int, mode: str, axes: tuple[int, int]) -> Array:
    """Add each border to the pixels it repeats, and remove it."""
    for axis, side, source in reversed(_sides(x.shape, padding, mode, axes)):
        border = x[side]
        if mode == "replicate":
            border = jnp.sum(border, axis, keepdims=True)
        x = x.at[source].add(border)
    return crop_map(x, padding, axes[0])


pad, pad_adjoint = adjoint_pair(_pad, _pad_adjoint)


def _sides(
    shape: tuple[Any, ...], p: int, mode: str, axes: tuple[int, int]
) -> list[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """The sides of padded maps, in the order of writing: axis, border, the pixels it repeats."""
    sides = []
    for axis in axes:
        size = shape[axis]
        first, last = p, size - p - 1
        borders = slice(0, p), slice(size - p, size)
        sources = {
            "constant": (),
            "circular": (slice(last - p + 1, last + 1), slice(first, first + p)),
            "replicate": (slice(first, first + 1), slice(last, last + 1)),
            "reflect": (slice(first + p, first, -1), slice(last - 1, last - p - 1, -1)),
        }[mode]
        before = (slice(None),) * axis
        for border, source in zip(borders, sources, strict=False):
            sides.append((axis, (*before, border), (*before, source)))
    return sides
