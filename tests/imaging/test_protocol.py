"""The evaluation protocol against its steps written out by hand."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converse_jax import imaging
from converse_jax.imaging import (
    circular_blur,
    degrade_deblur,
    degrade_denoise,
    degrade_sr,
    gaussian_kernel,
    motion_kernel,
    psnr,
    resize,
    rgb_to_y,
    score,
    ssim,
    to_uint8,
)


def image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", [(9, 7, 1), (9, 7), (6, 5, 3)])
def test_denoise(shape: tuple[int, ...]) -> None:
    clean = image(*shape)
    noisy, target = degrade_denoise(clean, sigma=25.0)
    assert noisy.dtype == np.float32 and noisy.shape == shape
    np.testing.assert_array_equal(target, clean)
    noise = np.random.RandomState(0).normal(0, 25 / 255.0, shape)
    np.testing.assert_array_equal(noisy, (clean / 255.0 + noise).astype(np.float32))
    again, _ = degrade_denoise(clean)
    np.testing.assert_array_equal(noisy, again)  # seeded anew, and 25 is the default
    assert degrade_denoise(np.zeros((32, 32), np.uint8))[0].min() < 0  # not clipped


def test_sr_crops_and_does_not_round() -> None:
    clean = image(19, 14, 3)
    low, target = degrade_sr(clean, scale=4)
    np.testing.assert_array_equal(target, clean[:16, :12])
    assert low.dtype == np.float32 and low.shape == (4, 3, 3)
    np.testing.assert_array_equal(
        low, resize(clean[:16, :12] / 255.0, scale=0.25).astype(np.float32)
    )
    assert not np.allclose(low * 255, np.round(low * 255), atol=1e-3)


def test_sr_by_a_factor_without_an_exact_float() -> None:
    for scale in (3, 7, 49):
        low, target = degrade_sr(image(2 * scale + 1, 3 * scale, 3), scale=scale)
        assert low.shape == (2, 3, 3) and target.shape == (2 * scale, 3 * scale, 3)


@pytest.mark.parametrize("shape", [(19, 30, 3), (17, 8)])
def test_deblur_truncates_to_8_bits(shape: tuple[int, ...]) -> None:
    clean = image(*shape)
    kernel = motion_kernel(7, length=5.0, angle=35.0)
    low, target = degrade_deblur(clean, kernel)
    crop = clean[: shape[0] // 8 * 8, : shape[1] // 8 * 8]
    np.testing.assert_array_equal(target, crop)
    noise = np.random.RandomState(0).normal(0, 2.55 / 255, crop.shape)
    without = (low.astype(np.float64) - noise) * 255
    np.testing.assert_allclose(without, np.round(without), atol=1e-4)  # whole levels
    exact = circular_blur(crop.astype(np.float64), kernel)
    np.testing.assert_array_equal(np.round(without), np.floor(exact))
    assert low.dtype == np.float32


def test_negative_taps_stay_within_8_bits() -> None:
    sharpen = np.array([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    clean = image(16, 16, 1)
    low, _ = degrade_deblur(clean, sharpen, sigma=0)
    exact = circular_blur(clean.astype(np.float64), sharpen)
    assert exact.min() < -50 and exact.max() > 300
    np.testing.assert_allclose(low * 255, np.clip(np.round(exact), 0, 255), atol=1e-4)


def test_to_uint8() -> None:
    values = np.array([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 2.0, np.inf, -np.inf])
    np.testing.assert_array_equal(to_uint8(values), [0, 0, 0, 1, 255, 255, 255, 0])
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(every.astype(np.float32) / np.float32(255)), every)


@pytest.mark.parametrize(
    ("task", "scale", "border"), [("denoise", 4, 0), ("sr", 3, 3), ("deblur", 4, 1)]
)
def test_score_has_the_border_of_the_task(task: imaging.Task, scale: int, border: int) -> None:
    a, b = image(24, 28, 3), image(24, 28, 3, seed=1)
    got = score(a, b, task=task, scale=scale)
    assert got == {
        "psnr": psnr(a, b, border=border),
        "ssim": ssim(a, b, border=border),
        "psnr_y": psnr(rgb_to_y(a), rgb_to_y(b), border=border),
        "ssim_y": ssim(rgb_to_y(a), rgb_to_y(b), border=border),
    }


def test_gray_is_its_own_luma() -> None:
    a, b = image(16, 16, 1), image(16, 16, 1, seed=1)
    got = score(a, b, task="denoise")
    assert got["psnr"] == got["psnr_y"] == psnr(a, b)
    assert got["ssim"] == got["ssim_y"]
    assert got == score(a[..., 0], b[..., 0], task="denoise")


def test_a_perfect_restoration_scores_infinity() -> None:
    a = image(20, 20, 3)
    got = score(a, a.copy(), task="sr", scale=2)
    assert got["psnr"] == got["psnr_y"] == math.inf
    assert got["ssim"] == pytest.approx(1.0)


def test_refusals_name_the_argument() -> None:
    clean = image(16, 16, 3)
    with pytest.raises(ValueError, match="clean: got dtype float64"):
        degrade_denoise(clean / 255.0)
    with pytest.raises(ValueError, match="clean: got shape"):
        degrade_sr(clean[None])
    with pytest.raises(ValueError, match="scale: got 0"):
        degrade_sr(clean, scale=0)
    with pytest.raises(ValueError, match="kernel: got shape"):
        degrade_deblur(clean, np.ones(3) / 3)
    with pytest.raises(ValueError, match="kernel: got sum 9; expected a blur kernel, of sum 1"):
        degrade_deblur(clean, np.ones((3, 3)))
    with pytest.raises(ValueError, match="no multiple of 8"):
        degrade_deblur(clean[:7], gaussian_kernel(3, 1.0))
    with pytest.raises(ValueError, match="image: got dtype uint8"):
        to_uint8(clean)
    with pytest.raises(ValueError, match="image: holds NaN"):
        to_uint8(np.array([np.nan]))
    with pytest.raises(ValueError, match="task: got 'inpaint'"):
        score(clean, clean, task="inpaint")


def test_the_import_loads_no_codec_and_no_scipy() -> None:
    # A bare parent package: what the rest of the library imports is not the matter here.
    code = f"""
import sys, types
parent = types.ModuleType("converse_jax")
parent.__path__ = [{str(Path(imaging.__file__).parents[1])!r}]
sys.modules["converse_jax"] = parent
import converse_jax.imaging
loaded = {{name.split(".")[0] for name in sys.modules}}
print(sorted(loaded & {{"PIL", "imagecodecs", "scipy", "tifffile", "jax"}}))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_function_and_class_is_documented() -> None:
    for name in imaging.__all__:
        value = getattr(imaging, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            assert value.__doc__, name
