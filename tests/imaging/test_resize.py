"""Resizing against a direct sum written from the definition, and against the authors' numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from converse_jax.imaging import modcrop, resize


def cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def reflect(i: int, n: int) -> int:
    while not 0 <= i < n:
        i = -1 - i if i < 0 else 2 * n - 1 - i
    return i


def direct_1d(signal: np.ndarray, out_length: int, scale: float, kernel, half: float) -> np.ndarray:
    m = min(scale, 1.0)
    out = np.zeros((out_length, *signal.shape[1:]))
    for i in range(out_length):
        u = (i + 0.5) / scale - 0.5
        total = 0.0
        for j in range(math.floor(u - half / m) - 1, math.ceil(u + half / m) + 2):
            w = kernel((u - j) * m)
            out[i] += w * signal[reflect(j, len(signal))]
            total += w
        out[i] /= total
    return out


def direct(image, size, scales, kernel=cubic, half=2.0):
    rows = direct_1d(image, size[0], scales[0], kernel, half)
    return direct_1d(rows.swapaxes(0, 1), size[1], scales[1], kernel, half).swapaxes(0, 1)


@pytest.mark.parametrize("shape", [(12, 9, 3), (7, 13), (1, 1, 1), (2, 31, 3), (5, 5, 1)])
@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0])
def test_equals_the_direct_sum(shape: tuple[int, ...], scale: float) -> None:
    image = np.random.default_rng(0).random(shape)
    size = tuple(math.ceil(round(n * scale, 9)) for n in shape[:2])
    got = resize(image, scale=scale)
    assert got.shape == (*size, *shape[2:])
    np.testing.assert_allclose(got, direct(image, size, (scale, scale)), atol=1e-12)


def test_each_axis_has_its_own_scale_when_the_size_is_given() -> None:
    image = np.random.default_rng(1).random((10, 12, 2))
    np.testing.assert_allclose(
        resize(image, (4, 30)), direct(image, (4, 30), (0.4, 2.5)), atol=1e-12
    )


def test_bilinear_equals_the_direct_sum() -> None:
    image = np.random.default_rng(2).random((11, 8))
    want = direct(image, (5, 4), (5 / 11, 0.5), triangle, 1.0)
    np.testing.assert_allclose(resize(image, (5, 4), method="bilinear"), want, atol=1e-12)


def test_a_constant_stays_and_scale_one_changes_nothing() -> None:
    np.testing.assert_allclose(resize(np.full((9, 6, 3), 0.3), scale=0.4), 0.3, atol=1e-15)
    image = np.random.default_rng(3).random((6, 5))
    np.testing.assert_allclose(resize(image, scale=1.0), image, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_the_dtype_and_computes_in_float64(dtype: type) -> None:
    image = np.random.default_rng(4).random((16, 16, 3)).astype(dtype)
    got = resize(image, scale=0.25)
    assert got.dtype == dtype
    want = resize(image.astype(np.float64), scale=0.25).astype(dtype)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("n", "scale", "out"), [(49, 1 / 49, 1), (10, 1.1, 11), (7, 0.5, 4)])
def test_output_size_is_the_ceiling_but_for_rounding(n: int, scale: float, out: int) -> None:
    assert resize(np.zeros((n, n)), scale=scale).shape == (out, out)


def test_refusals_name_the_argument() -> None:
    image = np.zeros((4, 4))
    with pytest.raises(ValueError, match="image: got dtype uint8"):
        resize(np.zeros((4, 4), np.uint8), scale=0.5)
    with pytest.raises(ValueError, match="image: got shape"):
        resize(np.zeros(4), scale=0.5)
    with pytest.raises(ValueError, match="give exactly one"):
        resize(image)
    with pytest.raises(ValueError, match="give exactly one"):
        resize(image, (2, 2), scale=0.5)
    with pytest.raises(ValueError, match="scale: got -1"):
        resize(image, scale=-1.0)
    with pytest.raises(ValueError, match=r"size: got \(0, 2\)"):
        resize(image, (0, 2))
    with pytest.raises(ValueError, match="method: got 'lanczos'"):
        resize(image, scale=0.5, method="lanczos")


def test_modcrop_takes_from_the_bottom_and_the_right() -> None:
    image = np.arange(7 * 9 * 3).reshape(7, 9, 3)
    np.testing.assert_array_equal(modcrop(image, 4), image[:4, :8])
    np.testing.assert_array_equal(modcrop(image[..., 0], 3), image[:6, :9, 0])
    with pytest.raises(ValueError, match="got 7x9, of which no multiple of 8"):
        modcrop(image, 8)
    with pytest.raises(ValueError, match="multiple: got 0"):
        modcrop(image, 0)


@pytest.mark.parity
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_equals_the_authors_bicubic(golden: Path, factor: int) -> None:
    data = np.load(golden / "bicubic.npz")
    got = resize(data[f"hr{factor}"], scale=1 / factor)
    np.testing.assert_allclose(got, data[f"lr{factor}"], rtol=0, atol=5e-7)
