r"""The method "dft": the Fourier transform as matrix products, folded about the map's middle.

Up to a few hundred pixels a side on CPUs, and a hundred on GPUs, products are as fast as an FFT:
nothing is transposed, since channels stay last, and padding and cropping are part of the matrices
(`_dft_matrices`).

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
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops._checks import compute_dtype
from converse_jax.ops._closed_form import closed_form
from converse_jax.ops._constant import constant
from converse_jax.ops._dft_matrices import (
    Border,
    Cropped,
    Padded,
    analysis_matrix,
    fold,
    product,
    product_each,
    synthesis_matrix,
    unfold,
)
from converse_jax.ops._function import (
    Function,
    adjoint_pair,
    linear_pair,
    of_active,
    trilinear,
)
from converse_jax.ops._memory import depends_on, in_channel_chunks, row_major
from converse_jax.ops._options import Options
from converse_jax.ops._otf import phase_dft

Quadrants = tuple[Array, ...]
"""cc, cs, sc, ss, each `[m, n, L, s, K, s, C]`: columns l and rows k, each with its phases.

In memory l and its phase come first, as the products leave it; the compiler sees to that.
"""

Filter = tuple[Array, ...]
"""E, D, S, T of the filters of the s*s phases, each `[m, L, s, K, s, C]`."""

TRANSFER = ("m l q k p c",) * 4
TRANSFER_OF_ARRAY = TRANSFER * 2
"""Labels (see `Function`) of what `transfer` returns, and for X0 = "array"."""

_SPECTRA = ("m n l q k p c",) * 4
_INPUTS, _OUTPUT = ("m n h w c", "m a b c", "m c"), "m n i j c"


def transfer(
    kernel: Float[Array, "m kh kw C"],
    lam: Float[Array, "m C"],
    shape: tuple[int, int],
    options: Options,
) -> Filter:
    """E, D, S and T of the filters of the s*s phases, for padded maps of this shape.

    For X0 = "array" they are followed by those of the adjoint of the blur.
    """
    plus, minus = quadrant_otf(kernel, shape, options.scale)
    lam = lam[:, None, None, None, None]
    solution = [closed_form(*otf, lam, options.x0, over_phases) for otf in (plus, minus)]
    filters = _by_parity(*solution)
    if options.x0 == "array":
        filters += _by_parity(*((re, -im) for re, im in (plus, minus)))
    return filters


def _by_parity(plus: tuple[Array, Array], minus: tuple[Array, Array]) -> Filter:
    """E, D, S and T of filters, from real and imaginary part at (k, l) and (k, -l)."""
    (plus_re, plus_im), (minus_re, minus_im) = plus, minus
    return (
        (plus_re + minus_re) / 2,
        (plus_re - minus_re) / 2,
        (plus_im + minus_im) / 2,
        (plus_im - minus_im) / 2,
    )


def apply(
    x: Float[Array, "m n H W C"],
    filters: Filter,
    options: Options,
    x0: Float[Array, "m n sH sW C"] | None = None,
) -> Float[Array, "m n sH sW C"]:
    """Filter groups of maps, given `transfer`."""
    padded, cropped = _borders(options)
    size, scale = x.shape[2:4], options.scale
    if x0 is not None:
        blurred = apply_filter_adjoint(analyze(x0, size, scale, padded), filters[4:], 1)
        rest = jax.tree.map(jnp.subtract, analyze(x, size, 1, padded), blurred)
        return x0 + synthesize(apply_filter(rest, filters[:4], 1), size, scale, cropped)

    def filter_maps(x: Array, *filters: Array) -> Array:
        spectra = apply_filter(analyze(x, x.shape[2:4], 1, padded), filters, 1)
        return synthesize(spectra, x.shape[2:4], options.scale, cropped)

    return in_channel_chunks(filter_maps, x, *filters, scale=options.scale)


class Solver(Function):
    """`converse2d` on groups of maps. Its backward pass keeps the spectra of x instead of x."""

    def __init__(self, options: Options) -> None:
        self.options = options
        padded, cropped = _borders(options)
        self.analyze = lambda x: analyze(x.astype(compute_dtype(x)), x.shape[2:4], 1, padded)
        self.synthesize = lambda spectra, size: synthesize(spectra, size, options.scale, cropped)
        super().__init__(
            lambda *args: in_channel_chunks(self._result, *args, scale=options.scale),
            linear=(0,),
            derive=self._result,
            labels=(_INPUTS, _OUTPUT),
        )
        self._forward = Function(self._with_spectra, labels=(_INPUTS, (_OUTPUT, _SPECTRA)))

    def linearized(self, active: tuple[int, ...], args: tuple[Array, ...]) -> tuple[Any, Function]:
        """See `Function`; the residuals are the spectra of x, the kernel and lambda."""

        def forward(x: Array, kernel: Array, lam: Array) -> tuple[Array, tuple[Any, ...]]:
            result, spectra = self._forward(x, kernel, lam)
            return result, (spectra, kernel, lam)

        size, dtype = args[0].shape[2:4], args[0].dtype
        return forward, self.once((active, size, dtype), lambda: self._along(active, size, dtype))

    def _along(self, active: tuple[int, ...], size: tuple[int, ...], dtype: Any) -> Function:
        def of_spectra(kept: tuple[Any, ...], first: Array) -> Any:
            """The result as a function of what is active, with spectra in place of x."""

            def result(spectra: Quadrants, kernel: Array, lam: Array) -> Array:
                return self._of_spectra(spectra, kernel, lam, size, first)

            return of_active(result, active, kept)

        def along(kept: tuple[Any, ...], tangents: tuple[Array, ...]) -> Array:
            result, primals = of_spectra(kept, tangents[0])
            directions = (
                self.analyze(t) if i == 0 else t for i, t in zip(active, tangents, strict=True)
            )
            return jax.jvp(result, primals, tuple(directions))[1].astype(dtype)

        def back(kept: tuple[Any, ...], cotangent: Array) -> tuple[Array, ...]:
            result, primals = of_spectra(kept, cotangent)
            cotangents = jax.vjp(result, *primals)[1](cotangent.astype(kept[0][0].dtype))
            # Analysis and synthesis are each other's adjoint, given the same matrices.
            padded, _ = _borders(self.options)
            return tuple(
                synthesize(value, size, 1, padded).astype(dtype) if i == 0 else value
                for i, value in zip(active, cotangents, strict=True)
            )

        of_tangents = tuple(_INPUTS[i] for i in active)
        return linear_pair(along, back, ((_SPECTRA, *_INPUTS[1:]), of_tangents, _OUTPUT))[0]

    def _result(self, x: Array, kernel: Array, lam: Array) -> Array:
        return self._with_spectra(x, kernel, lam)[0]

    def _with_spectra(self, x: Array, kernel: Array, lam: Array) -> tuple[Array, Quadrants]:
        spectra = self.analyze(x)
        return self._of_spectra(spectra, kernel, lam, x.shape[2:4], x).astype(x.dtype), spectra

    def _of_spectra(
        self, spectra: Quadrants, kernel: Array, lam: Array, size: tuple[int, ...], first: Array
    ) -> Array:
        """The result for maps of this size. The kernel's spectrum is scheduled after `first`."""
        dtype = spectra[0].dtype
        kernel = depends_on(kernel.astype(dtype), first)
        filters = transfer(kernel, lam.astype(dtype), self.options.padded(*size), self.options)
        if self.options.scale > 1 or not _at_most_one(spectra[0].shape[1]):
            # Else it would be computed again for each example.
            filters = tuple(map(row_major, filters))
        return self.synthesize(apply_filter(spectra, filters, 1), size)


