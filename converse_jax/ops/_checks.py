"""Rejections of the operator: each names the argument, what arrived, and what to do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def floating(name: str, value: Any) -> Array:
    """An array of real floating-point numbers, or a TypeError."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"{name} must be a JAX or NumPy array, got {type(value).__name__}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be real floating-point, got {value.dtype}: convert it first, "
            f"e.g. {name}.astype(jnp.float32)" + (" / 255" if value.dtype == np.uint8 else "")
        )
    return jnp.asarray(value)


def check_lam(lam: Any) -> Array:
    """Lambda as an array; its sign is checked where it is a Python or NumPy value."""
    if isinstance(lam, bool) or not isinstance(
        lam, int | float | jax.Array | np.ndarray | np.generic
    ):
        raise TypeError(f"lam must be a number or an array, got {type(lam).__name__}")
    if not isinstance(lam, jax.Array):
        if not np.issubdtype(np.asarray(lam).dtype, np.integer):
            floating("lam", np.asarray(lam))
        if not np.all(np.asarray(lam) > 0):
            raise ValueError(
                f"lam must be > 0 everywhere, its smallest value is {np.min(lam)}: the inverse is "
                "not defined without regularization"
            )
        return jnp.asarray(lam, dtype=float) if np.ndim(lam) == 0 else jnp.asarray(lam)
    return floating("lam", lam)


def check_map(name: str, x: Array) -> None:
    """x is ``[..., H, W, C]`` with no empty spatial axis."""
    if x.ndim < 3 or 0 in x.shape[-3:]:
        raise ValueError(
            f"{name} must have shape [..., H, W, C] with H, W, C >= 1, got {x.shape}"
            + (f": add a channel axis, {name}[..., None]" if x.ndim == 2 else "")
        )


def check_operator(
    kernel: Array, lam: Array, padded: tuple[int, int], scale: int, x0: str | None
) -> None:
    """The options and the kernel fit each other and the padded map."""
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale must be an integer >= 1, got {scale!r}")
    if x0 not in ("nearest", "zero", None):
        raise ValueError(f"x0 must be 'nearest' or 'zero', got {x0!r}")
    if kernel.ndim < 3 or 0 in kernel.shape[-3:]:
        raise ValueError(
            f"kernel must have shape [..., kh, kw, C] with kh, kw, C >= 1, got {kernel.shape}"
        )
    kh, kw, channels = kernel.shape[-3:]
    if kh > scale * padded[0] or kw > scale * padded[1]:
        raise ValueError(
            f"kernel of {kh}x{kw} is larger than scale x the padded map, "
            f"{scale * padded[0]}x{scale * padded[1]}: use a larger map, a larger padding or a "
            "smaller kernel"
        )
    if lam.ndim > 0 and lam.shape[-1] != channels:
        raise ValueError(
            f"lam must be a scalar or [..., C] with the kernel's C = {channels} channels, "
            f"got {lam.shape}"
        )


def check_fit(x: Array, channels: int, leading: dict[str, tuple[int, ...]]) -> None:
    """x has these channels, and its leading axes broadcast against the others'."""
    source = next(iter(leading))
    if x.shape[-1] != channels:
        raise ValueError(
            f"x has {x.shape[-1]} channels (last axis of {x.shape}), {source} has {channels}: "
            "channels come last, and each has a kernel of its own"
        )
    try:
        jnp.broadcast_shapes(x.shape[:-3], *leading.values())
    except ValueError:
        axes = ", ".join(f"{name} {shape}" for name, shape in leading.items())
        raise ValueError(f"leading axes do not broadcast: x {x.shape[:-3]}, {axes}") from None


def compute_dtype(x: Array) -> Any:
    """float64 for float64, else float32: XLA's FFT has no half precision."""
    return jnp.promote_types(x.dtype, jnp.float32)
