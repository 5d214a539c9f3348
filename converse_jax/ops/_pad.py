"""Padding before the filter and cropping after it: linear maps, each with its adjoint.

XLA differentiates a concatenation into full-size copies. Here one copy enlarges the map, and the
border is written into it; the adjoint folds the border back onto the pixels it came from.
"""

from __future__ import annotations

from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops._adjoint import adjoint_pair
from converse_jax.ops._options import PaddingMode


def check_padding(padding: int, mode: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Size of the padded map ``[..., H, W, C]``, or a ValueError if that is not defined."""
    height, width = shape[-3:-1]
    if mode not in get_args(PaddingMode):
        raise ValueError(
            f"padding_mode: got {mode!r}; expected {', '.join(map(repr, get_args(PaddingMode)))}"
        )
    if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
        raise ValueError(f"padding: got {padding!r}; expected an integer >= 0")
    if mode == "reflect" and padding >= min(height, width):
        raise ValueError(
            f"padding: got {padding} with padding_mode='reflect' and a map of {height}x{width}; "
            "expected less than the map's height and width, or padding_mode='replicate'"
        )
    return height + 2 * padding, width + 2 * padding


def crop_map(x: Float[Array, "sH sW"], border: int) -> Float[Array, "H W"]:
    """Remove `border` pixels from every side of a map."""
    height, width = x.shape
    return x[border : height - border, border : width - border]


def pad_map(
    x: Float[Array, "H W"], padding: int, mode: str, *, plain: bool = False
) -> Float[Array, "Hp Wp"]:
    """Add `padding` pixels to every side of a map."""
    if padding == 0:
        return x
    if mode == "circular" and padding > min(x.shape):
        # Wraps more than once: rare, and left to the generic routine.
        return jnp.pad(x, padding, mode="wrap")
    return pad(x, padding, mode, plain=plain)


def _pad(x: Array, padding: int, mode: str, *, plain: bool = False) -> Array:
    x = jnp.pad(x, padding)
    for _, side, source in _sides(x.shape, padding, mode):
        x = x.at[side].set(x[source])
    return x


def _fold(x: Array, padding: int, mode: str, *, plain: bool = False) -> Array:
    """Add each border to the pixels it repeats, and remove it."""
    for axis, side, source in reversed(_sides(x.shape, padding, mode)):
        border = x[side]
        if mode == "replicate":
            border = jnp.sum(border, axis, keepdims=True)
        x = x.at[source].add(border)
    return crop_map(x, padding)


pad, fold = adjoint_pair(_pad, _fold)


def _sides(
    shape: tuple[int, ...], p: int, mode: str
) -> list[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """The sides of a padded map, in the order of writing: axis, border, the pixels it repeats."""
    sides = []
    for axis, size in enumerate(shape):
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
