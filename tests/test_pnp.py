"""Plug-and-play restoration against closed forms, and on images with the bundled denoiser."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from converse_jax import blur_downsample, blur_downsample_adjoint, converse2d, load, pnp
from converse_jax.imaging import (
    bicubic_kernel,
    circular_blur,
    gaussian_kernel,
    psnr,
    random_motion_kernel,
    resize,
    to_uint8,
)


def _photograph(size: int = 96) -> np.ndarray:
    from skimage import data

    return resize(data.astronaut()[30:222, 130:322] / 255.0, (size, size)).astype(np.float32)


def _noisy(x: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, x.shape)
    return (x + noise).astype(np.float32)


def _same(x: jax.Array, sigma: jax.Array) -> jax.Array:
    return x


@pytest.fixture(scope="module")
def denoiser() -> nnx.Module:
    return load("denoise-color")[0]


def test_levels_fall_geometrically_from_the_start_to_the_images() -> None:
    levels = np.asarray(pnp.noise_levels(jnp.array([0.01, 0.05]), 5, start=0.2))
    assert levels.shape == (5, 2)
    np.testing.assert_allclose(levels[[0, -1]], [[0.2, 0.2], [0.01, 0.05]], rtol=1e-6)
    np.testing.assert_allclose(levels[1:] / levels[:-1], np.broadcast_to(
        [(0.01 / 0.2) ** 0.25, (0.05 / 0.2) ** 0.25], (4, 2)), rtol=1e-5)  # fmt: skip


def test_one_iteration_is_the_operator_then_the_denoiser() -> None:
    rng = np.random.default_rng(0)
    y, kernel = rng.random((2, 12, 10, 3)), gaussian_kernel(5, 1.0)
    with jax.enable_x64(True):
        got = pnp.deblur(y, kernel, lambda x, s: 2 * x + s, sigma=0.1, iterations=1, start=0.2)
        taps = np.broadcast_to(kernel[..., None], (5, 5, 3))
        z = np.asarray(converse2d(y, taps, 0.23 * (0.1 / 0.2) ** 2, x0=y))
    np.testing.assert_allclose(got, 2 * z + 0.2, atol=1e-12)


def test_a_gaussian_prior_gives_the_wiener_solution() -> None:
    # With denoise(x, s) = x / (1 + c s^2), the proximal operator of c s^2 ||x||^2 / 2, and one
    # level throughout, z converges to argmin ||y - k (*) z||^2 + lam c s^2 / (1 + c s^2) ||z||^2.
    rng = np.random.default_rng(1)
    y, kernel, c, sigma = rng.random((16, 16, 1)), gaussian_kernel(5, 0.8), 3.0, 0.3
    with jax.enable_x64(True):
        got = pnp.deblur(
            y, kernel, lambda x, s: x / (1 + c * s**2), sigma=sigma, start=sigma, iterations=400
        )
        taps = kernel[..., None]
        shrunk = c * sigma**2 / (1 + c * sigma**2)
        expected = converse2d(y, taps, 0.23 * shrunk, x0="zero") * (1 - shrunk)
    np.testing.assert_allclose(got, expected, atol=1e-8)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_bicubic_kernel_is_the_antialiased_resize(scale: int) -> None:
    x = np.random.default_rng(2).random((48, 36, 1))
    kernel = bicubic_kernel(scale)
    small = circular_blur(x, kernel)[::scale, ::scale]
    inside = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(small[inside], resize(x, scale=1 / scale)[inside], atol=1e-12)
    operator = blur_downsample(jnp.asarray(x, jnp.float32), kernel[..., None].astype(np.float32),
                               scale=scale)  # fmt: skip
    np.testing.assert_allclose(operator, small, atol=1e-6)
    assert kernel.sum() == pytest.approx(1)


def test_bicubic_kernel_of_no_scale() -> None:
    with pytest.raises(ValueError, match="scale: got 0; expected"):
        bicubic_kernel(0)


@pytest.mark.parametrize(("scale", "kernel"), [(2, None), (3, None), (2, gaussian_kernel(9, 1.2))])
def test_the_start_of_super_resolution_is_in_place(scale: int, kernel: np.ndarray | None) -> None:
    # A ramp is a ramp again, pixel for pixel, wherever the kernel has its centroid.
    ramp = np.linspace(0, 1, 60, dtype=np.float32)[:, None, None] * np.ones((1, 60, 1), np.float32)
    taps = (bicubic_kernel(scale) if kernel is None else kernel).astype(np.float32)
    y = circular_blur(ramp, taps)[::scale, ::scale]
    start = pnp.initial_estimate(jnp.asarray(y), jnp.asarray(taps), scale)
    inside = (slice(15, -15), slice(15, -15))
    np.testing.assert_allclose(start[inside], ramp[inside], atol=2e-5)


@pytest.mark.parametrize("sigma", [2.55 / 255, 7.65 / 255])
def test_deblurs_a_camera_shake(denoiser: nnx.Module, sigma: float) -> None:
    clean = _photograph()
    kernel = random_motion_kernel(19, np.random.default_rng(3)).astype(np.float32)
    y = _noisy(circular_blur(clean, kernel), sigma)
    restored = np.asarray(pnp.deblur(y, kernel, denoiser, sigma=sigma))
    before, after = (psnr(to_uint8(x), to_uint8(clean)) for x in (y, restored))
    assert after > before + 6


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3])
def test_enlarges_better_than_bicubic(denoiser: nnx.Module, scale: int) -> None:
    clean = _photograph()
    y = resize(clean, scale=1 / scale)
    kernel = jnp.asarray(bicubic_kernel(scale), jnp.float32)
    start = pnp.initial_estimate(jnp.asarray(y), kernel, scale)
    restored = pnp.super_resolve(y, scale, denoiser, iterations=8)
    before, after = (psnr(to_uint8(np.asarray(x)), to_uint8(clean)) for x in (start, restored))
    assert restored.shape == clean.shape
    assert after > before + 1.5


@pytest.mark.slow
def test_batches_kernels_and_levels_of_each_image() -> None:
    rng = np.random.default_rng(4)
    y = rng.random((2, 12, 12, 3), np.float32)
    kernels = rng.random((2, 3, 3), np.float32)
    kernels /= kernels.sum((1, 2), keepdims=True)
    sigma = np.array([0.02, 0.1], np.float32)
    denoise = lambda x, s: x * (1 - jnp.asarray(s)[..., None, None, None])  # noqa: E731
    solve = functools.partial(pnp.super_resolve, scale=2, denoise=denoise, iterations=3)
    together = solve(y, kernel=kernels, sigma=sigma)
    for i in range(2):
        alone = solve(y[i], kernel=kernels[i], sigma=sigma[i])
        np.testing.assert_allclose(together[i], alone, atol=1e-5)
    mapped = jax.vmap(lambda *a: solve(a[0], kernel=a[1], sigma=a[2]))(y, kernels, sigma)
    np.testing.assert_allclose(mapped, together, atol=1e-5)


def test_one_program_serves_all_weights_of_a_module() -> None:
    class Scaled(nnx.Module):
        def __init__(self, factor: float) -> None:
            self.factor = nnx.Param(jnp.asarray(factor))

        def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
            return x * self.factor[...]

    y, kernel = np.ones((8, 8, 1), np.float32), gaussian_kernel(3, 0.5)
    model = Scaled(1.0)
    size = pnp._solve._cache_size()
    np.testing.assert_allclose(pnp.deblur(y, kernel, model, sigma=0.1), 1, atol=1e-5)
    model.factor[...] = jnp.asarray(0.5)
    changed = pnp.deblur(y, kernel, model, sigma=0.1, iterations=8)
    assert float(changed.max()) < 0.9
    assert pnp._solve._cache_size() == size + 1


def test_it_is_one_loop_of_transforms_that_do_not_grow_with_the_iterations() -> None:
    y, kernel = np.ones((8, 8, 1), np.float32), gaussian_kernel(3, 0.5).astype(np.float32)

    def lines(iterations: int) -> int:
        fn = functools.partial(pnp.deblur, denoise=_same, sigma=0.1, iterations=iterations)
        return str(jax.make_jaxpr(fn)(y, kernel)).count("\n")

    assert lines(3) == lines(30)


@pytest.mark.slow
def test_gradients_reach_image_kernel_and_noise_level() -> None:
    y = np.random.default_rng(5).random((8, 8, 1), np.float32)
    kernel = gaussian_kernel(3, 0.7).astype(np.float32)

    def loss(y: jax.Array, kernel: jax.Array, sigma: jax.Array) -> jax.Array:
        return jnp.sum(pnp.deblur(y, kernel, lambda x, s: x / (1 + s), sigma=sigma) ** 2)

    check_grads(
        loss, (y, kernel, np.float32(0.1)), order=1, modes=["fwd", "rev"], atol=2e-2, rtol=2e-2
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "iterations: got 0; expected an integer >= 1"),
        ({"scale": 0}, "scale: got 0; expected"),
        ({"kernel": np.ones((40, 40), np.float32)}, "kernel: got"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    arguments = {"scale": 2, "denoise": _same, "kernel": np.ones((3, 3), np.float32) / 9} | change
    with pytest.raises(ValueError, match=message):
        pnp.super_resolve(np.ones((8, 8, 1), np.float32), **arguments)


@pytest.mark.slow
def test_a_data_step_where_y_is_known_in_part() -> None:
    rng = np.random.default_rng(0)
    for scale in (1, 2):
        y, kernel = rng.random((2, 8, 7, 2)), rng.random((3, 5))
        kernel /= kernel.sum()
        x, lam = rng.random((2, 8 * scale, 7 * scale, 2)), np.array([[0.05], [0.3]])[:, 0]
        known = np.zeros((8, 7, 1))
        known[1:6, 2:7] = 1
        with jax.enable_x64(True):
            z, filled = pnp.known_data_step(
                *map(jnp.asarray, (y, kernel, x, lam, known)), scale, iterations=60
            )
            taps = np.broadcast_to(kernel[..., None], (3, 5, 2))
            shown = np.asarray(blur_downsample(z, taps, scale=scale))
            # The gradient of the objective vanishes.
            residual = jnp.asarray(known * (shown - y))
            adjoint = blur_downsample_adjoint(residual, taps, scale=scale)
        gradient = np.asarray(adjoint) + lam[:, None, None, None] * (np.asarray(z) - x)
        np.testing.assert_allclose(gradient, 0, atol=1e-9)
        np.testing.assert_allclose(filled, known * y + (1 - known) * shown, atol=1e-9)


def test_all_known_is_the_data_step() -> None:
    y, kernel = _photograph(24), gaussian_kernel(5, 1.2).astype(np.float32)
    known = np.ones((24, 24, 1), np.float32)
    want = pnp.deblur(y, kernel, _same, sigma=0.02, iterations=3)
    got = pnp.deblur(y, kernel, _same, sigma=0.02, iterations=3, known=known)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
def test_what_is_beyond_the_borders_is_solved_for(denoiser: nnx.Module) -> None:
    kernel, whole = random_motion_kernel(13, np.random.default_rng(0)), _photograph(96)
    blurred = _noisy(circular_blur(whole, kernel), 0.01)
    known = np.zeros((96, 96, 1), np.float32)
    known[12:-12, 12:-12] = 1
    given = np.pad(blurred[12:-12, 12:-12], ((12, 12), (12, 12), (0, 0)), "edge")

    def error(x: jax.Array) -> float:
        return float(np.abs(np.asarray(x) - whole)[12:-12, 12:-12].mean())

    kernel = kernel.astype(np.float32)
    circular = error(pnp.deblur(given, kernel, denoiser, sigma=0.01))
    in_part = error(pnp.deblur(given, kernel, denoiser, sigma=0.01, known=known))
    all_seen = error(pnp.deblur(blurred, kernel, denoiser, sigma=0.01))
    assert in_part < 0.4 * circular
    assert in_part < 1.5 * all_seen
