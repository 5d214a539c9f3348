"""The operator for signals and volumes, in any number of dimensions, by real FFTs.

The equations are those of `_closed_form` and `_fft`, with one phase for each offset.
"""

from __future__ import annotations

import functools
import string

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from converse_jax.ops._checks import (
    check_fit,
    check_lam,
    check_map,
    check_operator,
    compute_dtype,
    floating,
    integer,
)
from converse_jax.ops._closed_form import closed_form
from converse_jax.ops._function import Function, constant
from converse_jax.ops._groups import over_groups, per_channel
from converse_jax.ops._options import InitialEstimate, Options, PaddingMode
from converse_jax.ops._otf import phase_dft
from converse_jax.ops._pad import check_padding


def converse1d(
    x: Float[ArrayLike, "*batch L C"],
    kernel: Float[ArrayLike, "*kernels k C"],
    lam: Float[ArrayLike, "*lams"] | float,
    *,
    scale: int = 1,
    padding: int = 0,
    padding_mode: PaddingMode = "circular",
    x0: InitialEstimate = "nearest",
) -> Float[Array, "*broadcast sL C"]:
    """`converse2d` for signals `[..., L, C]`, with kernels `[..., k, C]`.

    Args and errors are those of `converse2d`; the result is `[..., scale * L, C]`.
    """
    return _checked(1, x, kernel, lam, scale, padding, padding_mode, x0)


def converse3d(
    x: Float[ArrayLike, "*batch D H W C"],
    kernel: Float[ArrayLike, "*kernels kd kh kw C"],
    lam: Float[ArrayLike, "*lams"] | float,
    *,
    scale: int = 1,
    padding: int = 0,
    padding_mode: PaddingMode = "circular",
    x0: InitialEstimate = "nearest",
) -> Float[Array, "*broadcast sD sH sW C"]:
    """`converse2d` for volumes `[..., D, H, W, C]`, with kernels `[..., kd, kh, kw, C]`.

    Args and errors are those of `converse2d`; the result is `[..., scale * D, scale * H,
    scale * W, C]`.
    """
    return _checked(3, x, kernel, lam, scale, padding, padding_mode, x0)


def _checked(
    spatial: int,
    x: ArrayLike,
    kernel: ArrayLike,
    lam: ArrayLike,
    scale: int,
    padding: int,
    padding_mode: PaddingMode,
    x0: InitialEstimate,
) -> Array:
    x, kernel, lam = floating("x", x), floating("kernel", kernel), check_lam(lam)
    check_map("x", x, spatial)
    scale, padding = integer("scale", scale, 1), integer("padding", padding, 0)
    padded = check_padding(padding, padding_mode, x.shape[-spatial - 1 : -1])
    check_operator(kernel, lam, padded, scale, x0)
    leading = {"kernel": kernel.shape[: -spatial - 1], "lam": lam.shape[:-1]}
    check_fit("x", x, kernel.shape[-1], leading, spatial)
    return _converse(x, kernel, lam, spatial, Options(scale, padding, padding_mode, x0))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _converse(x: Array, kernel: Array, lam: Array, spatial: int, options: Options) -> Array:
    shared = (kernel, per_channel(lam, kernel))
    axes, taps = _axes(spatial)
    return over_groups(_solve(spatial, options), x, shared, (f"m {taps} c", "m c"), f"{axes} c")


def _axes(spatial: int) -> tuple[str, str]:
    """Labels of the axes of a map and of a kernel."""
    return " ".join("dhw"[-spatial:]), " ".join("pqr"[-spatial:])


@functools.cache
def _solve(spatial: int, options: Options) -> Function:
    """The operator on `[m, n, *map, C]`, kernels `[m, *taps, C]` and lambdas `[m, C]`."""
    scale, p = options.scale, options.padding
    mode = {"circular": "wrap", "replicate": "edge"}.get(options.padding_mode, options.padding_mode)

    def fn(x: Array, kernel: Array, lam: Array) -> Array:
        dtype = compute_dtype(x)
        y = jnp.pad(x.astype(dtype), [(0, 0)] * 2 + [(p, p)] * spatial + [(0, 0)], mode=mode)
        y = jnp.moveaxis(y, -1, 2)
        size = y.shape[3:]
        otf = _phase_otf(kernel.astype(dtype), size, scale)
        phases = tuple(range(2, 2 + spatial))
        sums = functools.partial(jnp.sum, axis=phases, keepdims=True)
        lam = jnp.expand_dims(lam.astype(dtype), tuple(range(2, 2 + 2 * spatial)))
        filters = jax.lax.complex(*closed_form(otf.real, otf.imag, lam, options.x0, sums))
        along = tuple(range(-spatial, 0))
        spectrum = jnp.expand_dims(jnp.fft.rfftn(y, axes=along), tuple(range(3, 3 + spatial)))
        larger = jnp.fft.irfftn(spectrum * filters[:, None], s=size, axes=along)
        # [m, n, C, phases, map] -> each axis of the map followed by that of its phases.
        order = [axis for i in range(spatial) for axis in (3 + spatial + i, 3 + i)]
        larger = larger.transpose(0, 1, 2, *order)
        larger = larger.reshape(*y.shape[:3], *(scale * n for n in size))
        kept = tuple(slice(scale * p, scale * (n - p)) for n in size)
        return jnp.moveaxis(larger[(..., *kept)], 2, -1).astype(x.dtype)

    axes, taps = _axes(spatial)
    labels = (f"m n {axes} c", f"m {taps} c", "m c"), f"m n {axes.upper()} c"
    return Function(fn, linear=(0,), labels=labels)


def _phase_otf(kernel: Array, size: tuple[int, ...], scale: int) -> Array:
    """Transfer functions `[m, C, *phases, *half spectrum]` of kernels `[m, *taps, C]`."""
    spatial = len(size)
    taps, phases, frequencies = (string.ascii_letters[i::3][:spatial] for i in range(3))
    matrices = []
    for axis, (n, k) in enumerate(zip(size, kernel.shape[1:-1], strict=True)):
        half = axis == spatial - 1
        cos, sin = (
            constant(phase_dft, n, k, scale, half, sine, dtype=kernel.dtype)
            for sine in (False, True)
        )
        matrices.append(jax.lax.complex(cos, -sin))
    factors = ",".join(map("".join, zip(phases, frequencies, taps, strict=True)))
    return jnp.einsum(
        f"Z{taps}Y,{factors}->ZY{phases}{frequencies}",
        kernel.astype(matrices[0].dtype),
        *matrices,
        precision=jax.lax.Precision.HIGHEST,
    )
