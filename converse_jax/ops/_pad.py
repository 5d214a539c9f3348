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

_MODES: tuple[str, ...] = get_args(PaddingMode)


def check_padding(padding: int, mode: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Size of the padded map ``[..., H, W, C]``; rejects a padding it does not define."""
    height, width = shape[-3:-1]
    if mode not in _MODES:
        raise ValueError(
            f"padding_mode must be one of {', '.join(map(repr, _MODES))}, got {mode!r}"
        )
    if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
        raise ValueError(f"padding must be an integer >= 0, got {padding!r}")
    if mode == "reflect" and padding >= min(height, width):
        raise ValueError(
            f"padding={padding} with padding_mode='reflect' needs a map larger than {padding} "
            f"pixels on each side, got {height}x{width}: use a smaller padding or "
            "padding_mode='replicate'"
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
    del plain  # no hint is given here
    x = jnp.pad(x, padding)
    for axis in (0, 1):
        for side, source in _border(x.shape[axis], padding, mode):
            piece = x[_along(axis, source)]
            x = x.at[_along(axis, side)].set(jnp.broadcast_to(piece, _resized(x, axis, padding)))
    return x


def _fold(x: Array, padding: int, mode: str, *, plain: bool = False) -> Array:
    """Add the border to the pixels that it repeats, and remove it."""
    del plain
    for axis in (1, 0):
        for side, source in reversed(_border(x.shape[axis], padding, mode)):
            piece = x[_along(axis, side)]
            if mode == "replicate":
                piece = jnp.sum(piece, axis, keepdims=True)
            x = x.at[_along(axis, source)].add(piece)
    return crop_map(x, padding)


def _border(size: int, p: int, mode: str) -> list[tuple[slice, slice]]:
    """The two sides of a padded axis, and the pixels inside it that they repeat."""
    first, last = p, size - p - 1
    left, right = slice(0, p), slice(size - p, size)
    if mode == "circular":
        return [(left, slice(last - p + 1, last + 1)), (right, slice(first, first + p))]
    if mode == "replicate":
        return [(left, slice(first, first + 1)), (right, slice(last, last + 1))]
    if mode == "reflect":
        return [
            (left, slice(first + p, first, -1)),
            (right, slice(last - 1, last - p - 1, -1)),
        ]
    return []


def _along(axis: int, part: slice) -> tuple[slice, slice]:
    return (part, slice(None)) if axis == 0 else (slice(None), part)


def _resized(x: Array, axis: int, size: int) -> tuple[int, ...]:
    return (size, x.shape[1]) if axis == 0 else (x.shape[0], size)


pad, fold = adjoint_pair(_pad, _fold)
