"""Restoring arrays, images and folders, with networks small enough to be understood."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from converse_jax import ModelCard, _programs, converse2d
from converse_jax._borders import extend_periodically
from converse_jax.imaging import (
    Image,
    Resolution,
    circular_blur,
    estimate_noise,
    gaussian_kernel,
    motion_kernel,
)
from converse_jax.models import ConverseDnCNN, ConverseUSRNet
from converse_jax.nn import Operator
from converse_jax.restore import RestoreError, Restorer, apply_to_image
from tests.imaging.images import exif, profile


class Enlarge(nnx.Module):
    """Each pixel `scale` x `scale` times, and a gain."""

    def __init__(self, scale: int = 1, gain: float = 1.0) -> None:
        self.scale = scale
        self.gain = nnx.Param(jnp.float32(gain))

    def __call__(self, x: Array) -> Array:
        return self.gain[...] * jnp.repeat(jnp.repeat(x, self.scale, -3), self.scale, -2)


class Ramp(nnx.Module):
    """Multiplies with the row number: nothing that turns with the image."""

    def __call__(self, x: Array) -> Array:
        return x * jnp.arange(x.shape[-3], dtype=x.dtype)[:, None, None]


class Mix(nnx.Module):
    """A matrix product over channels and a neighbor's share."""

    def __init__(self, channels: int = 1) -> None:
        weights = np.random.default_rng(0).random((channels, channels), np.float32)
        self.weights = nnx.Param(jnp.asarray(weights))

    def __call__(self, x: Array) -> Array:
        return 0.5 * x @ self.weights[...] + 0.5 * jnp.roll(x, 1, -2)


class Deblur(nnx.Module):
    """The operator itself as a network that takes a kernel."""

    def __init__(self, blur_size: int = 7, lam: float = 0.01) -> None:
        self.blur_size = blur_size
        self.lam = nnx.Param(jnp.float32(lam))

    def __call__(self, x: Array, kernel: Array) -> Array:
        kernels = jnp.repeat(kernel[..., None], x.shape[-1], axis=-1)
        return converse2d(x, kernels, self.lam[...])


def card(
    task: str = "denoise", channels: int = 1, scale: int = 1, config: Any = None, **more: Any
) -> ModelCard:
    return ModelCard("small", "Small", config or {}, task, channels, scale=scale, **more)


class Told(nnx.Module):
    """Adds the level that it is told."""

    def __init__(self) -> None:
        self.gain = nnx.Param(jnp.float32(1))

    def __call__(self, x: Array, sigma: Array) -> Array:
        return x + self.gain[...] * sigma


def told(channels: int = 1, **more: Any) -> Restorer:
    values = {"sigma_range": (0.0, 50.0), "needs_sigma": True, **more}
    return Restorer(Told(), card(channels=channels, **values))


def deblurrer(blur_size: int = 7) -> Restorer:
    return Restorer(Deblur(blur_size), card("deblur", 1, needs_kernel=True))


def image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


# Noise levels and strength


def noisy(sigma: float, channels: int = 1) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma / 255, (64, 64, channels))
    return np.asarray(0.5 + noise, np.float32)


def test_a_network_is_told_the_level_given_or_estimated() -> None:
    x = noisy(10)
    np.testing.assert_allclose(told()(x, sigma=0.2), x + 0.2, atol=1e-6)
    np.testing.assert_allclose(told()(x), x + estimate_noise(x), atol=1e-6)
    assert 8 < 255 * estimate_noise(x) < 12
    # Each channel by itself, or the gray one repeated, with the same level.
    colors = np.concatenate([x, x / 2, x / 4], -1)
    np.testing.assert_allclose(told()(colors, sigma=0.2), colors + 0.2, atol=1e-6)
    np.testing.assert_allclose(told(3)(x, sigma=0.2), x + 0.2, atol=1e-6)


def test_the_card_says_how_much_of_an_estimate_the_network_is_told() -> None:
    x = noisy(10)
    level, careful = estimate_noise(x), told(estimate_share=0.4)
    np.testing.assert_allclose(careful(x), x + 0.4 * level, atol=1e-6)
    np.testing.assert_allclose(careful(x, sigma=0.2), x + 0.2, atol=1e-6)
    plan = careful.plan(x)
    assert plan.sigma == pytest.approx(0.4 * level)
    assert plan.noise == f"noise of {255 * level:.1f} (of 255), estimated; small is told 0.4 of it"
    assert careful.plan(x, sigma=0.2).sigma == 0.2