def _at_most_one(size: Any) -> bool:
    """Whether a size, which may be symbolic, is known to be 0 or 1."""
    return isinstance(size, int) and size <= 1


def _borders(options: Options) -> tuple[Padded, Cropped]:
    return Padded(options.padding, options.padding_mode), Cropped(options.padding)


def _in_memory(q: Float[Array, "m n L s K s C"]) -> Float[Array, "L s m n K s C"]:
    """A quadrant in the order in which it lies in memory."""
    return jnp.moveaxis(q, (2, 3), (0, 1))


def _from_memory(q: Float[Array, "L s m n K s C"]) -> Float[Array, "m n L s K s C"]:
    return jnp.moveaxis(q, (0, 1), (2, 3))


def _analyze(
    x: Float[Array, "m n sH sW C"], shape: tuple[int, int], scale: int, border: Border
) -> Quadrants:
    """Quadrants of the spectra of the s*s phases, of the `shape`, of maps."""
    m, n, *_, channels = x.shape
    row_cos, row_sin, col_cos, col_sin = (
        constant(analysis_matrix, border, size, sine, dtype=x.dtype)
        for size in shape
        for sine in (False, True)
    )

    def along_columns(half: Float[Array, "b K i W j c"]) -> list[Float[Array, "L j b K i c"]]:
        even, odd = fold(half.transpose(3, 4, 0, 1, 2, 5), 0)
        return [product(col_cos, even), product(col_sin, odd)]

    phases = x.reshape(m * n, shape[0], scale, shape[1], scale, channels)
    even, odd = fold(phases, 1)
    quadrants = along_columns(product_each(row_cos, even))
    quadrants += along_columns(product_each(row_sin, odd))
    return tuple(_from_memory(q.reshape(*q.shape[:2], m, n, *q.shape[3:])) for q in quadrants)


