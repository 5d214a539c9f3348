"""The discrete Fourier transform about the middle of a map as small matrices, and their products.

Padding before the transform and cropping after its inverse are part of the matrices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from converse_jax.ops._memory import row_major
from converse_jax.ops._otf import twiddle

_HIGHEST = jax.lax.Precision.HIGHEST


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
        copies = (half[:, None] == source[None]).astype(dtype)
        waves = _waves(size + 2 * self.padding, sine, dtype)
        return jnp.dot(copies, waves, precision=_HIGHEST)


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
        return weights[None] * _waves(whole, sine, dtype)[kept]


Border = Padded | Cropped


def analysis_matrix(border: Border, size: int, sine: bool, dtype: Any) -> Float[Array, "K half"]:
    """From the even or odd part of a map to its spectrum."""
    matrix = border.matrix(size, sine, dtype)
    # The middle pixel of an odd axis is counted twice in its even part.
    twice = 2 * jnp.arange((size + 1) // 2) + 1 == size
    return (matrix * jnp.where(twice, 0.5, 1).astype(dtype)[:, None]).T


def _waves(size: int, sine: bool, dtype: Any) -> Float[Array, "N K"]:
    """Cosine or sine of ``2 pi k (n - (N-1)/2) / N``, k <= N / 2."""
    n, k = jnp.arange(size)[:, None], jnp.arange(size // 2 + 1)[None]
    cos, minus_sin = twiddle((2 * n - size + 1) * k % (2 * size), 2 * size, dtype)
    return -minus_sin if sine else cos


def fold(x: Array, axis: int, *, plain: bool = False) -> tuple[Array, Array]:
    """Even and odd part about the middle, the middle pixel of an odd axis counted twice."""
    size = x.shape[axis]
    half = (size + 1) // 2
    near = jax.lax.slice_in_dim(x, 0, half, axis=axis)
    far = jnp.flip(jax.lax.slice_in_dim(x, size - half, size, axis=axis), axis)
    return row_major(near + far, plain=plain), row_major(near - far, plain=plain)


def unfold(even: Array, odd: Array, size: int, axis: int) -> Array:
    """A map of `size` from its even and odd part."""
    far = jax.lax.slice_in_dim(even - odd, 0, size // 2, axis=axis)
    return jnp.concatenate([even + odd, jnp.flip(far, axis)], axis)


def _by_constant(f: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """A product with a matrix that is not differentiated: its gradient is ``matrix.T @ y``."""
    ruled = jax.custom_vjp(f)
    ruled.defvjp(
        lambda matrix, x: (ruled(matrix, x), matrix),
        lambda matrix, y: (None, product(matrix.T, y)),
    )

    @functools.wraps(f)
    def call(matrix: Array, x: Array, *, plain: bool = False) -> Array:
        return f(matrix, x) if plain else ruled(matrix, x)

    return call


@_by_constant
def product(matrix: Float[Array, "k h"], x: Float[Array, "h ..."]) -> Float[Array, "k ..."]:
    """``matrix @ x`` over the first axis of x."""
    # Not `einsum`: it would put the larger operand first, and transpose it, as JAX's own rule for
    # the gradient does.
    return jax.lax.dot_general(matrix, x, (((1,), (0,)), ((), ())), precision=_HIGHEST)


@_by_constant
def sum_product(matrix: Float[Array, "k h"], x: Float[Array, "h ..."]) -> Float[Array, "k ..."]:
    """`product` for few h, written as a sum: computed where it is used, it takes no memory."""
    columns = matrix.reshape(*matrix.shape, *(1,) * (x.ndim - 1))
    return functools.reduce(jnp.add, (columns[:, i] * x[i][None] for i in range(x.shape[0])))


def product_each(
    matrix: Float[Array, "k h"], x: Float[Array, "b h *rest"]
) -> Float[Array, "b k *rest"]:
    """The product for each example. With a matrix for each, nothing is transposed."""
    matrices = jnp.broadcast_to(matrix, (x.shape[0], *matrix.shape))
    return jax.lax.dot_general(matrices, x, (((2,), (1,)), ((0,), (0,))), precision=_HIGHEST)
