r"""The filters as matrix products: the discrete Fourier transform, folded about the map's middle.

For maps of a few hundred pixels a matrix product does the transform faster than an FFT library:
nothing is transposed, since channels stay last, and padding and cropping are part of the matrices.

A map y is split along each axis into an even and an odd part about its middle,

    e[n] = y[n] + y[N-1-n] ,   o[n] = y[n] - y[N-1-n] ,   n < N / 2 .

A cosine sees the even part alone and a sine the odd one, so that half of each product is saved.
With angles counted from the middle of the map, w_k (n - (N-1)/2) with w_k = 2 pi k / N, the
spectrum at (+-k, +-l) is made of four real numbers, the *quadrants*

    cc = sum y cos cos ,  cs = sum y cos sin ,  sc = sum y sin cos ,  ss = sum y sin sin

(rows first), of which there are N^2 in all for k, l <= N / 2: as many as pixels. A circular filter
g mixes the four quadrants of one (k, l), by its own quadrants about its origin,

    cc' = E cc - D ss + T cs + S sc        E =  sum g cos cos     D = -sum g sin sin
    cs' = E cs + D sc - T cc + S ss        S = -sum g sin cos     T = -sum g cos sin
    sc' = E sc + D cs - S cc + T ss
    ss' = E ss - D cc - S cs - T sc

which is the complex product with its transfer function, sorted by parity: at (k, l) that is
(E + D) + i (S + T), at (k, -l) it is (E - D) + i (S - T). Counting from the middle costs nothing:
the shift of the result undoes that of the map. All padding modes are mirror images of themselves,
and so keep even parts even.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops._layout import materialised
from converse_jax.ops._otf import phase_dft, wave

Quadrants = tuple[Array, Array, Array, Array]
"""cc, cs, sc, ss, each ``[m, n, L, s, K, s, C]``: columns l and rows k, each with its phases.

