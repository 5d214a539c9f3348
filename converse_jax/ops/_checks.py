"""Rejections of the operator: `name: got X; expected Y`, and what to do where that helps."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from converse_jax.ops._options import (
    InitialEstimate,
    Maps,
    Options,
    PaddingMode,
    PreparedEstimate,
)


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


def check_lam(lam: Any) -> Array | np.ndarray:
    """Lambda as an array; its sign is checked where it is a Python or NumPy value."""
    if isinstance(lam, bool) or not isinstance(
        lam, int | float | jax.Array | np.ndarray | np.generic
    ):
        raise TypeError(f"lam: got {type(lam).__name__}; expected a number or an array")
    if isinstance(lam, jax.Array):
        return lam.astype(float) if jnp.issubdtype(lam.dtype, jnp.integer) else floating("lam", lam)
    # Stays with NumPy: eagerly, to make it an array of JAX takes longer than all these checks.
    values = np.asarray(lam)
    if values.dtype.kind in "iuf":
        values = values.astype(jax.dtypes.canonicalize_dtype(float))  # which may round it to 0
    else:
        values = np.asarray(floating("lam", values))
    if not (values > 0).all():
        raise ValueError(
            f"lam: got {np.min(lam)}; expected > 0 everywhere, as the inverse is not defined "
            "without regularization"
        )
    return values


# Names of the axes of maps with 1, 2 and 3 spatial axes, and of kernels.
_MAPS = {1: "L, C", 2: "H, W, C", 3: "D, H, W, C"}
_KERNELS = {1: "k, C", 2: "kh, kw, C", 3: "kd, kh, kw, C"}


def check_map(name: str, x: Array, spatial: int = 2) -> None:
    """x is `[..., H, W, C]` with no empty spatial axis."""
    if x.ndim < spatial + 1 or 0 in x.shape[-spatial - 1 :]:
        raise ValueError(
            f"{name}: got shape {x.shape}; expected [..., {_MAPS[spatial]}] with "
            f"{_MAPS[spatial]} >= 1" + (f", e.g. {name}[..., None]" if x.ndim == spatial else "")
        )


def integer(name: str, value: Any, least: int) -> int:
    """A static integer of at least `least`; NumPy's are welcome."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name}: got a traced value; expected an integer that is known when the function is "
            f"traced: jax.jit(f, static_argnames={name!r}), or functools.partial(f, {name}=...)"
        )
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: got {value!r}; expected an integer >= {least}")
    return int(value)


def check_choice(name: str, value: str, choices: Any, besides: str = "") -> None:
    """A string is one of a Literal's."""
    if value not in get_args(choices):
        expected = ", ".join(map(repr, get_args(choices)))
        raise ValueError(f"{name}: got {value!r}; expected {expected} {besides}".rstrip())


def check_padding(padding: int, mode: str, size: tuple[int, ...]) -> tuple[int, ...]:
    """The size of a padded map, or a ValueError if that is not defined."""
    check_choice("padding_mode", mode, PaddingMode)
    if mode == "reflect" and any(padding >= n for n in size):
        raise ValueError(
            f"padding: got {padding} with padding_mode='reflect' and a map of "
            f"{'x'.join(map(str, size))}; expected less than each side of the map, or "
            "padding_mode='replicate'"
        )
    return tuple(n + 2 * padding for n in size)


def check_kernel(kernel: Array, largest: tuple[int, ...]) -> None:
    """The kernel is `[..., kh, kw, C]` and no larger than the high-resolution map."""
    spatial = len(largest)
    if kernel.ndim < spatial + 1 or 0 in kernel.shape[-spatial - 1 :]:
        raise ValueError(
            f"kernel: got shape {kernel.shape}; expected [..., {_KERNELS[spatial]}] with "
            f"{_KERNELS[spatial]} >= 1"
        )
    taps = kernel.shape[-spatial - 1 : -1]
    if any(k > size for k, size in zip(taps, largest, strict=True)):
        raise ValueError(
            f"kernel: got {'x'.join(map(str, taps))}; expected at most scale times the padded map, "
            f"{'x'.join(map(str, largest))}"
        )


