"""The operator for signals and volumes, in any number of dimensions, by real FFTs.

The equations are those of `_closed_form` and `_fft`, with one phase for each offset.
"""

from __future__ import annotations

import functools
import string

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from converse_jax.ops._checks import (
    check_estimate,
    check_fit,
    check_lam,
    check_map,
    check_operator,
    compute_dtype,
    floating,
    integer,
)
from converse_jax.ops._closed_form import closed_form
from converse_jax.ops._constant import constant
from converse_jax.ops._function import Function
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
    x0: InitialEstimate | Float[ArrayLike, "*estimates sL C"] = "nearest",
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
    x0: InitialEstimate | Float[ArrayLike, "*estimates sD sH sW C"] = "nearest",
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
    x0: InitialEstimate | ArrayLike,
) -> Array:
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
    options = Options(scale, padding, padding_mode, kind)
    return _converse((x, *given), kernel, lam, spatial, options)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _converse(
    maps: tuple[Array, ...],
    kernel: Array,
    lam: Array | np.ndarray,
    spatial: int,
    options: Options,
) -> Array:
    shared = (kernel, per_channel(lam, kernel))
    axes, taps = _axes(spatial)
    return over_groups(_solve(spatial, options), maps, shared, (f"m {taps} c", "m c"), f"{axes} c")


def _axes(spatial: int) -> tuple[str, str]:
    """Labels of the axes of a map and of a kernel."""
    return " ".join("dhw"[-spatial:]), " ".join("pqr"[-spatial:])


@functools.cache
def _solve(spatial: int, options: Options) -> Function:
    """The operator on `[m, n, *map, C]`, kernels `[m, *taps, C]` and lambdas `[m, C]`."""
    scale, p = options.scale, options.padding
    mode = {"circular": "wrap", "replicate": "edge"}.get(options.padding_mode, options.padding_mode)

    # From [m, n, C, phases, map] to each axis of the map followed by that of its phases, and back.
    order = (0, 1, 2, *(axis for i in range(spatial) for axis in (3 + spatial + i, 3 + i)))
    back = tuple(map(int, np.argsort(order)))

    def spectrum(maps: Array) -> Array:
        widths = [(0, 0)] * (maps.ndim - spatial) + [(p, p)] * spatial
        return jnp.fft.rfftn(jnp.pad(maps, widths, mode=mode), axes=range(-spatial, 0))

    def fn(maps: tuple[Array, ...], kernel: Array, lam: Array) -> Array:
        x, *x0 = maps
        dtype = compute_dtype(x)
        y = jnp.moveaxis(x.astype(dtype), -1, 2)
        size = tuple(n + 2 * p for n in y.shape[3:])
        otf = _phase_otf(kernel.astype(dtype), size, scale)
        phases = tuple(range(-2 * spatial, -spatial))
        sums = functools.partial(jnp.sum, axis=phases, keepdims=True)
        lam = jnp.expand_dims(lam.astype(dtype), tuple(range(2, 2 + 2 * spatial)))
        filters = jax.lax.complex(*closed_form(otf.real, otf.imag, lam, options.x0, sums))
        rest = jnp.expand_dims(spectrum(y), tuple(range(3, 3 + spatial)))
        for estimate in x0:
            cells = jnp.moveaxis(estimate.astype(dtype), -1, 2)
            cells = cells.reshape(*y.shape[:3], *(k for n in y.shape[3:] for k in (n, scale)))
            rest -= sums(otf[:, None] * spectrum(cells.transpose(back)))
        larger = jnp.fft.irfftn(rest * filters[:, None], s=size, axes=range(-spatial, 0))
        larger = larger.transpose(order).reshape(*y.shape[:3], *(scale * n for n in size))
        larger = larger[(..., *(slice(scale * p, scale * (n - p)) for n in size))]
        larger = jnp.moveaxis(larger, 2, -1)
        return sum((a.astype(dtype) for a in x0), larger).astype(x.dtype)

    axes, taps = _axes(spatial)
    larger = f"m n {axes.upper()} c"
    maps = (f"m n {axes} c", larger) if options.x0 == "array" else (f"m n {axes} c",)
    return Function(fn, linear=(0,), labels=((maps, f"m {taps} c", "m c"), larger))


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
