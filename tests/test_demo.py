"""The demo of the operator: what it promises, and the image it makes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converse_jax import _sheet
from converse_jax.demo import demo_operator
from converse_jax.demo._operator import bicubic_x2, noise_to_signal, photograph
from converse_jax.imaging import ImageError, gaussian_kernel, psnr, read_image, resize, to_uint8


def test_the_demo(tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    deblurred, enlarged = demo_operator(target)
    assert deblurred.psnr_after >= deblurred.psnr_before + 1.5
    assert enlarged.psnr_after >= enlarged.psnr_before + 1.0
    clean = to_uint8(photograph())
    for result in (deblurred, enlarged):
        assert result.psnr_before == psnr(to_uint8(result.before), clean)
        assert result.psnr_after == psnr(to_uint8(result.after), clean)
    # The enlargement is compared with the better of two: the usual one is shifted half a pixel.
    small = enlarged.before[::2, ::2]
    assert enlarged.psnr_before > psnr(to_uint8(resize(small, scale=2)), clean)

    sheet = read_image(target)
    assert sheet.pixels.shape == (_sheet._TITLE + 2 * (384 + 54) + 20, 3 * 384 + 4 * 20, 3)
    assert (sheet.pixels[:, :20] == 1).all() and (sheet.pixels[:, -20:] == 1).all()
    captions = sheet.pixels[_sheet._TITLE + 384 : _sheet._TITLE + 384 + 54]
    for left in (20, 424, 828):
        assert captions[:, left : left + 384].min() < 0.2  # there is text

    before = target.read_bytes()
    with pytest.raises(ImageError, match=r"sheet\.png: exists already; name another file"):
        demo_operator(target)
    assert target.read_bytes() == before
    target.write_bytes(b"old")
    demo_operator(target, overwrite=True)
    assert target.read_bytes() == before  # the same each time
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_lambda_is_found_from_the_given_image_alone() -> None:
    rng = np.random.default_rng(0)
    kernel, noise, spread = gaussian_kernel(7, 1.2), 0.02, 0.3
    from converse_jax.imaging import circular_blur

    estimate = rng.random((256, 256))
    truth = estimate + rng.normal(0, spread, estimate.shape)
    given = circular_blur(truth, kernel) + rng.normal(0, noise, estimate.shape)
    lam = noise_to_signal(given, circular_blur(estimate, kernel), kernel, noise)
    assert lam == pytest.approx(noise**2 / spread**2, rel=0.02)
    nothing_but_noise = rng.normal(0, noise / 2, estimate.shape)
    assert noise_to_signal(nothing_but_noise, 0 * estimate, kernel, noise) == 1.0


def test_the_bicubic_enlargement_is_aligned() -> None:
    wave = np.cos(2 * np.pi * np.arange(64) / 64)
    fine = np.stack([wave[:, None] + 2 * np.roll(wave, 5)[None]] * 3, axis=-1)
    got = bicubic_x2(fine[::2, ::2])
    np.testing.assert_array_equal(got[::2, ::2], fine[::2, ::2])
    np.testing.assert_allclose(got, fine, atol=2e-3)  # half a pixel off would be 0.1


def test_without_the_photograph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec

    def find_all_but_one(name: str, *rest: Any) -> Any:
        return None if name == "skimage" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_all_but_one)
    with pytest.raises(ImageError, match=r'scikit-image: pip install "converse-jax\[app\]"'):
        demo_operator(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_the_photograph_is_read_without_its_package() -> None:
    code = """
import sys
from converse_jax.demo._operator import photograph
assert "PIL" not in sys.modules
photograph()
print([name for name in ("skimage", "pooch", "urllib.request") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
