"""Photographs as cameras store them: what is drawn, what is reported, what stays as it is."""

import dataclasses
import pickle

import numpy as np
import pytest

from train.camera import Photo, degrade_as_camera, phone_like
from train.data import example


def scene(channels: int = 3, height: int = 112, width: int = 112) -> np.ndarray:
    """Smooth colors, some edges, nothing clipped."""
    y, x = np.mgrid[:height, :width] / 112
    image = np.stack([60 + 120 * x, 180 - 90 * y, 90 + 80 * x * y], axis=-1)
    image[30:70, 20:60] += 40
    return np.rint(image[..., :channels]).astype(np.uint8)


def photographs(photo: Photo, count: int, channels: int = 3) -> list[tuple[np.ndarray, float]]:
    clean = scene(channels)
    return [degrade_as_camera(clean, np.random.default_rng(i), photo=photo) for i in range(count)]


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_are_whole_levels_of_255(channels: int) -> None:
    for given, sigma in photographs(Photo(), 40, channels):
        assert given.dtype == np.float32
        assert given.shape == (112, 112, channels)
        np.testing.assert_array_equal(given, np.rint(given * 255).astype(np.float32) / 255)
        assert 0 <= given.min() <= given.max() <= 1
        assert 0 <= sigma < 0.3


@pytest.mark.parametrize("channels", [1, 3])
def test_an_example_is_a_function_of_its_generator(channels: int) -> None:
    task = pickle.loads(pickle.dumps(Photo()))
    large = scene(channels, 150, 170)
    first, again = (
        [example(task, large, 96, np.random.default_rng([s, 3])) for s in range(10)]
        for _ in range(2)
    )
    for a, b in zip(first, again, strict=True):
        assert a.keys() == {"input", "target", "sigma"}
        for key in a:
            assert a[key].dtype == np.float32
            np.testing.assert_array_equal(a[key], b[key])
        assert a["input"].shape == a["target"].shape == (96, 96, channels)
        assert a["sigma"].shape == ()
    assert len({float(a["sigma"]) for a in first}) > 5


def test_a_good_share_is_clean_and_a_third_of_it_untouched() -> None:
    clean = scene() / np.float32(255)
    found = photographs(Photo(), 600)
    untouched = [sigma for given, sigma in found if np.array_equal(given, clean)]
    assert set(untouched) == {0.0}
    assert 0.05 < len(untouched) / 600 < 0.12  # 1/12 and a few
    assert 0.2 < np.mean([sigma < 1.5 / 255 for _, sigma in found]) < 0.45
    nothing_else = photographs(Photo(clean=1), 100)
    assert max(sigma for _, sigma in nothing_else) < 1.6 / 255
    worst = max(float(np.abs(given - clean).max()) for given, _ in nothing_else)
    assert worst < 40 / 255


def test_most_noise_is_of_1_to_10_levels() -> None:
    levels = 255 * np.array([sigma for _, sigma in photographs(Photo(clean=0), 300)])
    assert np.mean((levels >= 1) & (levels <= 10)) > 0.7
    assert 12 < levels.max() < 40


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [0, 1])
def test_the_reported_level_is_that_of_the_noise(white: float, channels: int) -> None:
    photo = Photo(clean=0, white=white, blur=0, jpeg=0, noise_min=5, noise_max=5)
    clean = scene(channels) / np.float32(255)
    for given, sigma in photographs(photo, 10, channels):
        assert sigma == pytest.approx(float(np.sqrt(np.mean((given - clean) ** 2))), rel=1e-4)
        # Of a camera's noise, that of middle gray was asked for.
        assert 255 * sigma == pytest.approx(5, rel=0.03 if white else 0.8)


def test_a_camera_s_noise_grows_with_light_and_is_smooth() -> None:
    photo = Photo(clean=0, white=0, blur=0, jpeg=0, noise_min=4, noise_max=4)
    clean = np.full((64, 128, 3), 118, np.uint8)
    linear, correlations = [], []
    for i in range(20):
        given, _ = degrade_as_camera(clean, np.random.default_rng(i), photo=photo)
        noise = given - given.mean(axis=(0, 1))
        neighbors = np.mean(noise[:, 1:] * noise[:, :-1], axis=(0, 1)) / np.mean(noise**2, (0, 1))
        correlations.append(neighbors)
    assert np.mean(correlations) > 0.2  # white noise has 0
    for value in (30, 220):  # in linear light the bright half has more
        gray = np.full((64, 64, 3), value, np.uint8)
        given, _ = degrade_as_camera(gray, np.random.default_rng(1), photo=photo)
        linear.append(float(np.std(given.astype(np.float64) ** 2.2)))
    assert linear[1] > 2 * linear[0]


