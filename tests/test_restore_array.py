"""The command's work in one call: arrays of every kind, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converse_jax import bundled, restore_image
from converse_jax.imaging import Image, read_image, write_image
from converse_jax.restore import RestoreError


def image(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.5 + 0.05 * rng.standard_normal(shape)).astype(np.float32).clip(0, 1)


def test_arrays_come_back_as_they_came() -> None:
    color = image(32, 40, 3)
    want = restore_image(color, task="denoise", sigma=12.75)
    assert want.dtype == np.float32 and want.std() < 0.6 * color.std()
    got = restore_image(color.astype(np.float64), task="denoise", sigma=12.75)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, atol=1e-6)
    for dtype, largest in ((np.uint8, 255), (np.uint16, 65535)):
        array = np.rint(color * largest).astype(dtype)
        got = restore_image(array, task="denoise", sigma=12.75)
        assert got.dtype == dtype
        np.testing.assert_allclose(got / largest, want, atol=0.004)
    dim = np.rint(color * 4095).astype(np.uint16)
    got = restore_image(dim, task="denoise", sigma=12.75, white_level=4095)
    np.testing.assert_allclose(got / 4095, want, atol=0.004)


def test_axes_and_alpha() -> None:
    gray, alpha = image(32, 40), np.tile(np.linspace(0, 1, 40, dtype=np.float32), (32, 1))
    flat = restore_image(gray, task="denoise", sigma=12.75)
    assert flat.shape == (32, 40)
    both = restore_image(np.stack([gray, alpha], axis=-1), task="denoise", sigma=12.75)
    np.testing.assert_array_equal(both[..., 0], flat)
    np.testing.assert_array_equal(both[..., 1], alpha)
    large = restore_image(np.dstack([image(16, 20, 3), np.ones((16, 20), np.float32)]), task="sr")
    assert large.shape == (32, 40, 4)
    np.testing.assert_array_equal(large[..., 3], 1)


def test_files(tmp_path: Path) -> None:
    x = image(24, 24, 3)
    write_image(tmp_path / "a.png", Image(x, bits=16))
    given = read_image(tmp_path / "a.png").pixels
    got = restore_image(tmp_path / "a.png", strength=0.0)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, np.rint(given * 65535))


def test_networks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bundled.kept_restorer.cache_clear()
    for _ in range(3):
        restore_image(image(16, 16), task="denoise")
    assert bundled.kept_restorer.cache_info().misses == 1


def test_refused() -> None:
    x = image(16, 16, 3)
    for given, options, text in [
        (x[None], {}, r"image: got shape \(1, 16, 16, 3\); expected \[H, W\] or \[H, W, C\]"),
        (x > 0.5, {}, "image: got bool; expected uint8, uint16, or floats in"),
        (x, {"kernel": "box:3"}, "kernel: task 'photo' has no use for one; leave it out"),
        (x, {"task": "deblur"}, "needs the blur kernel"),
        (x, {"task": "sharpen"}, "task: got 'sharpen'; expected photo, denoise, sr, deblur"),
        (x, {"white_level": 0}, "white_level: got 0; expected a positive number"),
        (x, {"sigma": -1}, "sigma: got -0.0039"),
    ]:
        with pytest.raises(RestoreError, match=text):
            restore_image(given, **options)
