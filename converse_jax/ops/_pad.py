"""Padding before the filter and cropping after it."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PaddingMode = Literal["circular", "replicate", "reflect", "constant"]

_JNP_MODES = {"circular": "wrap", "replicate": "edge", "reflect": "reflect", "constant": "constant"}
assert set(_JNP_MODES) == set(get_args(PaddingMode))


def pad_map(
    x: Float[Array, "*batch H W C"], padding: int, mode: str
) -> Float[Array, "*batch H+2p W+2p C"]:
    """Pad every side of the spatial axes of a channels-last map by `padding` pixels."""
    if padding == 0:
        return x
    widths = [(0, 0)] * (x.ndim - 3) + [(padding, padding)] * 2 + [(0, 0)]
    return jnp.pad(x, widths, mode=_JNP_MODES[mode])


def crop_map(x: Float[Array, "*batch H W C"], border: int) -> Float[Array, "*batch H-2b W-2b C"]:
    """Remove `border` pixels from every side of the spatial axes of a channels-last map."""
    if border == 0:
        return x
    height, width = x.shape[-3:-1]
    x = jax.lax.slice_in_dim(x, border, height - border, axis=x.ndim - 3)
    return jax.lax.slice_in_dim(x, border, width - border, axis=x.ndim - 2)


def check_padding(padding: int, mode: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Size of the padded map ``[..., H, W, C]``; rejects a padding it does not define."""
    height, width = shape[-3:-1]
    if mode not in _JNP_MODES:
        raise ValueError(
            f"padding_mode must be one of {', '.join(map(repr, _JNP_MODES))}, got {mode!r}"
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
