r"""The operator on groups of maps, local to a device, by each of the methods.

Four methods evaluate the filters of `_closed_form`, all exactly:

    fft     one real FFT of Y and one real inverse FFT of each phase, in place of three complex FFTs
            of the large map (`_bank`)
    dft     the transforms as products with folded DFT matrices (`_dft`): faster than an FFT library
            for maps of up to several hundred pixels a side, whatever their factors
    direct  for kernels no larger than the stride, where A A^T is diagonal: no transform (`_direct`)
    fused   `dft` as one kernel for NVIDIA GPUs, for maps of the size of training patches (`_fused`)
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from converse_jax.ops import _dft, _direct
from converse_jax.ops._bank import over_maps, synthesize
from converse_jax.ops._closed_form import half_spectrum, quadrants
from converse_jax.ops._layout import after, materialised
from converse_jax.ops._pad import crop_map, pad_map
from converse_jax.ops._partition import Backward, Fn, partitioned
from converse_jax.ops._parts import by_channels


@functools.cache
def apply_fft(scale: int, padding: int, mode: str) -> Fn:
    def local(x: Array, spectrum: Array) -> tuple[Array]:
        y = x.astype(spectrum.real.dtype)
        return (_filter_maps(y, spectrum, scale, padding, mode).astype(x.dtype),)

    return partitioned(local, ("m n h w c", "m c p q u k"), ("m n i j c",))


@functools.cache
def apply_dft(padding: int, mode: str) -> Fn:
    def whole(x: Array, *transfer: Array) -> Array:
        spectra = _dft.analyze(x.astype(transfer[0].dtype), 1, _dft.Padded(padding, mode))
        y = _dft.synthesize(_dft.mix(spectra, transfer), x.shape[2:4], _dft.Cropped(padding))
        return y.astype(x.dtype)

    def local(x: Array, *transfer: Array) -> tuple[Array]:
        return (by_channels(whole, x, *transfer, scale=transfer[0].shape[-2]),)

    return partitioned(local, ("m n h w c", *("m l q k p c",) * 4), ("m n i j c",))


@functools.cache
def _solve_fft(scale: int, padding: int, mode: str, x0: str) -> Fn:
    def local(x: Array, kernel: Array, lam: Array) -> tuple[Array]:
        dtype = compute_dtype(x)
        shape = (x.shape[2] + 2 * padding, x.shape[3] + 2 * padding)
        kernel = after(kernel.astype(dtype), x)
        spectrum = half_spectrum(kernel, lam.astype(dtype), shape, scale, x0)
        return (_filter_maps(x.astype(dtype), spectrum, scale, padding, mode).astype(x.dtype),)

    return partitioned(local, ("m n h w c", "m a b c", "m c"), ("m n i j c",))


@functools.cache
def _solve_dft(scale: int, padding: int, mode: str, x0: str) -> Fn:
    """The spectra of x are kept for the backward pass, not x: they take its place in memory."""
    padded, cropped = _dft.Padded(padding, mode), _dft.Cropped(padding)

    def filtered(
        spectra: _dft.Quadrants, kernel: Array, lam: Array, size: Any, first: Array
    ) -> Array:
        """Maps of s times the size from spectra of maps; `first` is there before the kernel's."""
        dtype = spectra[0].dtype
        height, width = size
        kernel = after(kernel.astype(dtype), first)
        whole = (height + 2 * padding, width + 2 * padding)
        transfer = quadrants(kernel, lam.astype(dtype), whole, scale, x0)
        if spectra[0].shape[1] > 1 or scale > 1:
            # Else it would be computed again for each example.
            transfer = jax.tree.map(materialised, transfer)
        return _dft.synthesize(_dft.mix(spectra, transfer), (height, width), cropped)

    def forward(x: Array, kernel: Array, lam: Array) -> tuple[Array, ...]:
        spectra = _dft.analyze(x.astype(compute_dtype(x)), 1, padded)
        return filtered(spectra, kernel, lam, x.shape[2:4], x).astype(x.dtype), *spectra

    def whole(x: Array, kernel: Array, lam: Array) -> Array:
        return forward(x, kernel, lam)[0]

    def local(x: Array, kernel: Array, lam: Array) -> tuple[Array]:
        return (by_channels(whole, x, kernel, lam, scale=scale),)

    def pullback(*args: Array) -> tuple[Array, ...]:
        *spectra, kernel, lam, cotangent = args
        size = (cotangent.shape[2] // scale, cotangent.shape[3] // scale)

        def result(spectra: _dft.Quadrants, kernel: Array, lam: Array) -> Array:
            return filtered(spectra, kernel, lam, size, cotangent)

        _, pull = jax.vjp(result, tuple(spectra), kernel, lam)
        spectra_bar, kernel_bar, lam_bar = pull(cotangent.astype(spectra[0].dtype))
        # Each of analysis and synthesis is the adjoint of the other, given the same matrices.
        x_bar = _dft.synthesize(spectra_bar, size, padded)
        return x_bar.astype(cotangent.dtype), kernel_bar, lam_bar

    inputs, spectra = ("m n h w c", "m a b c", "m c"), ("m n l q k p c",) * 4
    return partitioned(local, inputs, ("m n i j c",), Backward(spectra, forward, pullback))


@functools.cache
def _solve_direct(scale: int, padding: int, mode: str, x0: str) -> Fn:
    def local(x: Array, kernel: Array, lam: Array) -> tuple[Array]:
        dtype = compute_dtype(x)
        kernel, lam = kernel.astype(dtype), lam.astype(dtype)
        y = _direct.solve(x.astype(dtype), kernel, lam, scale, padding, mode, x0)
        return (y.astype(x.dtype),)

    return partitioned(local, ("m n h w c", "m a b c", "m c"), ("m n i j c",))


@functools.cache
def _solve_fused(scale: int, padding: int, mode: str, x0: str) -> Fn:
    from converse_jax.ops import _fused  # Pallas takes its time to load

    padded, cropped = _dft.Padded(padding, mode), _dft.Cropped(padding)

    def local(x: Array, kernel: Array, lam: Array) -> tuple[Array]:
        dtype = compute_dtype(x)
        whole = (x.shape[2] + 2 * padding, x.shape[3] + 2 * padding)
        kernel = after(kernel.astype(dtype), x)
        transfer = quadrants(kernel, lam.astype(dtype), whole, scale, x0)
        y = _fused.filter_maps(x.astype(dtype), transfer, padded, cropped)
        return (y.astype(x.dtype),)

    return partitioned(local, ("m n h w c", "m a b c", "m c"), ("m n i j c",))


SOLVERS = {
    "fft": _solve_fft,
    "dft": _solve_dft,
    "direct": _solve_direct,
    "fused": _solve_fused,
}


def _filter_maps(x: Array, spectrum: Array, scale: int, padding: int, mode: str) -> Array:
    def filter_map(y: Array, transfer: Array) -> Array:
        return crop_map(synthesize(pad_map(y, padding, mode), transfer), scale * padding)

    return over_maps(filter_map)(x, spectrum)


def compute_dtype(x: Array) -> Any:
    """float64 for float64, else float32: XLA's FFT has no half precision."""
    return jnp.promote_types(x.dtype, jnp.float32)
