"""Rejections of the operator: ``name: got X; expected Y``, and what to do where that helps."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from converse_jax.ops._options import InitialEstimate


def floating(name: str, value: Any) -> Array:
    """An array of real floating-point numbers, or a TypeError."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"{name}: got {type(value).__name__}; expected a JAX or NumPy array")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"{name}: got {value.dtype}; expected real floating-point numbers, "
            f"e.g. {name}.astype(jnp.float32)" + (" / 255" if value.dtype == np.uint8 else "")
        )
    return jnp.asarray(value)


def check_lam(lam: Any) -> Array:
    """Lambda as an array; its sign is checked where it is a Python or NumPy value."""
    if isinstance(lam, bool) or not isinstance(
        lam, int | float | jax.Array | np.ndarray | np.generic
    ):
        raise TypeError(f"lam: got {type(lam).__name__}; expected a number or an array")
    if isinstance(lam, jax.Array):
        return floating("lam", lam)
    values = np.asarray(lam)
    if not np.issubdtype(values.dtype, np.integer):
        floating("lam", values)
    if not np.all(values > 0):
        raise ValueError(
            f"lam: got {np.min(values)}; expected > 0 everywhere, as the inverse is not defined "
            "without regularization"
        )
    return jnp.asarray(values, dtype=float if values.ndim == 0 else None)


def check_map(name: str, x: Array) -> None:
    """x is ``[..., H, W, C]`` with no empty spatial axis."""
    if x.ndim < 3 or 0 in x.shape[-3:]:
        raise ValueError(
            f"{name}: got shape {x.shape}; expected [..., H, W, C] with H, W, C >= 1"
            + (f", e.g. {name}[..., None]" if x.ndim == 2 else "")
        )


def check_kernel(kernel: Array, scale: int, largest: tuple[int, int]) -> None:
    """The kernel is ``[..., kh, kw, C]`` and no larger than the high-resolution map."""
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale: got {scale!r}; expected an integer >= 1")
    if kernel.ndim < 3 or 0 in kernel.shape[-3:]:
        raise ValueError(
            f"kernel: got shape {kernel.shape}; expected [..., kh, kw, C] with kh, kw, C >= 1"
        )
    kh, kw = kernel.shape[-3:-1]
    if kh > largest[0] or kw > largest[1]:
        raise ValueError(
            f"kernel: got {kh}x{kw}; expected at most scale times the padded map, "
            f"{largest[0]}x{largest[1]}"
        )


def check_operator(kernel: Array, lam: Array, padded: tuple[int, int], scale: int, x0: str) -> None:
    """The options and the kernel fit each other and the padded map."""
    check_kernel(kernel, scale, (scale * padded[0], scale * padded[1]))
    if x0 not in get_args(InitialEstimate):
        raise ValueError(f"x0: got {x0!r}; expected 'nearest' or 'zero'")
    if lam.ndim > 0 and lam.shape[-1] != kernel.shape[-1]:
        raise ValueError(
            f"lam: got shape {lam.shape}; expected a scalar or [..., C] with the kernel's "
            f"{kernel.shape[-1]} channels"
        )


def check_fit(name: str, x: Array, channels: int, leading: dict[str, tuple[int, ...]]) -> None:
    """x has these channels, and its leading axes broadcast against the others'."""
    if x.shape[-1] != channels:
        raise ValueError(
            f"{name}: got {x.shape[-1]} channels (last axis of {x.shape}); expected the {channels} "
            f"of {next(iter(leading))}, as each channel has a kernel of its own"
        )
    try:
        jnp.broadcast_shapes(x.shape[:-3], *leading.values())
    except ValueError:
        others = ", ".join(f"{other} {shape}" for other, shape in leading.items())
        raise ValueError(
            f"{name}: got leading axes {x.shape[:-3]}; expected some that broadcast against "
            f"{others}"
        ) from None


def compute_dtype(x: Array) -> Any:
    """float64 for float64, else float32: XLA's FFT has no half precision."""
    return jnp.dtype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