def test_another_level_compiles_nothing() -> None:
    restorer = told()
    restorer(noisy(10), sigma=0.1)
    programs = dict(restorer._programs._programs)
    restorer(noisy(10), sigma=0.2)
    assert dict(restorer._programs._programs) == programs


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_blends_with_the_image(strength: float) -> None:
    x = noisy(10)
    got = told()(x, sigma=0.4, strength=strength)
    np.testing.assert_allclose(got, x + 0.4 * strength, atol=1e-6)


def test_the_plan_says_the_level() -> None:
    x = noisy(10)
    plan = told().plan(x, sigma=25 / 255)
    assert plan.sigma == 25 / 255 and plan.noise == "noise of 25.0 (of 255), given"
    plan = told().plan(x)
    assert plan.sigma == estimate_noise(x)
    assert plan.noise == f"noise of {255 * estimate_noise(x):.1f} (of 255), estimated"
    beyond = told().plan(x, sigma=60 / 255).noise
    assert beyond == "noise of 60.0 (of 255), given; small was trained for 0 to 50"


@pytest.mark.parametrize(
    ("sigma", "effect"), [(3, "fine detail will be lost"), (25, None), (70, "noise will stay")]
)
def test_the_plan_compares_noise_with_the_level_of_the_model(
    sigma: float, effect: str | None
) -> None:
    plan = Restorer(Mix(), card(sigma=25.0)).plan(noisy(sigma))
    assert plan.sigma is None
    if effect is None:
        assert plan.noise is None
    else:
        assert plan.noise is not None
        assert plan.noise.endswith(f"estimated, but small was trained for 25: {effect}")


def test_a_network_that_is_told_the_level_leaves_transparency_alone() -> None:
    alpha = image(64, 64)
    got = apply_to_image(told(3), Image(noisy(10, 3), alpha=alpha))
    np.testing.assert_array_equal(got.alpha, alpha)


def test_levels_and_strengths_that_cannot_be() -> None:
    x = noisy(10)
    with pytest.raises(RestoreError, match=r"sigma: small \(Small\) takes no noise level"):
        Restorer(Mix(), card())(x, sigma=0.1)
    for level in (-0.1, float("nan"), float("inf")):
        with pytest.raises(RestoreError, match=rf"sigma: got {level}; expected a standard"):
            told()(x, sigma=level)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(RestoreError, match=rf"strength: got {strength}; expected 0"):
            told()(x, strength=strength)
    with pytest.raises(RestoreError, match="strength: small enlarges, so there is no original"):
        Restorer(Enlarge(2), card("sr", 1, 2))(x, strength=0.5)


# Arrays


def test_the_network_is_applied_as_it_is() -> None:
    x = image(9, 12, 1)
    got = Restorer(Mix(), card())(x)
    assert got.dtype == np.float32 and got.shape == x.shape
    np.testing.assert_allclose(got, Mix()(jnp.asarray(x)), atol=1e-6)


def test_products_are_in_full_precision() -> None:
    programs = Restorer(Mix(), card())._programs
    run = jax.jit(programs._unprepared)
    program = run.lower(programs._state, None, image(4, 4, 1), None, None).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_a_gray_model_restores_each_channel() -> None:
    x = image(8, 7, 3)
    restorer = Restorer(Mix(), card())
    alone = [restorer(x[..., c, None]) for c in range(3)]
    np.testing.assert_array_equal(restorer(x), np.concatenate(alone, axis=-1))
    assert restorer.channel_note(1) is None
    assert (
        restorer.channel_note(3)
        == "small is a model of gray images: each channel is restored alone"
    )


