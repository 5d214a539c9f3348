"""The discrete Fourier transform about the middle of a map as small matrices, and their products.

Padding before the transform and cropping after its inverse are part of the matrices.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from converse_jax.ops._function import Function
from converse_jax.ops._memory import row_major
from converse_jax.ops._otf import wave

_HIGHEST = jax.lax.Precision.HIGHEST


@dataclass(frozen=True)
class Padded:
    """A map that is padded before its spectrum is taken."""

    padding: int
    mode: str

    def matrix(self, size: int, sine: bool, xp: Any) -> Any:
        """From half a map of `size` to the spectrum of the padded map: `[half, K]`."""
        i, last = xp.arange(size + 2 * self.padding) - self.padding, size - 1
        source = {
            "circular": i % size,
            "replicate": xp.clip(i, 0, last),
            "reflect": last - abs(last - abs(i)),
            "constant": i,  # no pixel of the map, outside of it
        }[self.mode]
        copies = xp.arange((size + 1) // 2)[:, None] == source[None]
        return copies.astype(float) @ _waves(size + 2 * self.padding, sine, xp)


@dataclass(frozen=True)
class Cropped:
    """A map that is cropped from the inverse transform of its spectrum."""

    padding: int

    def matrix(self, size: int, sine: bool, xp: Any) -> Any:
        """From the spectrum of the padded map back to half a map of `size`: `[half, K]`."""
        whole = size + 2 * self.padding
        k = xp.arange(whole // 2 + 1)
        # All frequencies but these stand for their mirror image as well.
        weights = xp.where((k == 0) | (2 * k == whole), 1.0, 2.0) / whole
        return (
            weights[None] * _waves(whole, sine, xp)[self.padding : self.padding + (size + 1) // 2]
        )


Border = Padded | Cropped


def synthesis_matrix(border: Border, size: int, sine: bool, *, xp: Any = np) -> Any:
    """From a spectrum to the even or odd part of a map: `[half, K]`."""
    return border.matrix(size, sine, xp)


def analysis_matrix(border: Border, size: int, sine: bool, *, xp: Any = np) -> Any:
    """From the even or odd part of a map to its spectrum: `[K, half]`."""
    # The middle pixel of an odd axis is counted twice in its even part.
    twice = 2 * xp.arange((size + 1) // 2) + 1 == size
    return (border.matrix(size, sine, xp) * xp.where(twice, 0.5, 1.0)[:, None]).T


def _waves(size: int, sine: bool, xp: Any) -> Any:
    """Cosine or sine of `2 pi k (n - (N-1)/2) / N`, k <= N / 2: `[N, K]`."""
    n, k = xp.arange(size)[:, None], xp.arange(size // 2 + 1)[None]
    return wave((2 * n - size + 1) * k, 2 * size, sine=sine, xp=xp)


def fold(x: Array, axis: int) -> tuple[Array, Array]:
    """Even and odd part about the middle, the middle pixel of an odd axis counted twice."""
    size = x.shape[axis]
    half = (size + 1) // 2
    near = jax.lax.slice_in_dim(x, 0, half, axis=axis)
    far = jnp.flip(jax.lax.slice_in_dim(x, size - half, size, axis=axis), axis)
    return row_major(near + far), row_major(near - far)


def unfold(even: Array, odd: Array, size: int, axis: int) -> Array:
    """A map of `size` from its even and odd part."""
    far = jax.lax.slice_in_dim(even - odd, 0, size // 2, axis=axis)
    return jnp.concatenate([even + odd, jnp.flip(far, axis)], axis)


def product(matrix: Float[Array, "k h"], x: Float[Array, "h ..."]) -> Float[Array, "k ..."]:
    """`matrix @ x` over the first axis of x; the gradient in x is `matrix.T @ y`."""
    return _product(matrix, x)


@functools.partial(Function, linear=(1,), transposed=lambda _, matrix, y: product(matrix.T, y))
def _product(matrix: Array, x: Array) -> Array:
    # Not `einsum`: it would put the larger operand first, and transpose it, as JAX's own rule for
    # the gradient does.
    return jax.lax.dot_general(matrix, x, (((1,), (0,)), ((), ())), precision=_HIGHEST)


def product_each(
    matrix: Float[Array, "k h"], x: Float[Array, "b h *rest"]
) -> Float[Array, "b k *rest"]:
    """The product for each example. With a matrix for each, nothing is transposed."""
    matrices = jnp.broadcast_to(matrix, (x.shape[0], *matrix.shape))
    return jax.lax.dot_general(matrices, x, (((2,), (1,)), ((0,), (0,))), precision=_HIGHEST)