def _synthesize(
    quadrants: Quadrants, shape: tuple[int, int], scale: int, border: Border
) -> Float[Array, "m n sH sW C"]:
    """Maps of s times the `shape` from the quadrants of their phases."""
    m, n, *_, channels = quadrants[0].shape
    height, width = shape
    row_cos, row_sin, col_cos, col_sin = (
        constant(synthesis_matrix, border, size, sine, dtype=quadrants[0].dtype)
        for size in shape
        for sine in (False, True)
    )

    def along_columns(even: Array, odd: Array) -> Float[Array, "b K i W j c"]:
        even, odd = product(col_cos, even), product(col_sin, odd)
        # In this order the phases lie interleaved once the rows are there.
        return row_major(unfold(even, odd, width, 0).transpose(2, 3, 4, 0, 1, 5))

    cc, cs, sc, ss = (_in_memory(q).reshape(*q.shape[2:4], m * n, *q.shape[4:]) for q in quadrants)
    even = product_each(row_cos, along_columns(cc, cs))
    odd = product_each(row_sin, along_columns(sc, ss))
    return unfold(even, odd, height, 1).reshape(m, n, scale * height, scale * width, channels)


analyze, synthesize = adjoint_pair(_analyze, _synthesize)


def _apply_filter(quadrants: Quadrants, transfer: Filter, phases: int) -> Quadrants:
    """Quadrants of the s*s phases of the filtered maps, by the equations at the top of this file.

    `phases` is the scale of the quadrants given: 1, where the filters have s*s phases, or s.
    """
    E, D, S, T = (t[:, None] for t in transfer)
    cc, cs, sc, ss = quadrants
    filtered = (
        E * cc - D * ss + T * cs + S * sc,
        E * cs + D * sc - T * cc + S * ss,
        E * sc + D * cs - S * cc + T * ss,
        E * ss - D * cc - S * cs - T * sc,
    )
    return tuple(_from_memory(row_major(_in_memory(q))) for q in filtered)


def _apply_filter_adjoint(quadrants: Quadrants, transfer: Filter, phases: int) -> Quadrants:
    """The adjoint of `apply_filter` in its quadrants: the same with the conjugate filters."""
    E, D, S, T = transfer
    filtered = apply_filter(quadrants, (E, D, -S, -T), phases)
    if phases == quadrants[0].shape[-2]:
        return filtered
    return tuple(over_phases(q) for q in filtered)