def test_a_color_model_sees_a_gray_image_repeated() -> None:
    restorer = Restorer(Mix(3), card(channels=3))
    x = image(8, 7, 1)
    want = restorer(np.repeat(x, 3, axis=-1)).mean(axis=-1, keepdims=True)
    assert restorer(x).shape == (8, 7, 1)
    np.testing.assert_array_equal(restorer(x), want)
    assert restorer.channel_note(3) is None
    assert (
        restorer.channel_note(1) == "small is a model of color images: the gray channel is repeated"
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 50, 1)])
def test_odd_sizes(shape: tuple[int, ...]) -> None:
    kernel = gaussian_kernel(7, 1.0)
    deblurred = deblurrer()(image(*shape), kernel=kernel[3 - shape[0] // 2 :][: shape[0], 3:4])
    assert deblurred.shape == shape and np.isfinite(deblurred).all()
    text = f"kernel: got 7x7 for an image of {shape[0]}x{shape[1]}; expected a kernel no larger"
    with pytest.raises(RestoreError, match=text):
        deblurrer()(image(*shape), kernel=kernel)


def test_refused_images() -> None:
    restorer = Restorer(Enlarge(), card())
    with pytest.raises(RestoreError, match=r"image: got shape \(4, 4\); expected \[H, W, 1\]"):
        restorer(image(4, 4))
    with pytest.raises(RestoreError, match=r"image: got shape \(4, 4, 4\)"):
        restorer(image(4, 4, 4))
    with pytest.raises(RestoreError, match=r"image: got uint8; expected floats in \[0, 1\]"):
        restorer(np.zeros((4, 4, 1), np.uint8))


def test_the_last_two_programs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = Restorer(Enlarge(), card())
    run, compiled = restorer._programs._unprepared, []

    def counting(state: Any, transfers: Any, x: Any, *others: Any) -> Any:
        compiled.append(x.shape[0])
        return run(state, transfers, x, *others)

    monkeypatch.setattr(restorer._programs, "_unprepared", counting)
    for height in (2, 3, 2, 4, 2, 3):
        restorer(image(height, 5, 1))
    assert compiled == [2, 3, 4, 3]
    assert len(restorer._programs._programs) == 2


class CountedCalls:
    """A function that counts its calls, with the attributes of the one it wraps."""

    def __init__(self, fn: Any) -> None:
        self.fn, self.calls = fn, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.fn(*args)


@pytest.mark.slow
def test_transfer_functions_are_made_once_for_a_size_and_a_kernel() -> None:
    model = ConverseUSRNet(1, num_features=4, num_blocks=1, num_iterations=2, rngs=nnx.Rngs(0))
    restorer = Restorer(model, card("deblur", needs_kernel=True))
    first, second = gaussian_kernel(7, 1.0), gaussian_kernel(7, 2.0)
    expected = [
        np.asarray(model(image(12, 10, 1), np.float32(kernel))) for kernel in (first, second)
    ]
    run = functools.partial(restorer, image(12, 10, 1), extend_borders=False)
    np.testing.assert_allclose(run(kernel=first), expected[0], rtol=1e-4, atol=1e-4)
    (program,) = restorer._programs._programs.values()
    program.collect = CountedCalls(program.collect)
    run(kernel=first)
    assert program.collect.calls == 0
    np.testing.assert_allclose(run(kernel=second), expected[1], rtol=1e-4, atol=1e-4)
    run(kernel=second)
    assert program.collect.calls == 1
    restorer.free()
    assert not restorer._programs._programs
    np.testing.assert_allclose(run(kernel=first), expected[0], rtol=1e-4, atol=1e-4)


class OwnDeblur(nnx.Module):
    """A network of one's own that, once prepared, refuses the kernel."""

    kernel_in_transfers = True

    def __init__(self) -> None:
        self.blur_size = 7
        self.operator = Operator()

    def __call__(self, x: Array, kernel: Array | None = None) -> Array:
        prepared = len(self.operator.transfers) > 0 and not self.operator.preparing
        assert prepared == (kernel is None)
        maps = None if kernel is None else kernel[..., None]
        return self.operator.operate(x, maps, jnp.float32(0.01))


def test_an_own_network_may_leave_the_kernel_to_its_transfer_functions() -> None:
    x, kernel = image(12, 10, 1), gaussian_kernel(7, 1.0)
    own = Restorer(OwnDeblur(), card("deblur", needs_kernel=True))
    np.testing.assert_allclose(
        own(x, kernel=kernel), deblurrer()(x, kernel=kernel), rtol=1e-4, atol=1e-4
    )


def test_transfer_functions_that_would_fill_the_memory_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = ConverseDnCNN(1, num_features=4, num_blocks=2, rngs=nnx.Rngs(0))
    restorer = Restorer(model, card())
    # Enough for the network, of whose memory the transfer functions are more than a fifth.
    monkeypatch.setattr(_programs, "available_memory", lambda: 250_000)
    restored = restorer(image(20, 20, 1))
    (program,) = restorer._programs._programs.values()
    assert program.collect is None
    np.testing.assert_allclose(restored, model(image(20, 20, 1)), rtol=1e-5, atol=1e-5)


def test_an_image_that_does_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = Restorer(Deblur(), card("deblur", needs_kernel=True))
    kernel = gaussian_kernel(7, 1.0)
    monkeypatch.setattr(_programs, "available_memory", lambda: 1_000_000)
    restorer(image(8, 8, 1), kernel=kernel)
    gigabytes = r"\(0\.00\d+ GB of 0\.001 GB available\)"
    text = f"image: 200x300 pixels need more memory than is available {gigabytes}; cut the image"
    with pytest.raises(RestoreError, match=text):
        restorer(image(300, 200, 1), kernel=kernel, tile=0)
    tiles: list[tuple[int, int]] = []
    in_tiles = restorer(image(300, 200, 1), kernel=kernel, on_tile=lambda *done: tiles.append(done))
    assert len(tiles) > 2 and tiles[-1][0] == tiles[-1][1]
    monkeypatch.setattr(_programs, "available_memory", lambda: None)
    whole = restorer(image(300, 200, 1), kernel=kernel)
    assert in_tiles.shape == whole.shape == (300, 200, 1)
    assert np.sqrt(np.mean((in_tiles - whole) ** 2)) < 1e-3


def test_a_device_whose_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = Restorer(Enlarge(), card())

    def fail(text: str) -> Any:
        def program(*_: Any) -> Any:
            raise jax.errors.JaxRuntimeError(text)

        return lambda *_: _programs._Program(program, None)

    monkeypatch.setattr(restorer._programs, "_program", fail("RESOURCE_EXHAUSTED: Out of memory"))
    with pytest.raises(RestoreError, match=r"5x4 pixels .* \(the device's is full\); cut"):
        restorer(image(4, 5, 1))
    monkeypatch.setattr(restorer._programs, "_program", fail("INTERNAL: other"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="other"):
        restorer(image(4, 5, 1))


def test_available_memory() -> None:
    meminfo = Path("/proc/meminfo")
    available = _programs.available_memory()
    if meminfo.exists():
        total = 1024 * int(meminfo.read_text().split()[1])
        assert available is not None and 2**20 < available <= total
    else:
        assert available is None


# Kernels


@pytest.mark.parametrize("shape", [(3, 3), (2, 3), (4, 4), (1, 7), (6, 5), (7, 7)])
def test_a_small_kernel_is_padded_about_its_middle(shape: tuple[int, int]) -> None:
    kernel = image(*shape) / image(*shape).sum()
    fitted, notes = deblurrer().prepare_kernel(kernel)
    assert fitted is not None and fitted.shape == (7, 7)
    x = image(11, 13, 1).astype(np.float64)
    np.testing.assert_allclose(circular_blur(x, fitted), circular_blur(x, kernel), atol=1e-7)
    padded = [f"the kernel of {shape[0]}x{shape[1]} was padded with zeros to 7x7"]
    assert notes == ([] if shape == (7, 7) else padded)


def test_a_rim_of_zeros_is_cut() -> None:
    kernel = np.pad(gaussian_kernel(7, 1.0), ((4, 3), (4, 4)))
    fitted, notes = deblurrer().prepare_kernel(kernel)
    np.testing.assert_array_equal(fitted, gaussian_kernel(7, 1.0))
    assert notes == ["the kernel of 14x15 was cut to 7x7: what lay outside is zero"]
    fitted, notes = deblurrer().prepare_kernel(gaussian_kernel(9, 1.0))  # next to zero
    np.testing.assert_allclose(fitted, gaussian_kernel(7, 1.0), rtol=1e-12)
    assert notes == ["the kernel of 9x9 was cut to 7x7: what lay outside is 0.0005 of it"]
    with pytest.raises(RestoreError, match="kernel: got 9x9, .* takes at most 7x7; crop it, or e"):
        deblurrer().prepare_kernel(gaussian_kernel(9, 1.2))
    with pytest.raises(RestoreError, match=r"kernel: got 14x15, .*; move its .* \(--center-k"):
        deblurrer().prepare_kernel(np.roll(kernel, 1, axis=0))  # cut, it would be off center


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (np.ones(3), r"kernel: got shape \(3,\); expected a two-dimensional \[kh, kw\]"),
        (np.ones((3, 3, 1)), r"kernel: got shape \(3, 3, 1\)"),
        (np.ones((0, 3)), r"kernel: got shape \(0, 3\)"),
        (np.ones((3, 3), complex), "kernel: got complex128; expected real numbers"),
        (np.ones((3, 3), bool), "kernel: got bool; expected real numbers"),
        (np.full((3, 3), np.nan), "kernel: holds NaN or infinity"),
        (np.array([[1.0, -1.0]]), "kernel: its taps sum to 0; give a blur kernel"),
        (np.zeros((3, 3)), "kernel: its taps sum to 0"),
        (np.ones((9, 3)), r"kernel: got 9x3, small \(Small\) takes at most 7x7"),
        (None, r"kernel: small \(Small\) needs the blur kernel; give one"),
    ],
)
def test_refused_kernels(kernel: np.ndarray | None, text: str) -> None:
    with pytest.raises(RestoreError, match=text):
        deblurrer()(image(12, 12, 1), kernel=kernel)


def test_a_kernel_without_a_use_is_refused() -> None:
    with pytest.raises(RestoreError, match=r"kernel: small \(Small\) takes none; leave it out"):
        Restorer(Enlarge(), card())(image(4, 4, 1), kernel=np.ones((3, 3)))


# Ensemble


def test_the_ensemble_turns_the_kernel_too() -> None:
    restorer, x = deblurrer(), image(12, 9, 1)
    kernel = image(5, 7, seed=1) ** 4  # nothing symmetric about it
    options = {"kernel": kernel / kernel.sum(), "extend_borders": False}
    plain = restorer(x, **options)
    np.testing.assert_allclose(restorer(x, **options, self_ensemble=True), plain, atol=2e-6)
    turned = restorer(np.rot90(x), kernel=np.rot90(options["kernel"]), extend_borders=False)
    np.testing.assert_allclose(turned, np.rot90(plain), atol=2e-6)
    # Were the kernel left alone, it would be another image.
    other = restorer(np.rot90(x), kernel=np.pad(options["kernel"], ((1, 1), (0, 0))))
    assert np.abs(other - np.rot90(plain)).max() > 0.05


def test_the_ensemble_is_the_mean_of_8() -> None:
    restorer, x = Restorer(Ramp(), card()), image(5, 4, 1)
    row = np.arange(5, dtype=np.float32)[:, None, None]
    column = np.arange(4, dtype=np.float32)[None, :, None]
    ramps = [row, 4 - row, column, 3 - column]
    np.testing.assert_allclose(restorer(x, self_ensemble=True), x * sum(ramps) / 4, rtol=1e-6)


def test_the_ensemble_enlarges() -> None:
    restorer, x = Restorer(Enlarge(2), card("sr", 3, 2)), image(5, 4, 3)
    want = x.repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(restorer(x, self_ensemble=True), want, rtol=1e-6)


def test_an_even_kernel_has_no_middle_to_turn_about() -> None:
    with pytest.raises(RestoreError, match="self_ensemble: .* of 4x4 have no center"):
        deblurrer(4)(image(9, 9, 1), kernel=gaussian_kernel(3, 1.0), self_ensemble=True)


# Borders


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 1), (20, 31, 3)])
def test_the_extension_wraps_around_smoothly(shape: tuple[int, ...]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    smooth = (0.01 * rows + 0.02 * columns)[..., None] * np.ones(shape[2])
    extended = extend_periodically(smooth, ((12, 12), (12, 12)))
    assert extended.shape == (shape[0] + 24, shape[1] + 24, shape[2])
    np.testing.assert_array_equal(extended[12:-12, 12:-12], smooth)
    for axis in (0, 1):
        step = np.abs(extended - np.roll(extended, 1, axis)).max()
        assert step < 0.08  # the jump from one side to the other would be up to 0.8


def test_the_extension_is_blurred_outside_and_only_there() -> None:
    x, kernel = image(20, 16, 1), motion_kernel(7, length=6, angle=70)
    borders = ((10, 10), (10, 10))
    sharp, tapered = (extend_periodically(x, borders, kernel=k) for k in (None, kernel))
    inside = np.zeros(sharp.shape, bool)
    inside[10:-10, 10:-10] = True
    np.testing.assert_array_equal(tapered[inside], np.ravel(x))
    want = circular_blur(sharp, kernel)
    np.testing.assert_allclose(tapered[~inside], want[~inside], atol=1e-6)


def scene() -> np.ndarray:
    """Something with edges and gradients, bright on one side and dark on the other."""
    y, x = np.mgrid[:120, :120] / 120
    stripes = 0.15 * np.sign(np.sin(40 * x + 25 * y**2)) + 0.1 * np.sin(90 * y * x)
    return (0.5 + 0.3 * (x - 0.5) + 0.2 * (y - 0.5) + stripes)[..., None].astype(np.float32)


@pytest.mark.parametrize("known", [True, False])
def test_extended_borders_restore_a_photograph(known: bool) -> None:
    kernel = motion_kernel(7, length=6, angle=30)
    whole = scene()
    # A photograph shows a part of what was blurred: nothing wraps around.
    blurred = circular_blur(whole, kernel)[20:-20, 20:-20]
    clean = whole[20:-20, 20:-20]
    blurred = blurred + np.random.default_rng(0).normal(0, 0.01, blurred.shape).astype(np.float32)

    def error_at_the_border(**options: Any) -> float:
        if known:
            restored = deblurrer()(blurred, kernel=kernel, **options)
        else:  # a blind network: one that has the kernel in it
            blind = Restorer(Blind(kernel), card("deblur"))
            restored = blind(blurred, **options)
        difference = (restored - clean) ** 2
        difference[8:-8, 8:-8] = np.nan
        return -10 * math.log10(np.nanmean(difference))

    assert error_at_the_border() > error_at_the_border(extend_borders=False) + 3


class Blind(nnx.Module):
    def __init__(self, kernel: np.ndarray) -> None:
        self.kernel = nnx.Param(jnp.asarray(kernel[..., None], jnp.float32))

    def __call__(self, x: Array) -> Array:
        return converse2d(x, self.kernel[...], 0.01)


def test_only_deblurring_extends() -> None:
    seen = []

    class Seeing(nnx.Module):
        def __call__(self, x: Array) -> Array:
            seen.append(x.shape)
            return x

    for task, height in (("denoise", 6), ("sr", 6), ("deblur", 6 + 48)):
        Restorer(Seeing(), card(task))(image(6, 5, 1))
        assert seen[-1] == (height, height - 1, 1)


# Images


def test_an_image_keeps_what_belongs_to_it() -> None:
    given = Image(image(6, 5, 3), bits=16, icc_profile=profile(b"RGB "), exif=exif(1))
    got = apply_to_image(Restorer(Enlarge(2, gain=2.0), card("sr", 3, 2)), given)
    assert (got.bits, got.icc_profile, got.exif) == (16, given.icc_profile, given.exif)
    want = np.clip(2 * given.pixels.repeat(2, 0).repeat(2, 1), 0, 1)
    np.testing.assert_array_equal(got.pixels, want)
    assert got.alpha is None


def test_the_size_in_print_stays() -> None:
    given = Image(image(6, 5, 1), resolution=Resolution(300, 150))
    got = apply_to_image(Restorer(Enlarge(2), card("sr", 1, 2)), given)
    assert got.resolution == Resolution(600, 300)


def test_only_floats_keep_values_outside_the_unit() -> None:
    given = Image(np.full((2, 2, 1), 0.75, np.float32), bits=32)
    double = Restorer(Enlarge(gain=2.0), card())
    assert (apply_to_image(double, given).pixels == 1.5).all()
    assert (apply_to_image(double, replace(given, bits=16)).pixels == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_would_spread_to_the_whole_image_are_refused(value: float) -> None:
    given = image(4, 4, 1)
    given[1, 2] = value
    with pytest.raises(RestoreError, match="image: got 1 values that are NaN or infinite"):
        Restorer(Mix(), card())(given)


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_restored_as_a_gray_image(channels: int) -> None:
    restorer = Restorer(Enlarge(2, gain=0.5), card("sr", channels, 2))
    given = Image(image(6, 5, 3), alpha=image(6, 5, seed=2))
    got = apply_to_image(restorer, given)
    assert given.alpha is not None and got.alpha is not None
    want = 0.5 * given.alpha.repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(got.alpha, want, rtol=1e-6)


@pytest.mark.parametrize("level", [0.0, 128 / 255, 1.0])
def test_a_constant_alpha_stays_exactly_constant(level: float) -> None:
    given = Image(image(6, 5, 1), alpha=np.full((6, 5), level, np.float32))
    got = apply_to_image(Restorer(Enlarge(3, gain=0.7), card("sr", 1, 3)), given)
    assert got.alpha is not None and got.alpha.shape == (18, 15)
    assert (got.alpha == np.float32(level)).all() and got.alpha.dtype == np.float32