def test_jpeg_alone_has_no_noise_to_report() -> None:
    photo = Photo(clean=0, noise_min=1e-6, noise_max=1e-6, blur=0, jpeg=1, quality_max=60)
    clean = scene() / np.float32(255)
    for given, sigma in photographs(photo, 10):
        assert sigma == 0
        assert not np.array_equal(given, clean)


def test_the_grid_of_jpeg_begins_anywhere() -> None:
    photo = Photo(
        clean=0, noise_min=1e-6, noise_max=1e-6, blur=0, jpeg=1, quality_min=10, quality_max=10
    )
    row = np.rint(100 + 60 * np.sin(np.arange(112) / 9))
    ramp = np.repeat(row[None, :, None], 112, axis=0).astype(np.uint8)
    offsets = set()
    for i in range(60):
        given, _ = degrade_as_camera(ramp, np.random.default_rng(i), photo=photo)
        error = (given[..., 0] * 255 - ramp[..., 0]).mean(axis=0)
        jumps = np.abs(np.diff(error))[: 8 * 13].reshape(13, 8).sum(axis=0)
        offsets.add(int(jumps.argmax()))
    assert offsets == set(range(8))


def test_blur_is_of_the_input_alone() -> None:
    photo = Photo(clean=0, blur=1, jpeg=0, noise_min=0.01, noise_max=0.01)
    clean = scene()
    changed = 0
    for i in range(10):
        made = photo.degrade(clean, np.random.default_rng(i))
        np.testing.assert_array_equal(made["target"], clean / np.float32(255))
        changed += np.abs(made["input"] - made["target"]).max() > 2 / 255
    assert changed > 5


def test_the_estimate_is_told_of_its_share() -> None:
    clean = scene()
    told = [
        float(
            Photo(estimated=share, noise_min=0.4, noise_max=0.4, jpeg=0, clean=1).degrade(
                clean, np.random.default_rng(i)
            )["sigma"]
        )
        for share in (0.0, 1.0)
        for i in range(30)
    ]
    assert 0.0 in told[:30]
    assert 0.0 not in told[30:]  # rounding to 8 bits is found
    assert max(told) < 1.5 / 255


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (2, 3, 3), (5, 1, 1), (1, 17, 3)])
def test_small_images(shape: tuple[int, int, int]) -> None:
    clean = np.full(shape, 128, np.uint8)
    for i in range(20):
        given, sigma = degrade_as_camera(clean, np.random.default_rng(i))
        assert given.shape == shape
        assert np.isfinite(sigma)


@pytest.mark.parametrize("clean", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)])
def test_other_images_are_refused(clean: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"clean: got .*; expected uint8 \[H, W, 1\]"):
        degrade_as_camera(clean, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clean", 1.5),
        ("estimated", -0.1),
        ("noise_min", 0),
        ("noise_max", 0.1),
        ("blur_max", 3),
        ("quality_min", 99),
        ("quality_max", 101),
    ],
)
def test_values_that_cannot_be_are_named(field: str, value: float) -> None:
    assert Photo().problem() is None
    problem = dataclasses.replace(Photo(), **{field: value}).problem()
    assert problem is not None
    assert f"task.{field.replace('_', '-')}" in problem
    assert f"got {value}" in problem or f"and {value}" in problem
    assert "expected" in problem


@pytest.mark.parametrize("channels", [1, 3])
def test_the_photograph_of_acceptance(channels: int) -> None:
    clean = scene(channels)
    for i in range(8):
        given = phone_like(clean, np.random.default_rng(i))
        assert given.dtype == np.float32
        assert given.shape == clean.shape
        error = 255 * np.sqrt(np.mean((given - clean / np.float32(255)) ** 2))
        assert 1 < error < 7
        np.testing.assert_array_equal(given, phone_like(clean, np.random.default_rng(i)))
