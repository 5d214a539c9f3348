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

from converse_jax.ops._checks import check_call, compute_dtype
from converse_jax.ops._closed_form import closed_form
from converse_jax.ops._constant import constant
from converse_jax.ops._function import Function
from converse_jax.ops._groups import over_groups, per_channel
from converse_jax.ops._options import InitialEstimate, Maps, Options, PaddingMode
from converse_jax.ops._otf import phase_dft


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
    options = {"scale": scale, "padding": padding, "padding_mode": padding_mode, "x0": x0}
    return _converse(*check_call(x, kernel, lam, **options, spatial=1), 1)


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
    options = {"scale": scale, "padding": padding, "padding_mode": padding_mode, "x0": x0}
    return _converse(*check_call(x, kernel, lam, **options, spatial=3), 3)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _converse(
    maps: Maps,
    kernel: Array,
    lam: Array | np.ndarray,
    options: Options,
    spatial: int,
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

    def fn(maps: Maps, kernel: Array, lam: Array) -> Array:
        x, *x0 = jax.tree.leaves(maps)
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
    maps = (f"m n {axes} c", larger) if options.x0 == "array" else f"m n {axes} c"
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