In memory l and its phase come first, as the products leave it; the compiler sees to that.
"""

Filter = tuple[Array, Array, Array, Array]
"""E, D, S, T of the filters of the s*s phases, each ``[m, L, s, K, s, C]``."""

Spectrum = tuple[Array, Array, Array, Array]
"""Real and imaginary part at (k, l), real and imaginary part at (k, -l), as `Filter`."""

_EXACT = jax.lax.Precision.HIGHEST

# Taps of a kernel along a row up to which its spectrum is rather computed twice than stored.
_FEW = 9


@dataclass(frozen=True)
class Padded:
    """A map that is padded before its spectrum is taken."""

    padding: int
    mode: str

    def matrix(self, size: int, sine: bool, dtype: Any) -> Float[Array, "half K"]:
        """From half a map of `size` to the spectrum of the padded map."""
        half = jnp.arange((size + 1) // 2)
        mode = {"circular": "wrap", "replicate": "edge"}.get(self.mode, self.mode)
        outside = {"constant_values": -1} if mode == "constant" else {}
        source: Array = jnp.pad(jnp.arange(size), self.padding, mode=mode, **outside)
        copies = (half[:, None] == source).astype(dtype)
        waves = _waves(size + 2 * self.padding, sine, dtype)
        return jnp.dot(copies, waves, precision=_EXACT)


@dataclass(frozen=True)
class Cropped:
    """A map that is cropped from the inverse transform of its spectrum."""

    padding: int

    def matrix(self, size: int, sine: bool, dtype: Any) -> Float[Array, "half K"]:
        """From the spectrum of the padded map back to half a map of `size`."""
        whole = size + 2 * self.padding
        k = jnp.arange(whole // 2 + 1)
        # All frequencies but these stand for their mirror image as well.
        weights = jnp.where((k == 0) | (2 * k == whole), 1, 2).astype(dtype) / whole
        kept = slice(self.padding, self.padding + (size + 1) // 2)
        return weights * _waves(whole, sine, dtype)[kept]


Border = Padded | Cropped


def _in_memory(q: Float[Array, "m n L s K s C"]) -> Float[Array, "L s m n K s C"]:
    """A quadrant in the order in which it lies in memory."""
    return jnp.moveaxis(q, (2, 3), (0, 1))


def _from_memory(q: Float[Array, "L s m n K s C"]) -> Float[Array, "m n L s K s C"]:
    return jnp.moveaxis(q, (0, 1), (2, 3))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def analyze(x: Float[Array, "m n sH sW C"], scale: int, border: Border) -> Quadrants:
    """Quadrants of the spectra of the s*s phases of maps: the adjoint of `synthesize`."""
    m, n, tall, wide, channels = x.shape
    height, width = tall // scale, wide // scale
    phases = x.reshape(m * n, height, scale, width, scale, channels)

    def along_columns(half: Float[Array, "b K i W j c"]) -> list[Float[Array, "L j b K i c"]]:
        parts = _fold(half.transpose(3, 4, 0, 1, 2, 5), 0)
        return [
            _product(gathering(border, width, sine, x.dtype), part)
            for sine, part in zip((False, True), parts, strict=True)
        ]

    quadrants = [
        _from_memory(quadrant.reshape(*quadrant.shape[:2], m, n, *quadrant.shape[3:]))
        for sine, part in zip((False, True), _fold(phases, 1), strict=True)
        for quadrant in along_columns(_product_each(gathering(border, height, sine, x.dtype), part))
    ]
    cc, cs, sc, ss = quadrants
    return cc, cs, sc, ss


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def synthesize(
    quadrants: Quadrants, shape: tuple[int, int], border: Border
) -> Float[Array, "m n sH sW C"]:
    """Maps of s times the `shape` from the quadrants of their phases."""
    m, n, _, scale, _, _, channels = quadrants[0].shape
    height, width = shape
    dtype = quadrants[0].dtype
    cc, cs, sc, ss = (_in_memory(q).reshape(*q.shape[2:4], m * n, *q.shape[4:]) for q in quadrants)

    def along_columns(even: Array, odd: Array) -> Float[Array, "b K i W j c"]:
        even, odd = (
            _product(border.matrix(width, sine, dtype), part)
            for sine, part in ((False, even), (True, odd))
        )
        # In this order the phases lie interleaved once the rows are there.
        return materialised(_unfold(even, odd, width, 0).transpose(2, 3, 4, 0, 1, 5))

    even, odd = (
        _product_each(border.matrix(height, sine, dtype), half)
        for sine, half in ((False, along_columns(cc, cs)), (True, along_columns(sc, ss)))
    )
    return _unfold(even, odd, height, 1).reshape(m, n, scale * height, scale * width, channels)


def _analyze_fwd(x: Array, scale: int, border: Border) -> tuple[Quadrants, Array]:
    # Its size is all that is needed.
    return analyze(x, scale, border), jnp.zeros((*x.shape[2:4], 0), x.dtype)


def _analyze_bwd(scale: int, border: Border, x: Array, quadrants: Quadrants) -> tuple[Array]:
    return (synthesize(quadrants, (x.shape[0] // scale, x.shape[1] // scale), border),)


def _synthesize_fwd(
    quadrants: Quadrants, shape: tuple[int, int], border: Border
) -> tuple[Array, None]:
    return synthesize(quadrants, shape, border), None


def _synthesize_bwd(shape: tuple[int, int], border: Border, _: None, x: Array) -> tuple[Quadrants]:
    return (analyze(x, x.shape[2] // shape[0], border),)


analyze.defvjp(_analyze_fwd, _analyze_bwd)
synthesize.defvjp(_synthesize_fwd, _synthesize_bwd)


def mixed(quadrants: Quadrants, transfer: Filter) -> Quadrants:
    """The equations at the top of this file, for arrays that broadcast against each other."""
    even, mirror, down, across = transfer
    cc, cs, sc, ss = quadrants
    return (
        even * cc - mirror * ss + across * cs + down * sc,
        even * cs + mirror * sc - across * cc + down * ss,
        even * sc + mirror * cs - down * cc + across * ss,
        even * ss - mirror * cc - down * cs - across * sc,
    )


@jax.custom_vjp
def mix(quadrants: Quadrants, transfer: Filter) -> Quadrants:
    """Quadrants of the s*s phases of the filtered maps, from those of maps without phases."""
    even, mirror, down, across = (t[:, None] for t in transfer)
    found = mixed(quadrants, (even, mirror, down, across))
    cc, cs, sc, ss = (_from_memory(materialised(_in_memory(q))) for q in found)
    return cc, cs, sc, ss


def unmix(quadrants: Quadrants, transfer: Filter, scale: int) -> Quadrants:
    """The adjoint of `mix` in its quadrants, for maps of `scale` x `scale` phases."""
    even, mirror, down, across = transfer
    phases = mix(quadrants, (even, mirror, -down, -across))
    if scale == quadrants[0].shape[-2]:
        return phases
    cc, cs, sc, ss = (over_phases(q) for q in phases)
    return cc, cs, sc, ss


@jax.custom_vjp
def correlate(before: Quadrants, after: Quadrants) -> Filter:
    """The adjoint of `mix` in its transfer: ``<after, mix(before, t)> = <correlate, t>``."""

    def of_one(before: Quadrants, after: Quadrants) -> Filter:
        cc, cs, sc, ss = before
        cc1, cs1, sc1, ss1 = after
        return (
            cc1 * cc + cs1 * cs + sc1 * sc + ss1 * ss,
            cs1 * sc + sc1 * cs - cc1 * ss - ss1 * cc,
            cc1 * sc + cs1 * ss - sc1 * cc - ss1 * cs,
            cc1 * cs + sc1 * ss - cs1 * cc - ss1 * sc,
        )

    def reduced(before: Quadrants, after: Quadrants) -> Filter:
        even, mirror, down, across = (jnp.sum(t, 1) for t in of_one(before, after))
        return even, mirror, down, across

    def accumulated(before: Quadrants, after: Quadrants) -> Filter:
        # XLA's CPU backend reduces these products ten times slower than it adds them up.
        # They are handed to the loop in the order in which they lie in memory.
        arrays = jax.tree.map(_in_memory, (before, after))

        def add(i: Array, total: Filter) -> Filter:
            one = jax.tree.map(
                lambda q: jax.lax.dynamic_index_in_dim(q, i, 3, keepdims=False), arrays
            )
            return jax.tree.map(jnp.add, total, of_one(*one))

        zero = jax.tree.map(lambda q: jnp.zeros_like(q[:, :, :, 0]), arrays[1])
        total = jax.lax.fori_loop(0, before[0].shape[1], add, zero)
        even, mirror, down, across = (jnp.moveaxis(t, 2, 0) for t in total)
        return even, mirror, down, across

    if before[0].shape[1] == 1:
        return reduced(before, after)
    return jax.lax.platform_dependent(before, after, cpu=accumulated, default=reduced)


def _mix_fwd(quadrants: Quadrants, transfer: Filter) -> tuple[Quadrants, Any]:
    return mix(quadrants, transfer), (quadrants, transfer)


def _mix_bwd(kept: Any, after: Quadrants) -> tuple[Quadrants, Filter]:
    quadrants, transfer = kept
    return unmix(after, transfer, quadrants[0].shape[-2]), correlate(quadrants, after)


def _correlate_fwd(before: Quadrants, after: Quadrants) -> tuple[Filter, Any]:
    return correlate(before, after), (before, after)


def _correlate_bwd(kept: Any, transfer: Filter) -> tuple[Quadrants, Quadrants]:
    before, after = kept
    return unmix(after, transfer, before[0].shape[-2]), mix(before, transfer)


mix.defvjp(_mix_fwd, _mix_bwd)
correlate.defvjp(_correlate_fwd, _correlate_bwd)


def quadrant_otf(kernel: Float[Array, "m kh kw C"], shape: tuple[int, int], scale: int) -> Spectrum:
    """Transfer functions of the phases of a kernel."""
    m, kh, kw, channels = kernel.shape
    (rows_re, rows_im), (cols_re, cols_im) = (
        # [K, s, taps]
        (part.transpose(1, 0, 2) for part in phase_dft(size, taps, scale, True, kernel.dtype))
        for size, taps in zip(shape, (kh, kw), strict=True)
    )

    def along_columns(columns: Array, half: Float[Array, "kw m K i c"]) -> Array:
        parts = _small_product(columns.reshape(-1, kw), half)
        parts = parts.reshape(*columns.shape[:2], *half.shape[1:])
        return parts.transpose(2, 0, 1, 3, 4, 5)  # [m, L, j, K, i, c]

    def products(rows: Array) -> tuple[Array, Array]:
        half = _product(rows.reshape(-1, kh), jnp.moveaxis(kernel, 1, 0))
        half = jnp.moveaxis(half.reshape(*rows.shape[:2], m, kw, channels), (3, 2), (0, 1))
        return along_columns(cols_re, half), along_columns(cols_im, half)

    (rr, ri), (ir, ii) = products(rows_re), products(rows_im)
    return rr - ii, ir + ri, rr + ii, ir - ri


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _over_phases(x: Array, scale: int) -> Array:
    # Written out: XLA's CPU backend reduces over these axes several times slower than it adds.
    if scale > 4:
        return jnp.sum(x, (-4, -2), keepdims=True)
    phases = (
        x[..., j : j + 1, :, i : i + 1, :] for j, i in itertools.product(range(scale), repeat=2)
    )
    return materialised(functools.reduce(jnp.add, phases))


def _over_phases_fwd(x: Array, scale: int) -> tuple[Array, None]:
    return _over_phases(x, scale), None


def _over_phases_bwd(scale: int, _: None, total: Array) -> tuple[Array]:
    shape = (*total.shape[:-4], scale, total.shape[-3], scale, total.shape[-1])
    return (jnp.broadcast_to(total, shape),)


_over_phases.defvjp(_over_phases_fwd, _over_phases_bwd)


def over_phases(x: Float[Array, "*rest s K s C"]) -> Float[Array, "*rest 1 K 1 C"]:
    """The sum over the phases."""
    return x if x.shape[-2] == 1 else _over_phases(x, x.shape[-2])


def filter_of(spectrum: Spectrum) -> Filter:
    """E, D, S and T of filters from their transfer functions."""
    plus_re, plus_im, minus_re, minus_im = spectrum
    return (
        (plus_re + minus_re) / 2,
        (plus_re - minus_re) / 2,
        (plus_im + minus_im) / 2,
        (plus_im - minus_im) / 2,
    )


@jax.custom_vjp
def _product(matrix: Float[Array, "k h"], x: Float[Array, "h ..."]) -> Float[Array, "k ..."]:
    # Not `einsum`: it would put the larger operand first, and transpose it, as JAX's own rule for
    # the gradient does.
    return jax.lax.dot_general(matrix, x, (((1,), (0,)), ((), ())), precision=_EXACT)


def _product_fwd(matrix: Array, x: Array) -> tuple[Array, Array]:
    return _product(matrix, x), matrix


def _product_bwd(matrix: Array, y: Array) -> tuple[None, Array]:
    # The matrices are constants: they are not differentiated.
    return None, _product(matrix.T, y)


_product.defvjp(_product_fwd, _product_bwd)


@jax.custom_vjp
def _small_product(matrix: Float[Array, "k h"], x: Float[Array, "h ..."]) -> Float[Array, "k ..."]:
    """`_product` for few h, written as a sum: computed where it is used, it takes no memory."""
    if x.shape[0] > _FEW:
        return _product(matrix, x)
    columns = matrix.reshape(*matrix.shape, *(1,) * (x.ndim - 1))
    return functools.reduce(jnp.add, (columns[:, i] * x[i] for i in range(x.shape[0])))


def _small_product_fwd(matrix: Array, x: Array) -> tuple[Array, Array]:
    return _small_product(matrix, x), matrix


_small_product.defvjp(_small_product_fwd, _product_bwd)


def _product_each(
    matrix: Float[Array, "k h"], x: Float[Array, "b h *rest"]
) -> Float[Array, "b k *rest"]:
    """The product for each example. With matrices of their own nothing is transposed."""
    matrices = jnp.broadcast_to(matrix, (x.shape[0], *matrix.shape))
    return jax.lax.dot_general(matrices, x, (((2,), (1,)), ((0,), (0,))), precision=_EXACT)


def gathering(border: Border, size: int, sine: bool, dtype: Any) -> Float[Array, "K half"]:
    """From the even or odd part of a map to its spectrum."""
    matrix = border.matrix(size, sine, dtype)
    # The middle pixel of an odd axis is counted twice in its even part.
    twice = 2 * jnp.arange((size + 1) // 2) + 1 == size
    return (matrix * jnp.where(twice, 0.5, 1).astype(dtype)[:, None]).T


def _fold(x: Array, axis: int) -> tuple[Array, Array]:
    """Even and odd part about the middle, the middle pixel of an odd axis counted twice."""
    size = x.shape[axis]
    half = (size + 1) // 2
    near = jax.lax.slice_in_dim(x, 0, half, axis=axis)
    far = jnp.flip(jax.lax.slice_in_dim(x, size - half, size, axis=axis), axis)
    return materialised(near + far), materialised(near - far)


def _unfold(even: Array, odd: Array, size: int, axis: int) -> Array:
    """A map of `size` from its even and odd part."""
    far = jax.lax.slice_in_dim(even - odd, 0, size // 2, axis=axis)
    return jnp.concatenate([even + odd, jnp.flip(far, axis)], axis)


def _waves(size: int, sine: bool, dtype: Any) -> Float[Array, "N K"]:
    """Cosine or sine of ``2 pi k (n - (N-1)/2) / N``, k <= N / 2."""
    n, k = jnp.arange(size)[:, None], jnp.arange(size // 2 + 1)
    cos, minus_sin = wave((2 * n - size + 1) * k % (2 * size), 2 * size, dtype)
    return -minus_sin if sine else cos
