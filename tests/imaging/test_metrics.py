"""PSNR, SSIM and luma against loops over the definition, and against the authors' numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from converse_jax.imaging import psnr, rgb_to_y, ssim


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, shape)
    b = np.clip(a + rng.normal(0, 20, shape), 0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


def direct_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """One 11x11 window after the other, one channel."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    window = np.array(
        [
            [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)]
            for i in range(11)
        ]
    )
    window /= window.sum()
    c1, c2 = 6.5025, 58.5225
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            values.append(
                (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
            )
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(11, 11), (14, 19), (13, 12, 3)])
def test_ssim_equals_the_window_by_window_definition(shape: tuple[int, ...]) -> None:
    a, b = pair(shape)
    planes = [(a, b)] if a.ndim == 2 else [(a[..., c], b[..., c]) for c in range(3)]
    want = np.mean([direct_ssim(x, y) for x, y in planes])
    assert ssim(a, b) == pytest.approx(want, abs=1e-10)


def test_psnr_by_hand() -> None:
    a = np.zeros((2, 2), np.uint8)
    b = np.array([[1, 2], [3, 4]], np.uint8)  # mean square 7.5
    assert psnr(a, b) == pytest.approx(10 * math.log10(65025 / 7.5), abs=1e-12)
    assert psnr(a, np.full_like(a, 255)) == pytest.approx(0.0, abs=1e-12)


def test_differences_do_not_wrap_and_are_symmetric() -> None:
    a, b = np.full((4, 4), 10, np.uint8), np.full((4, 4), 20, np.uint8)
    assert psnr(a, b) == psnr(b, a) == pytest.approx(20 * math.log10(25.5), abs=1e-12)


def test_identical_images() -> None:
    a, _ = pair((16, 12, 3))
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)


def test_border_is_cropped_before_measuring() -> None:
    a, b = pair((24, 20, 3))
    b[:2] = 255 - a[:2]
    inner = (slice(3, -3), slice(3, -3))
    assert psnr(a, b, border=3) == psnr(a[inner], b[inner])
    assert ssim(a, b, border=3) == ssim(a[inner], b[inner])
    assert psnr(a, b, border=3) > psnr(a, b)


def test_luma() -> None:
    colors = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    got = rgb_to_y(colors.astype(np.uint8))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, [[16, 235, 81, 145, 41]])  # the table of BT.601
    exact = rgb_to_y(colors / 255.0)
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact * 255, [[16, 235, 81.481, 144.553, 40.966]], atol=1e-12)
    assert rgb_to_y(np.zeros((2, 2, 3), np.float32)).dtype == np.float32


def test_refusals_name_the_argument() -> None:
    a, b = pair((16, 12, 3))
    with pytest.raises(ValueError, match="a: got dtype float64"):
        psnr(a / 255.0, b)
    with pytest.raises(ValueError, match="b: got dtype float32"):
        ssim(a, b.astype(np.float32))
    with pytest.raises(ValueError, match=r"a, b: got shapes \(16, 12, 3\) and \(16, 12\)"):
        psnr(a, b[..., 0])
    with pytest.raises(ValueError, match="border: got 6 for an image of 16x12; expected 0 to 5"):
        psnr(a, b, border=6)
    with pytest.raises(ValueError, match="border: got -1"):
        psnr(a, b, border=-1)
    with pytest.raises(
        ValueError, match="12x8 pixels inside a border of 2; SSIM needs at least 11"
    ):
        ssim(a, b, border=2)
    with pytest.raises(ValueError, match="image: got shape"):
        rgb_to_y(a[..., 0])
    with pytest.raises(ValueError, match="image: got dtype int64"):
        rgb_to_y(a.astype(np.int64))


@pytest.mark.parity
def test_equals_the_authors_numbers(golden: Path) -> None:
    data = np.load(golden / "metrics.npz")
    want = json.loads((golden / "metrics.json").read_text())
    a, b = data["a"], data["b"]
    ya, yb = rgb_to_y(a), rgb_to_y(b)
    got = {
        "psnr_border0": psnr(a, b),
        "psnr_border4": psnr(a, b, border=4),
        "ssim_border0": ssim(a, b),
        "ssim_border4": ssim(a, b, border=4),
        "psnr_y_border4": psnr(ya, yb, border=4),
        "ssim_y_border4": ssim(ya, yb, border=4),
    }
    assert got == pytest.approx(want, abs=1e-9)
