"""The method "fft": one real FFT of each map, and one real inverse FFT of each phase.

A filter bank between a map y and the s*s phases x_ij of a larger one, in both directions:

    synthesize(y, G)_ij = F^-1[ G_ij . F y ]                [H, W]   -> [sH, sW]
    analyze(x, G)       = F^-1[ sum_ij conj(G_ij) F x_ij ]  [sH, sW] -> [H, W]

They are each other's adjoint. The transforms bring theirs with them, so that differentiation of any
order costs real FFTs alone: JAX's own transpose of a real FFT is a complex FFT of the whole map.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from converse_jax.ops._closed_form import closed_form
from converse_jax.ops._function import adjoint_pair
from converse_jax.ops._memory import row_major
from converse_jax.ops._options import Options
from converse_jax.ops._otf import phase_otf
from converse_jax.ops._pad import crop_map, pad_map

TRANSFER = ("m c p q u k",)
TRANSFER_OF_ARRAY = TRANSFER * 2
"""Labels (see `Function`) of what `transfer` returns, and for X0 = "array"."""


def transfer(
    kernel: Float[Array, "m kh kw C"],
    lam: Float[Array, "m C"],
    shape: tuple[int, int],
    options: Options,
) -> tuple[Complex[Array, "m C s s pH K"], ...]:
    """Half spectra of the filters of the s*s phases, for padded maps of this shape.

    For X0 = "array" they are followed by those of the adjoint of the blur.
    """
    re, im = phase_otf(kernel, shape, options.scale)
    sums = functools.partial(jnp.sum, axis=(-4, -3), keepdims=True)
    lam = lam[..., None, None, None, None]
    solution = jax.lax.complex(*closed_form(re, im, lam, options.x0, sums))
    return (solution, jax.lax.complex(re, -im)) if options.x0 == "array" else (solution,)


def apply(
    x: Float[Array, "m n H W C"],
    filters: tuple[Complex[Array, "m C s s pH K"], ...],
    options: Options,
    x0: Float[Array, "m n sH sW C"] | None = None,
) -> Float[Array, "m n sH sW C"]:
    """Filter groups of maps, given `transfer`."""
    solution, *adjoint = filters
    pad = functools.partial(pad_map, padding=options.padding, mode=options.padding_mode)
    y = pad(channels_first(x))
    size = y.shape[-2:]
    spectrum = rfft(y, size)[:, :, :, None, None]
    if x0 is not None:
        phases = rfft(pad(_phases(channels_first(x0), options.scale)), size)
        spectrum -= _sum_of_phases(phases, adjoint[0])
    larger = _interleave(irfft(solution[:, None] * spectrum, size))
    larger = channels_last(crop_map(larger, options.scale * options.padding))
    return larger if x0 is None else x0 + larger


def _phases(x: Float[Array, "m n C sH sW"], scale: int) -> Float[Array, "m n C s s H W"]:
    *maps, height, width = x.shape
    x = x.reshape(*maps, height // scale, scale, width // scale, scale)
    return x.transpose(0, 1, 2, 4, 6, 3, 5)


def _interleave(phases: Float[Array, "m n C s s H W"]) -> Float[Array, "m n C sH sW"]:
    """Inverse of `_phases`."""
    *maps, s, _, height, width = phases.shape
    return phases.transpose(0, 1, 2, 5, 3, 6, 4).reshape(*maps, s * height, s * width)


def synthesize(
    y: Float[Array, "m n C H W"], filters: Complex[Array, "m C s s H K"]
) -> Float[Array, "m n C sH sW"]:
    """`x_ij = F^-1[G_ij . F y]` for each phase (i, j) of the output."""
    size = y.shape[-2:]
    return _interleave(irfft(filters[:, None] * rfft(y, size)[:, :, :, None, None], size))


def analyze(
    x: Float[Array, "m n C sH sW"], filters: Complex[Array, "m C s s H K"]
) -> Float[Array, "m n C H W"]:
    """`y = F^-1[sum_ij conj(G_ij) . F x_ij]`: the adjoint of `synthesize` in y."""
    phases = _phases(x, filters.shape[2])
    size = phases.shape[-2:]
    return irfft(_sum_of_phases(rfft(phases, size), filters)[:, :, :, 0, 0], size)


def _sum_of_phases(
    spectra: Complex[Array, "m n C s s H K"], filters: Complex[Array, "m C s s H K"]
) -> Complex[Array, "m n C 1 1 H K"]:
    """`sum_ij conj(G_ij) . F x_ij`."""
    return jnp.sum(jnp.conj(filters)[:, None] * spectra, axis=(3, 4), keepdims=True)


def _rfft(y: Float[Array, "*maps H W"], size: tuple[int, int]) -> Complex[Array, "*maps H K"]:
    return jnp.fft.rfft2(y)


def _irfft(z: Complex[Array, "*maps H K"], size: tuple[int, int]) -> Float[Array, "*maps H W"]:
    return jnp.fft.irfft2(z, s=size)


def _weights(spectrum: Complex[Array, "*maps H K"], size: tuple[int, int]) -> Array:
    """`w / HW`: w counts a column of the half spectrum twice, unless it mirrors itself."""
    height, width = size
    column = jnp.arange(width // 2 + 1)
    single = (column == 0) | (2 * column == width)
    weights = jnp.where(single, 1, 2).astype(spectrum.real.dtype) / (height * width)
    return jnp.broadcast_to(weights, spectrum.shape).astype(spectrum.dtype)


def _rfft_adjoint(
    z: Complex[Array, "*maps H K"], size: tuple[int, int]
) -> Float[Array, "*maps H W"]:
    return jnp.fft.irfft2(jnp.conj(z) / _weights(z, size), s=size)


def _irfft_adjoint(
    y: Float[Array, "*maps H W"], size: tuple[int, int]
) -> Complex[Array, "*maps H K"]:
    spectrum = jnp.fft.rfft2(y)
    return jnp.conj(spectrum) * _weights(spectrum, size)


rfft, rfft_adjoint = adjoint_pair(_rfft, _rfft_adjoint)
irfft, irfft_adjoint = adjoint_pair(_irfft, _irfft_adjoint)


def _channels_first(x: Float[Array, "m n H W C"]) -> Float[Array, "m n C H W"]:
    """The transforms want their axes last: one transposition here, none around each of them."""
    return row_major(jnp.moveaxis(row_major(x), -1, 2))


def _channels_last(x: Float[Array, "m n C H W"]) -> Float[Array, "m n H W C"]:
    """Inverse and adjoint of `channels_first`."""
    return row_major(jnp.moveaxis(x, 2, -1))


channels_first, channels_last = adjoint_pair(_channels_first, _channels_last)
