"""Plug-and-play restoration: any blur and any scale, with a denoiser as the prior.

Half-quadratic splitting minimizes `||y - (x (*) k) down s||^2 / (2 sigma^2) + mu R(x)` by turns,

    z_i     = argmin_z  || y - (z (*) k) down s ||^2  +  lam_i || z - x_{i-1} ||^2
    x_i     = denoise(z_i, level_i),              lam_i = weight sigma^2 / level_i^2,

for noise levels that fall from `start` to that of the image. The first line is `converse2d` with
`x0 = x_{i-1}`, exact for every kernel and scale; in the second, any Gaussian denoiser that is told
its level stands for the proximal operator of R.

Source: K. Zhang, Y. Li, W. Zuo, L. Zhang, L. Van Gool, R. Timofte, "Plug-and-Play Image Restoration
with Deep Denoiser Prior", IEEE TPAMI 44(10), 2022 (DPIR), eq. 6-7 and section 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from converse_jax.imaging import bicubic_kernel
from converse_jax.ops import blur_downsample, converse2d

START = 49 / 255
"""The level of the first iteration, by DPIR."""

WEIGHT = 0.23
"""The trade-off between data and prior, by DPIR: their lambda."""

LEAST_SIGMA = 0.255 / 255
"""An image with less noise is treated as if it had this much, as lambda must be positive."""

KNOWN_ITERATIONS = 16
"""Conjugate gradients for each data step where y is known in part. The less noise, the more it
takes: 16 are enough for levels of 1 of 255 and above."""

Denoiser = Callable[[Any, Any], Any] | nnx.Module
"""`denoise(x, sigma)`: images `[..., H, W, C]` and the level of their noise, in the same units."""


def deblur(
    y: Float[Array | np.ndarray, "*batch H W C"],
    kernel: Float[Array | np.ndarray, "*kernels kh kw"],
    denoise: Denoiser,
    *,
    sigma: ArrayLike,
    iterations: int = 8,
    start: float = START,
    weight: float = WEIGHT,
    known: Float[Array | np.ndarray, "*known H W 1"] | None = None,
) -> Float[Array, "*batch H W C"]:
    """Reverse a circular blur with a known kernel of any size: `y = x (*) kernel + noise`.

    A photograph is no circle: pad it at least by the kernel's size less 1 in all, at any sides and
    with any values, and say with `known` where it lies.

    Args:
        y: images in [0, 1].
        kernel: its element `(kh // 2, kw // 2)` at the origin, sum 1; leading axes broadcast
            against those of y.
        denoise: a function `(x, sigma) -> x`, or an NNX module called so. A function is compiled
            with the values it closes over: pass the module itself, or a `jax.tree_util.Partial`,
            if they change.
        sigma: standard deviation of the noise in the units of y; a number or one an image.
        iterations: how often data and prior are served.
        start: noise level that the denoiser is told first.
        weight: more smooths more.
        known: `[..., H, W, 1]`, 1 where y was observed and 0 elsewhere, broadcast against y; None
            is everywhere.

    Returns:
        The estimate of x, not clipped, in the type of y.

    Raises:
        ValueError: fewer than 1 iteration; or as `converse2d`.

    Source: DPIR, section 5.1, its defaults.
    """
    return super_resolve(
        y,
        1,
        denoise,
        kernel=kernel,
        sigma=sigma,
        iterations=iterations,
        start=start,
        weight=weight,
        known=known,
    )


def super_resolve(
    y: Float[Array | np.ndarray, "*batch H W C"],
    scale: int,
    denoise: Denoiser,
    *,
    kernel: Float[Array | np.ndarray, "*kernels kh kw"] | None = None,
    sigma: ArrayLike = 0.0,
    iterations: int = 24,
    start: float = START,
    weight: float = WEIGHT,
    known: Float[Array | np.ndarray, "*known H W 1"] | None = None,
) -> Float[Array, "*batch sH sW C"]:
    """Enlarge by any integer factor: `y = (x (*) kernel) down scale + noise`.

    Args:
        y: images in [0, 1].
        scale: the factor s >= 1.
        denoise: as for `deblur`.
        kernel: what blurred before each s-th pixel was kept; None is the antialiased bicubic
            down-sampling that most small images come from (`bicubic_kernel`).
        sigma, iterations, start, weight, known: as for `deblur`.

    Returns:
        The estimate of x, not clipped, in the type of y.

    Raises:
        ValueError: as `deblur`.

    Source: DPIR, section 5.2. It starts from bicubic interpolation, moved to the centroid of the
    kernel.
    """
    if iterations < 1:
        raise ValueError(f"iterations: got {iterations!r}; expected an integer >= 1")
    y = jnp.asarray(y)
    kernel = jnp.asarray(bicubic_kernel(scale) if kernel is None else kernel, y.dtype)
    sigma = jnp.asarray(sigma, y.dtype)
    known = None if known is None else jnp.asarray(known, y.dtype)
    return _solve(y, kernel, as_pytree(denoise), sigma, start, weight, known, scale, iterations)


def noise_levels(sigma: ArrayLike, iterations: int, start: float = START) -> Float[Array, ...]:
    """Levels of all iterations `[iterations, ...]`, falling geometrically from `start` to sigma."""
    sigma = jnp.asarray(sigma)
    steps = jnp.linspace(1, 0, iterations, dtype=sigma.dtype).reshape(-1, *(1,) * sigma.ndim)
    return start**steps * sigma ** (1 - steps)


def data_step(
    y: Float[Array, "*batch H W C"],
    kernel: Float[Array, "*kernels kh kw"],
    x: Float[Array, "*batch sH sW C"],
    lam: Float[Array, ...],
    scale: int = 1,
) -> Float[Array, "*batch sH sW C"]:
    """`argmin_z ||y - (z (*) kernel) down s||^2 + lam ||z - x||^2`: `converse2d` with `x0 = x`."""
    taps, lam = _for_channels(kernel, lam, y.shape[-1])
    return converse2d(y, taps, lam, scale=scale, x0=x)


def known_data_step(
    y: Float[Array, "*batch H W C"],
    kernel: Float[Array, "*kernels kh kw"],
    x: Float[Array, "*batch sH sW C"],
    lam: Float[Array, ...],
    known: Float[Array, "*known H W 1"],
    scale: int = 1,
    *,
    iterations: int = KNOWN_ITERATIONS,
) -> tuple[Float[Array, "*batch sH sW C"], Float[Array, "*batch H W C"]]:
    """`data_step` where y is known in part: `argmin_z ||known (y - (z (*) k) down s)||^2 + ...`.

    What is not known, u, is solved for too: the minimum over z for given u is a data step, z(u),
    and u must equal what its blur shows there,

        u = (1 - known) (z(u) (*) k) down s,

    a symmetric, positive definite system of the unknown pixels alone, which conjugate gradients
    solve from the values that y has there.

    Args:
        y, kernel, x, lam, scale: as for `data_step`; where y is unknown, a first guess.
        known: 1 where y was observed, 0 elsewhere.
        iterations: of conjugate gradients.

    Returns:
        z, and y with the unknown pixels solved for: the next step's y.

    Source: M. Almeida, M. Figueiredo, "Deconvolving Images With Unknown Boundaries Using the
    Alternating Direction Method of Multipliers", IEEE TIP 22(8), 2013, has the problem; that only
    the unknown pixels need to be iterated follows from the closed form of `converse2d`.
    """
    taps, lam = _for_channels(kernel, lam, y.shape[-1])

    def blur(z: Array) -> Array:
        return blur_downsample(z, taps, scale=scale)

    def solve(v: Array) -> Array:
        return converse2d(v, taps, lam, scale=scale, x0="zero")

    def dot(a: Array, b: Array) -> Array:
        return jnp.sum(a * b, axis=(-3, -2, -1), keepdims=True)

    unknown = 1 - known
    shown = blur(x)
    residual = known * (y - shown)
    u = unknown * (y - shown)  # differences to what x shows, as z(u) = x + solve(residual + u)
    r = unknown * blur(solve(residual + u)) - u

    def step(_: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
        u, r, p, rr = state
        ap = unknown * (p - blur(solve(p)))
        # Where all is known, or solved, 0 / 0 must be 0.
        a = rr / jnp.maximum(dot(p, ap), jnp.finfo(y.dtype).tiny)
        u, r = u + a * p, r - a * ap
        new = dot(r, r)
        return u, r, r + new / jnp.maximum(rr, jnp.finfo(y.dtype).tiny) * p, new

    u, *_ = jax.lax.fori_loop(0, iterations, step, (u, r, r, dot(r, r)))
    return x + solve(residual + u), known * y + unknown * (shown + u)


def _for_channels(kernel: Array, lam: Array, channels: int) -> tuple[Array, Array]:
    taps = jnp.broadcast_to(kernel[..., None], (*kernel.shape, channels))
    return taps, jnp.broadcast_to(lam[..., None], (*lam.shape, channels))


def initial_estimate(
    y: Float[Array, "*batch H W C"], kernel: Float[Array, "*kernels kh kw"], scale: int
) -> Float[Array, "*batch sH sW C"]:
    """y, enlarged by bicubic interpolation; what is seen in both is at the same place."""
    if scale == 1:
        return y

    def enlarge(y: Array, kernel: Array) -> Array:
        # Pixel i of y shows the place s i + offset of x.
        offset = jnp.stack(
            [
                (kernel * (n // 2 - jnp.arange(n)).reshape(shape)).sum() / kernel.sum()
                for n, shape in zip(kernel.shape, ((-1, 1), (1, -1)), strict=True)
            ]
        )
        height, width, channels = y.shape
        return jax.image.scale_and_translate(
            y,
            (scale * height, scale * width, channels),
            (0, 1),
            jnp.full(2, scale, y.dtype),
            offset - (scale - 1) / 2,
            "cubic",
            antialias=False,
        )

    return jnp.vectorize(enlarge, signature="(h,w,c),(k,l)->(p,q,c)")(y, kernel)


def as_pytree(denoise: Denoiser) -> jax.tree_util.Partial:
    """The denoiser as a function whose parameters are leaves, where they are known."""
    if isinstance(denoise, nnx.Module):
        return jax.tree_util.Partial(_call, *nnx.split(denoise))
    return jax.tree_util.Partial(denoise)


def _call(graphdef: Any, state: Any, x: Array, sigma: Array) -> Array:
    result: Array = nnx.merge(graphdef, state)(x, sigma)
    return result


@functools.partial(jax.jit, static_argnames=("scale", "iterations"))
def _solve(
    y: Array,
    kernel: Array,
    denoise: jax.tree_util.Partial,
    sigma: Array,
    start: float,
    weight: float,
    known: Array | None,
    scale: int,
    iterations: int,
) -> Array:
    sigma = jnp.maximum(sigma, LEAST_SIGMA)
    levels = noise_levels(sigma, iterations, start)

    def step(state: tuple[Array, Array], now: tuple[Array, Array]) -> Any:
        (x, y), (level, number) = state, now
        lam = weight * (sigma / level) ** 2
        if known is None:
            z = data_step(y, kernel, x, lam, scale)
        else:
            z, y = known_data_step(y, kernel, x, lam, known, scale)
        # Four reflections take turns, which averages errors that prefer a direction.
        rows, columns = number % 2 == 1, number // 2 % 2 == 1
        z = denoise(_flip(_flip(z, rows, -3), columns, -2), level)
        return (_flip(_flip(z, rows, -3), columns, -2).astype(x.dtype), y), None

    x = initial_estimate(y, kernel, scale)
    return jax.lax.scan(step, (x, y), (levels, jnp.arange(iterations)))[0][0]


def _flip(x: Array, condition: Array, axis: int) -> Array:
    return jnp.where(condition, jnp.flip(x, axis), x)