def _correlate(inputs: Quadrants, cotangents: Quadrants, phases: int) -> Filter:
    """The adjoint of `apply_filter` in its filters t: `<q, apply_filter(p, t)> = <., t>`."""

    def of_one(inputs: Quadrants, cotangents: Quadrants) -> Filter:
        cc, cs, sc, ss = inputs
        cc1, cs1, sc1, ss1 = cotangents
        return (
            cc1 * cc + cs1 * cs + sc1 * sc + ss1 * ss,
            cs1 * sc + sc1 * cs - cc1 * ss - ss1 * cc,
            cc1 * sc + cs1 * ss - sc1 * cc - ss1 * cs,
            cc1 * cs + sc1 * ss - cs1 * cc - ss1 * sc,
        )

    def reduced(inputs: Quadrants, cotangents: Quadrants) -> Filter:
        return tuple(jnp.sum(t, 1) for t in of_one(inputs, cotangents))

    def accumulated(inputs: Quadrants, cotangents: Quadrants) -> Filter:
        # XLA's CPU backend reduces these products ten times slower than it adds them up.
        # They are handed to the loop in the order in which they lie in memory.
        arrays = jax.tree.map(_in_memory, (inputs, cotangents))

        def add(i: Array, total: Filter) -> Filter:
            example = functools.partial(
                jax.lax.dynamic_index_in_dim, index=i, axis=3, keepdims=False
            )
            return jax.tree.map(jnp.add, total, of_one(*jax.tree.map(example, arrays)))

        zero = tuple(jnp.zeros_like(q[:, :, :, 0]) for q in arrays[1])
        total = jax.lax.fori_loop(0, inputs[0].shape[1], add, zero)
        return tuple(jnp.moveaxis(t, 2, 0) for t in total)

    if _at_most_one(inputs[0].shape[1]):
        return reduced(inputs, cotangents)
    return jax.lax.platform_dependent(inputs, cotangents, cpu=accumulated, default=reduced)


apply_filter, apply_filter_adjoint, correlate = trilinear(
    _apply_filter, _apply_filter_adjoint, _correlate
)


def quadrant_otf(
    kernel: Float[Array, "m kh kw C"], shape: tuple[int, int], scale: int
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Transfer functions of the phases of a kernel at (k, l) and (k, -l): real, imaginary part."""
    m, kh, kw, channels = kernel.shape
    rows_cos, rows_sin, cols_cos, cols_sin = (  # [K, s, taps]
        constant(phase_dft, size, taps, scale, True, sine, dtype=kernel.dtype).transpose(1, 0, 2)
        for size, taps in zip(shape, (kh, kw), strict=True)
        for sine in (False, True)
    )
    # Complex products as real ones of twice the depth, each written once: for each column of the
    # kernel, its sums with the cosines of the rows, and with their sines.
    rows = jnp.stack([rows_cos, rows_sin])
    half = product(rows.reshape(-1, kh), jnp.moveaxis(kernel, 1, 0))
    half = half.reshape(*rows.shape[:3], m, kw, channels).transpose(0, 4, 3, 1, 2, 5)
    half = half.reshape(2 * kw, *half.shape[2:])  # [2 kw, m, K, i, c]

    def along_columns(of_cos: Array, of_sin: Array) -> Array:
        columns = jnp.concatenate([of_cos, of_sin], -1)
        parts = product(columns.reshape(-1, 2 * kw), half)
        parts = parts.reshape(*columns.shape[:2], *half.shape[1:])
        return parts.transpose(2, 0, 1, 3, 4, 5)  # [m, L, j, K, i, c]

    # exp(-i (w_k + w_l)) and exp(-i (w_k - w_l)), from the cosine and the sine of w_k.
    plus = along_columns(cols_cos, -cols_sin), along_columns(-cols_sin, -cols_cos)
    minus = along_columns(cols_cos, cols_sin), along_columns(cols_sin, -cols_cos)
    return plus, minus


def _sum_phases(x: Array, scale: int) -> Array:
    # Written out: XLA's CPU backend reduces over these axes several times slower than it adds.
    if scale > 4:
        return jnp.sum(x, (-4, -2), keepdims=True)
    phases = (
        x[..., j : j + 1, :, i : i + 1, :] for j, i in itertools.product(range(scale), repeat=2)
    )
    return row_major(functools.reduce(jnp.add, phases))


def _repeat_phases(x: Array, scale: int) -> Array:
    return jnp.broadcast_to(x, (*x.shape[:-4], scale, x.shape[-3], scale, x.shape[-1]))


sum_phases, repeat_phases = adjoint_pair(_sum_phases, _repeat_phases)


def over_phases(x: Float[Array, "*rest s K s C"]) -> Float[Array, "*rest 1 K 1 C"]:
    """The sum over the phases."""
    return x if x.shape[-2] == 1 else sum_phases(x, x.shape[-2])
