"""The estimate of an image's noise: right for white noise, near 0 without, never undefined."""

import numpy as np
import pytest

from converse_jax.imaging import estimate_noise


def gradient(channels: int) -> np.ndarray:
    y, x = np.mgrid[:160, :200] / 200
    image = np.stack([0.2 + 0.5 * x, 0.7 - 0.4 * y, 0.3 + 0.2 * x * y], axis=-1)
    return image[..., :channels]


def scene(channels: int) -> np.ndarray:
    """Half of it smooth, half of it stripes and checks of full contrast."""
    y, x = np.mgrid[:160, :200]
    texture = 0.25 * np.sin(x * y / 40) + 0.2 * np.sign(np.sin(1.9 * x) * np.sin(1.3 * y))
    image = gradient(channels).copy()
    image[:, 100:] = 0.5 + texture[:, 100:, None]
    return image


MADE = {"gradient": gradient, "scene": scene, "gray": lambda c: np.full((160, 200, c), 0.5)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("level", [0, 1, 5, 15, 25, 50])
def test_white_noise(level: int, made: str, channels: int) -> None:
    clean = MADE[made](channels)
    noise = np.random.default_rng(level).standard_normal(clean.shape) * level / 255
    estimate = 255 * estimate_noise(clean + noise)
    assert estimate == pytest.approx(level, rel=0.08, abs=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_clean_image_of_8_bits_has_the_noise_of_its_rounding(channels: int) -> None:
    for made in MADE.values():
        image = np.rint(made(channels) * 255).astype(np.float32) / np.float32(255)
        assert 255 * estimate_noise(image) < 0.4


def test_texture_everywhere_is_not_all_taken_for_noise() -> None:
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft2(rng.standard_normal((256, 256, 1)), axes=(0, 1))
    y, x = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)
    spectrum[..., 0] /= np.maximum(np.hypot(y, x), 1 / 256) ** 2  # the spectrum of clouds
    clouds = np.fft.irfft2(spectrum, s=(256, 256), axes=(0, 1))
    clouds = 0.5 + 0.15 * clouds / clouds.std()
    assert 255 * estimate_noise(clouds) < 1


def test_clipped_parts_say_nothing() -> None:
    image = scene(3)
    image += np.random.default_rng(1).standard_normal(image.shape) * 10 / 255
    image[:120] = 1
    assert 255 * estimate_noise(image) == pytest.approx(10, rel=0.15)


def test_samples_that_are_not_finite_are_passed_over() -> None:
    image = gradient(3) + np.random.default_rng(2).standard_normal((160, 200, 3)) * 10 / 255
    image[3, 5], image[50, 60, 1] = np.nan, np.inf
    assert 255 * estimate_noise(image) == pytest.approx(10, rel=0.08)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 3), (7, 300, 3), (8, 8, 1), (9, 8, 3), (8, 8, 4)]
)
def test_any_size_has_an_estimate(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0).random(shape)
    for image in (random, random.astype(np.float16), np.zeros(shape), np.ones(shape), random * 0.5):
        estimate = estimate_noise(image)
        assert type(estimate) is float
        assert 0 <= estimate < 1
        if min(shape[:2]) < 8 or np.ptp(image) == 0:
            assert estimate == 0
    assert estimate_noise(np.full(shape, np.nan)) == 0


def test_the_image_is_not_changed_and_the_estimate_the_same_again() -> None:
    image = scene(3).astype(np.float32)
    before = image.copy()
    assert estimate_noise(image) == estimate_noise(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((9, 9, 3), np.uint8), r"image: got uint8 \(9, 9, 3\); expected floats"),
        (np.zeros((9, 9)), r"image: got float64 \(9, 9\); expected floats"),
        (np.zeros((0, 9, 1)), r"image: got float64 \(0, 9, 1\); expected floats"),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        estimate_noise(image)
