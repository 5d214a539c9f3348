"""An experiment: the whole filter as one Pallas kernel for NVIDIA GPUs.

A map is read once and written once. No GPU has measured it yet, so it is no method of the library;
it needs the Triton backend of Pallas, which newer releases of JAX no longer have.

The equations are those of `_dft`. One program of the grid has one map: the four parts of it, even
and odd about its middle along each axis, stay on the chip, and so do those of the result. In
between the program goes through the spectrum, a block of it at a time:

    quadrants = A_rows part A_cols ,   mixed with the transfer function ,
    part of the result += S_rows quadrant S_cols .

A is `analysis_matrix` and S is `synthesis_matrix`, padding and cropping included. All
arrays have a power of two of elements, as Triton wants: matrices are padded with zeros, maps are
read and written under masks.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from converse_jax.ops._checks import compute_dtype
from converse_jax.ops._dft import Filter, analyze, correlate, transfer
from converse_jax.ops._dft_matrices import (
    Border,
    Cropped,
    Padded,
    analysis_matrix,
    synthesis_matrix,
)
from converse_jax.ops._function import Function, constant
from converse_jax.ops._memory import depends_on
from converse_jax.ops._options import Options

LONGEST = 128
"""Pixels on a side of a map, before padding, up to which it stays on the chip."""

_BLOCK = 16
"""Rows and columns of the spectrum at a time: the fewest that the matrix units take."""


@functools.cache
def solve(options: Options) -> Function:
    """`converse2d` on groups of maps in float32 of at most `LONGEST` pixels a side, at scale 1."""
    padded, cropped = Padded(options.padding, options.padding_mode), Cropped(options.padding)

    def local(x: Array, kernel: Array, lam: Array) -> Array:
        dtype = compute_dtype(x)
        kernel = depends_on(kernel.astype(dtype), x)
        filters = transfer(kernel, lam.astype(dtype), options.padded(*x.shape[2:4]), options)
        return filter_maps(x.astype(dtype), filters, padded, cropped).astype(x.dtype)

    labels = ("m n h w c", "m a b c", "m c"), "m n i j c"
    return Function(local, linear=(0,), labels=labels)


def filter_maps(
    x: Float[Array, "m n H W C"], transfer: Filter, before: Border, after: Border
) -> Float[Array, "m n H W C"]:
    """`synthesize(apply_filter(analyze(x, before), transfer), after)`, maps without phases.

    Elsewhere than on NVIDIA GPUs the kernel is interpreted: for tests.

    Args:
        x: maps, float32, of at most `LONGEST` pixels a side.
        transfer: `[m, L, 1, K, 1, C]` each.
        before: how a map is analyzed.
        after: how the result is synthesized.
    """
    return _filter_maps(before, after)(x, transfer)


@functools.cache
def _filter_maps(before: Border, after: Border) -> Function:
    def transposed(position: int, other: Any, y: Array) -> Any:
        if position == 0:
            even, mirror, down, across = other
            return filter_maps(y, (even, mirror, -down, -across), after, before)
        shape = other.shape[2:4]
        return correlate(analyze(other, shape, 1, before), analyze(y, shape, 1, after), 1)

    fn = functools.partial(_on_chip, before=before, after=after)
    return Function(fn, linear=(0, 1), transposed=transposed)


def _on_chip(x: Array, transfer: Filter, *, before: Border, after: Border) -> Array:
    args = (x, *_matrices(x.shape[2:4], before, after, x.dtype), *transfer)
    return jax.lax.platform_dependent(
        *args,
        # float32 on matrix units: three products of TF32, which keep 22 bits of each factor. In an
        # emulation the operator's errors were those of float32 products, within 8 %.
        cuda=functools.partial(_call, jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3, False),
        default=functools.partial(_call, jax.lax.Precision.HIGHEST, True),
    )


def _matrices(shape: tuple[int, ...], before: Border, after: Border, dtype: Any) -> list[Array]:
    """Analysis and synthesis, cosine and sine, of rows and of columns, padded with zeros."""
    height, width = shape
    matrix = functools.partial(constant, dtype=dtype)
    return [
        padded
        for sine in (False, True)
        for padded in (
            _padded(matrix(analysis_matrix, before, height, sine).T).T,
            _padded(matrix(analysis_matrix, before, width, sine).T),
            _padded(matrix(synthesis_matrix, after, height, sine)),
            _padded(matrix(synthesis_matrix, after, width, sine)).T,
        )
    ]


def _padded(matrix: Float[Array, "half K"]) -> Float[Array, "pixels frequencies"]:
    """To a power of two of pixels, and to whole blocks of frequencies."""
    pixels, frequencies = matrix.shape
    more = max(_BLOCK, pl.next_power_of_2(pixels)) - pixels
    return jnp.pad(matrix, [(0, more), (0, -frequencies % _BLOCK)])


def _call(precision: Any, interpret: bool, x: Array, *others: Array) -> Array:
    groups, examples, height, width, channels = x.shape
    # Few warps a map: a block is one product of theirs, and others hide the waiting for memory.
    warps = 2 if max(height, width) <= LONGEST // 2 else 8
    return pl.pallas_call(
        functools.partial(_kernel, precision, x.shape, others[-1].shape),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        # Neighboring channels share the sectors of memory that their pixels lie in.
        grid=(channels, examples, groups),
        interpret=interpret,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        name="converse2d",
    )(x, *others)


def _kernel(precision: Any, shape: Any, spectrum: Any, x_ref: Any, *refs: Any) -> None:
    cos, sin, filters, y_ref = refs[:4], refs[4:8], refs[8:12], refs[12]
    _, _, height, width, _ = shape
    _, columns, _, rows, _, _ = spectrum
    channel, example, group = (pl.program_id(axis) for axis in range(3))
    dot = functools.partial(jnp.dot, precision=precision, preferred_element_type=jnp.float32)

    def pixels(axis: int, size: int, padded: int) -> list[tuple[Array, Array]]:
        """Positions of the near and of the far half of an axis, and which of them exist."""
        n = jnp.arange(padded).reshape((-1, 1) if axis == 0 else (1, -1))
        inside = 2 * n + 1 <= size
        # The middle pixel of an odd axis is in both halves, and is read twice.
        # What does not exist lies beyond the map, and is neither read nor written.
        return [(jnp.where(inside, i, size + n), inside) for i in (n, size - 1 - n)]

    row_halves = pixels(0, height, cos[0].shape[1])
    column_halves = pixels(1, width, cos[1].shape[0])

    def read(row: tuple[Array, Array], column: tuple[Array, Array]) -> Array:
        at = x_ref.at[group, example, row[0], column[0], channel]
        return triton.load(at, mask=row[1] & column[1], other=0.0)

    (near, far), (left, right) = row_halves, column_halves
    above, below = read(near, left) + read(near, right), read(far, left) + read(far, right)
    above_odd, below_odd = read(near, left) - read(near, right), read(far, left) - read(far, right)
    parts = (above + below, above_odd + below_odd, above - below, above_odd - below_odd)
    kinds = ((cos, cos), (cos, sin), (sin, cos), (sin, sin))

    def read_filter(ref: Any, k: Array, column: Array) -> Array:
        exists = (k < rows) & (column < columns)
        return triton.load(ref.at[group, column, 0, k, 0, channel], mask=exists, other=0.0)

    def some_columns(j: Array, results: tuple[Array, ...]) -> tuple[Array, ...]:
        chosen = pl.ds(j * _BLOCK, _BLOCK)
        column = j * _BLOCK + jnp.arange(_BLOCK)[None, :]
        halves = [
            dot(part, of_columns[1][:, chosen])
            for part, (_, of_columns) in zip(parts, kinds, strict=True)
        ]

        def some_rows(i: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            chosen = pl.ds(i * _BLOCK, _BLOCK)
            k = i * _BLOCK + jnp.arange(_BLOCK)[:, None]
            cc, cs, sc, ss = (
                dot(of_rows[0][chosen, :], half)
                for half, (of_rows, _) in zip(halves, kinds, strict=True)
            )
            E, D, S, T = (read_filter(ref, k, column) for ref in filters)
            # The equations of `_dft`.
            quadrants = (
                E * cc - D * ss + T * cs + S * sc,
                E * cs + D * sc - T * cc + S * ss,
                E * sc + D * cs - S * cc + T * ss,
                E * ss - D * cc - S * cs - T * sc,
            )
            return tuple(
                total + dot(of_rows[2][:, chosen], quadrant)
                for total, quadrant, (of_rows, _) in zip(sums, quadrants, kinds, strict=True)
            )

        empty = (jnp.zeros_like(halves[0]),) * 4
        sums = jax.lax.fori_loop(0, pl.cdiv(rows, _BLOCK), some_rows, empty)
        return tuple(
            result + dot(total, of_columns[3][chosen, :])
            for result, total, (_, of_columns) in zip(results, sums, kinds, strict=True)
        )

    empty = (jnp.zeros_like(parts[0]),) * 4
    ee, eo, oe, oo = jax.lax.fori_loop(0, pl.cdiv(columns, _BLOCK), some_columns, empty)

    def write(row: tuple[Array, Array], column: tuple[Array, Array], value: Array) -> None:
        at = y_ref.at[group, example, row[0], column[0], channel]
        triton.store(at, value, mask=row[1] & column[1])

    write(near, left, ee + eo + oe + oo)
    write(near, right, ee - eo + oe - oo)
    write(far, left, ee + eo - oe - oo)
    write(far, right, ee - eo - oe + oo)
