"""The method "fft": one real FFT of each map, and one real inverse FFT of each phase.

A filter bank between a map y and the s*s phases x_ij of a larger one, in both directions:

    synthesize(y, G)_ij = F^-1[ G_ij . F y ]                [H, W]   -> [sH, sW]
    analyze(x, G)       = F^-1[ sum_ij conj(G_ij) F x_ij ]  [sH, sW] -> [H, W]

They are the two map-valued gradients of the trilinear form ``<x, synthesize(y, G)>``; its third,
`correlate`, is the gradient in G. Reverse-mode differentiation of any order thus costs real FFTs
alone: JAX's own transpose of a real FFT is a complex FFT of the whole map.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from converse_jax.ops._adjoint import adjoint_pair, trilinear
from converse_jax.ops._closed_form import closed_form
from converse_jax.ops._memory import row_major
from converse_jax.ops._options import Options
from converse_jax.ops._otf import phase_otf
from converse_jax.ops._pad import crop_map, pad_map

TRANSFER = ("m c p q u k",)
"""Labels (see `partitioned`) of what `transfer` returns."""


def transfer(
    kernel: Float[Array, "m kh kw C"],
    lam: Float[Array, "m C"],
    shape: tuple[int, int],
    options: Options,
) -> tuple[Complex[Array, "m C s s pH K"]]:
    """Half spectra of the filters of the s*s phases, for padded maps of this shape."""
    re, im = phase_otf(kernel, shape, options.scale)
    sums = functools.partial(jnp.sum, axis=(-4, -3), keepdims=True)
    lam = lam[..., None, None, None, None]
    return (jax.lax.complex(*closed_form(re, im, lam, options.x0, sums)),)


def apply(
    x: Float[Array, "m n H W C"],
    filters: tuple[Complex[Array, "m C s s pH K"]],
    options: Options,
) -> Float[Array, "m n sH sW C"]:
    """Filter groups of maps, given `transfer`."""

    def filter_map(y: Array, spectrum: Array) -> Array:
        padded = pad_map(y, options.padding, options.padding_mode, plain=options.plain)
        larger = synthesize(padded, spectrum, plain=options.plain)
        return crop_map(larger, options.scale * options.padding)

    return over_maps(filter_map, plain=options.plain)(x, *filters)


def _phases(x: Float[Array, "sH sW"], scale: int) -> Float[Array, "s s H W"]:
    height, width = x.shape
    x = x.reshape(height // scale, scale, width // scale, scale)
    return x.transpose(1, 3, 0, 2)


def _synthesize(
    y: Float[Array, "H W"], transfer: Complex[Array, "s s H K"], *, plain: bool = False
) -> Float[Array, "sH sW"]:
    """``x_ij = F^-1[G_ij . F y]`` for each phase (i, j) of the output."""
    phases = jnp.fft.irfft2(jnp.fft.rfft2(y)[None, None] * transfer, s=y.shape)
    s, _, height, width = phases.shape
    return phases.transpose(2, 0, 3, 1).reshape(s * height, s * width)


def _analyze(
    x: Float[Array, "sH sW"], transfer: Complex[Array, "s s H K"], *, plain: bool = False
) -> Float[Array, "H W"]:
    """``y = F^-1[sum_ij conj(G_ij) . F x_ij]``: the adjoint of `synthesize` in y."""
    phases = _phases(x, transfer.shape[0])
    spectrum = jnp.sum(jnp.conj(transfer) * jnp.fft.rfft2(phases), axis=(0, 1))
    return jnp.fft.irfft2(spectrum, s=phases.shape[2:])


def _correlate(
    y: Float[Array, "H W"], x: Float[Array, "sH sW"], *, plain: bool = False
) -> Complex[Array, "s s H K"]:
    """``(w / HW) F y . conj(F x_ij)``: the gradient of ``<x, synthesize(y, G)>`` in G.

    w counts a column of the half spectrum twice, unless it mirrors itself.
    """
    height, width = y.shape
    column = jnp.arange(width // 2 + 1)
    single = (column == 0) | (2 * column == width)
    weights = jnp.where(single, 1, 2).astype(y.dtype) / (height * width)
    spectrum = jnp.fft.rfft2(y)
    spectrum = weights[None].astype(spectrum.dtype) * spectrum
    phases = _phases(x, x.shape[0] // height)
    return spectrum[None, None] * jnp.conj(jnp.fft.rfft2(phases))


synthesize, analyze, correlate = trilinear(_synthesize, _analyze, _correlate)


def over_maps(bank: Callable[..., Array], *, plain: bool) -> Callable[..., Array]:
    """Lift a filter of one map to ``[groups, examples, H, W, C]``, one transfer a group and C."""
    channels = jax.vmap(bank)
    examples = jax.vmap(channels, in_axes=(0, None))
    groups = jax.vmap(examples)

    def maps(x: Array, transfer: Array) -> Array:
        return channels_last(groups(channels_first(x, plain=plain), transfer), plain=plain)

    return maps


def _channels_first(
    x: Float[Array, "m n H W C"], *, plain: bool = False
) -> Float[Array, "m n C H W"]:
    """The transforms want their axes last: one transposition here, none around each of them."""
    return row_major(jnp.moveaxis(row_major(x, plain=plain), -1, 2), plain=plain)


def _channels_last(
    x: Float[Array, "m n C H W"], *, plain: bool = False
) -> Float[Array, "m n H W C"]:
    """Inverse and adjoint of `channels_first`."""
    return row_major(jnp.moveaxis(x, 2, -1), plain=plain)


channels_first, channels_last = adjoint_pair(_channels_first, _channels_last)
