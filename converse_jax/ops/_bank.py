"""Filter bank: the circular linear filters between a map and the s*s phases of a larger one.

Both directions are one real FFT of each low-resolution map, a product, and one real inverse FFT:

    synthesize(y, G)_ij = F^-1[ G_ij . F y ]              [H, W]   -> [sH, sW]
    analyze(x, G)       = F^-1[ sum_ij conj(G_ij) F x_ij ]  [sH, sW] -> [H, W]

They are the two map-valued gradients of the trilinear form ``<x, synthesize(y, G)>``; its third,
`correlate`, is the gradient of G. Each one's gradients are the other two, so that all orders of
reverse-mode differentiation cost real FFTs alone. JAX's own transpose of a real FFT is a complex
FFT of the whole map, hence the hand-written rules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from converse_jax.ops._layout import materialised


def _phases(x: Float[Array, "sH sW"], scale: int) -> Float[Array, "s s H W"]:
    height, width = x.shape
    x = x.reshape(height // scale, scale, width // scale, scale)
    return x.transpose(1, 3, 0, 2)


def _interleave(phases: Float[Array, "s s H W"]) -> Float[Array, "sH sW"]:
    s, _, height, width = phases.shape
    return phases.transpose(2, 0, 3, 1).reshape(s * height, s * width)


@jax.custom_vjp
def synthesize(
    y: Float[Array, "H W"], transfer: Complex[Array, "s s H K"]
) -> Float[Array, "sH sW"]:
    """``x_ij = F^-1[G_ij . F y]`` for each phase (i, j) of the output."""
    return _interleave(jnp.fft.irfft2(jnp.fft.rfft2(y) * transfer, s=y.shape))


@jax.custom_vjp
def analyze(x: Float[Array, "sH sW"], transfer: Complex[Array, "s s H K"]) -> Float[Array, "H W"]:
    """``y = F^-1[sum_ij conj(G_ij) . F x_ij]``: the adjoint of `synthesize` in y."""
    phases = _phases(x, transfer.shape[0])
    spectrum = jnp.sum(jnp.conj(transfer) * jnp.fft.rfft2(phases), axis=(0, 1))
    return jnp.fft.irfft2(spectrum, s=phases.shape[2:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def correlate(
    y: Float[Array, "H W"], x: Float[Array, "sH sW"], scale: int
) -> Complex[Array, "s s H K"]:
    """``(w / HW) F y . conj(F x_ij)``: the gradient of ``<x, synthesize(y, G)>`` in G.

    w counts a column of the half spectrum twice, but for those that mirror themselves.
    """
    height, width = y.shape
    column = jnp.arange(width // 2 + 1)
    single = (column == 0) | (2 * column == width)
    weights = jnp.where(single, 1, 2).astype(y.dtype) / (height * width)
    return (weights * jnp.fft.rfft2(y)) * jnp.conj(jnp.fft.rfft2(_phases(x, scale)))


def _synthesize_fwd(y: Array, transfer: Array) -> tuple[Array, tuple[Array, Array]]:
    return synthesize(y, transfer), (y, transfer)


def _synthesize_bwd(res: tuple[Array, Array], x: Array) -> tuple[Array, Array]:
    y, transfer = res
    return analyze(x, transfer), correlate(y, x, transfer.shape[0])


def _analyze_fwd(x: Array, transfer: Array) -> tuple[Array, tuple[Array, Array]]:
    return analyze(x, transfer), (x, transfer)


def _analyze_bwd(res: tuple[Array, Array], y: Array) -> tuple[Array, Array]:
    x, transfer = res
    return synthesize(y, transfer), correlate(y, x, transfer.shape[0])


def _correlate_fwd(y: Array, x: Array, scale: int) -> tuple[Array, tuple[Array, Array]]:
    return correlate(y, x, scale), (y, x)


def _correlate_bwd(scale: int, res: tuple[Array, Array], transfer: Array) -> tuple[Array, Array]:
    del scale
    y, x = res
    return analyze(x, transfer), synthesize(y, transfer)


synthesize.defvjp(_synthesize_fwd, _synthesize_bwd)
analyze.defvjp(_analyze_fwd, _analyze_bwd)
correlate.defvjp(_correlate_fwd, _correlate_bwd)


def over_maps(bank: Callable[..., Array]) -> Callable[..., Array]:
    """Lift a filter of one map to ``[groups, examples, H, W, C]``, one transfer a group and C."""
    channels = jax.vmap(bank)
    examples = jax.vmap(channels, in_axes=(0, None))
    groups = jax.vmap(examples)

    def maps(x: Array, transfer: Array) -> Array:
        return _channels_last(groups(_channels_first(x), transfer))

    return maps


@jax.custom_vjp
def _channels_first(x: Float[Array, "m n H W C"]) -> Float[Array, "m n C H W"]:
    """The transforms want their axes last: one transposition here, none around each of them."""
    return materialised(jnp.moveaxis(materialised(x), -1, 2))


@jax.custom_vjp
def _channels_last(x: Float[Array, "m n C H W"]) -> Float[Array, "m n H W C"]:
    """Back again: the adjoint, as `_channels_first` is its."""
    return materialised(jnp.moveaxis(x, 2, -1))


def _channels_first_fwd(x: Array) -> tuple[Array, None]:
    return _channels_first(x), None


def _channels_first_bwd(_: None, x: Array) -> tuple[Array]:
    return (_channels_last(x),)


def _channels_last_fwd(x: Array) -> tuple[Array, None]:
    return _channels_last(x), None


def _channels_last_bwd(_: None, x: Array) -> tuple[Array]:
    return (_channels_first(x),)


_channels_first.defvjp(_channels_first_fwd, _channels_first_bwd)
_channels_last.defvjp(_channels_last_fwd, _channels_last_bwd)