def check_estimate(
    x0: Any, x: Array, scale: int, spatial: int = 2
) -> tuple[str, tuple[Array, ...]]:
    """The kind of the initial estimate and, where it is an array, that, of the result's size."""
    if isinstance(x0, str):
        check_choice("x0", x0, InitialEstimate, "or an array")
        return x0, ()
    x0 = floating("x0", x0)
    expected = (*(scale * size for size in x.shape[-spatial - 1 : -1]), x.shape[-1])
    if x0.shape[-spatial - 1 :] != expected:
        raise ValueError(
            f"x0: got shape {x0.shape}; expected [..., {', '.join(map(str, expected))}], the size "
            "of the result"
        )
    return "array", (x0,)


def check_operator(
    kernel: Array, lam: Array | np.ndarray, padded: tuple[int, ...], scale: int, x0: str
) -> None:
    """The options and the kernel fit each other and the padded map."""
    check_kernel(kernel, tuple(scale * size for size in padded))
    check_choice("x0", x0, PreparedEstimate)
    if lam.ndim > 0 and lam.shape[-1] != kernel.shape[-1]:
        raise ValueError(
            f"lam: got shape {lam.shape}; expected a scalar or [..., C] with the kernel's "
            f"{kernel.shape[-1]} channels"
        )


def check_fit(
    name: str, x: Array, channels: int, leading: dict[str, tuple[int, ...]], spatial: int = 2
) -> None:
    """x has these channels, and its leading axes broadcast against the others'."""
    batch = x.shape[: -spatial - 1]
    if x.shape[-1] != channels:
        raise ValueError(
            f"{name}: got {x.shape[-1]} channels (last axis of {x.shape}); expected the {channels} "
            f"of {next(iter(leading))}, as each channel has a kernel of its own"
        )
    for other, shape in leading.items():
        if len(shape) > max(2, len(batch)) and set(shape[-2:]) == {1}:
            # It broadcasts, to an outer product of examples that nobody means.
            raise ValueError(
                f"{other}: got leading axes {shape}; expected those of the batch alone, "
                f"{batch}: {other}[:, 0, 0]"
            )
    try:
        jnp.broadcast_shapes(batch, *leading.values())
    except ValueError:
        others = ", ".join(f"{other} {shape}" for other, shape in leading.items())
        raise ValueError(
            f"{name}: got leading axes {batch}; expected some that broadcast against "
            f"{others}"
            + (" (for volumes [..., D, H, W, C] see converse3d)" if spatial == 2 else "")
        ) from None


def check_call(
    x: Any,
    kernel: Any,
    lam: Any,
    *,
    scale: Any,
    padding: Any,
    padding_mode: Any,
    x0: Any,
    spatial: int = 2,
) -> tuple[Maps, Array, Array | np.ndarray, Options]:
    """Check all of a call of the operator; its maps, kernel, lambda and options."""
    x, kernel, lam = floating("x", x), floating("kernel", kernel), check_lam(lam)
    check_map("x", x, spatial)
    scale, padding = integer("scale", scale, 1), integer("padding", padding, 0)
    padded = check_padding(padding, padding_mode, x.shape[-spatial - 1 : -1])
    kind, given = check_estimate(x0, x, scale, spatial)
    check_operator(kernel, lam, padded, scale, kind)
    leading = {"kernel": kernel.shape[: -spatial - 1], "lam": lam.shape[:-1]}
    if given:
        leading["x0"] = given[0].shape[: -spatial - 1]
    check_fit("x", x, kernel.shape[-1], leading, spatial)
    maps = (x, *given) if given else x
    return maps, kernel, lam, Options(scale, padding, padding_mode, kind)


def compute_dtype(x: Array) -> Any:
    """float64 for float64, else float32: XLA's FFT has no half precision."""
    return jnp.dtype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
