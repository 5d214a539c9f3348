"""The method "fft": one real FFT of each map, and one real inverse FFT of each phase.

A filter bank between a map y and the s*s phases x_ij of a larger one, in both directions:

    synthesize(y, G)_ij = F^-1[ G_ij . F y ]                [H, W]   -> [sH, sW]
    analyze(x, G)       = F^-1[ sum_ij conj(G_ij) F x_ij ]  [sH, sW] -> [H, W]

They are the two map-valued gradients of the trilinear form `<x, synthesize(y, G)>`; its third,
`correlate`, is the gradient in G. Reverse-mode differentiation of any order thus costs real FFTs
alone: JAX's own transpose of a real FFT is a complex FFT of the whole map.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from converse_jax.ops._closed_form import closed_form
from converse_jax.ops._function import adjoint_pair, trilinear
from converse_jax.ops._memory import row_major
from converse_jax.ops._options import Options
from converse_jax.ops._otf import phase_otf
from converse_jax.ops._pad import crop_map, pad_map

TRANSFER = ("m c p q u k",)
"""Labels (see `Function`) of what `transfer` returns."""


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
    (spectra,) = filters
    y = pad_map(channels_first(x), options.padding, options.padding_mode)
    larger = synthesize(y, spectra)
    return channels_last(crop_map(larger, options.scale * options.padding))


def _phases(x: Float[Array, "m n C sH sW"], scale: int) -> Float[Array, "m n C s s H W"]:
    *maps, height, width = x.shape
    x = x.reshape(*maps, height // scale, scale, width // scale, scale)
    return x.transpose(0, 1, 2, 4, 6, 3, 5)


def _synthesize(
    y: Float[Array, "m n C H W"], transfer: Complex[Array, "m C s s H K"]
) -> Float[Array, "m n C sH sW"]:
    """`x_ij = F^-1[G_ij . F y]` for each phase (i, j) of the output."""
    spectrum = jnp.fft.rfft2(y)[:, :, :, None, None]
    phases = jnp.fft.irfft2(spectrum * transfer[:, None], s=y.shape[-2:])
    *maps, s, _, height, width = phases.shape
    return phases.transpose(0, 1, 2, 5, 3, 6, 4).reshape(*maps, s * height, s * width)


def _analyze(
    x: Float[Array, "m n C sH sW"], transfer: Complex[Array, "m C s s H K"]
) -> Float[Array, "m n C H W"]:
    """`y = F^-1[sum_ij conj(G_ij) . F x_ij]`: the adjoint of `synthesize` in y."""
    phases = _phases(x, transfer.shape[2])
    spectrum = jnp.sum(jnp.conj(transfer)[:, None] * jnp.fft.rfft2(phases), axis=(3, 4))
    return jnp.fft.irfft2(spectrum, s=phases.shape[-2:])


def _correlate(
    y: Float[Array, "m n C H W"], x: Float[Array, "m n C sH sW"]
) -> Complex[Array, "m C s s H K"]:
    """`sum_n (w / HW) F y . conj(F x_ij)`: the gradient of `<x, synthesize(y, G)>` in G.

    w counts a column of the half spectrum twice, unless it mirrors itself.
    """
    height, width = y.shape[-2:]
    column = jnp.arange(width // 2 + 1)
    single = (column == 0) | (2 * column == width)
    weights = jnp.where(single, 1, 2).astype(y.dtype) / (height * width)
    spectrum = jnp.fft.rfft2(y)
    spectrum = weights.astype(spectrum.dtype).reshape(1, 1, 1, 1, -1) * spectrum
    phases = jnp.conj(jnp.fft.rfft2(_phases(x, x.shape[-2] // height)))
    return jnp.sum(spectrum[:, :, :, None, None] * phases, axis=1)


synthesize, analyze, correlate = trilinear(_synthesize, _analyze, _correlate)


def _channels_first(x: Float[Array, "m n H W C"]) -> Float[Array, "m n C H W"]:
    """The transforms want their axes last: one transposition here, none around each of them."""
    return row_major(jnp.moveaxis(row_major(x), -1, 2))


def _channels_last(x: Float[Array, "m n C H W"]) -> Float[Array, "m n H W C"]:
    """Inverse and adjoint of `channels_first`."""
    return row_major(jnp.moveaxis(x, 2, -1))


channels_first, channels_last = adjoint_pair(_channels_first, _channels_last)
