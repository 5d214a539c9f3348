"""Kernels by their properties, circular blur against a direct sum and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from converse_jax.imaging import (
    circular_blur,
    disk_kernel,
    gaussian_kernel,
    motion_kernel,
    protocol_noise,
    random_motion_kernel,
)


def direct_blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The docstring's sum, pixel by pixel."""
    h, w = image.shape[:2]
    kh, kw = kernel.shape
    out = np.zeros(image.shape)
    for i in range(h):
        for j in range(w):
            for u in range(kh):
                for v in range(kw):
                    out[i, j] += kernel[u, v] * image[(i - u + kh // 2) % h, (j - v + kw // 2) % w]
    return out


SHAPES = [(6, 5, 3), (7, 4), (1, 1), (1, 9, 1), (3, 3, 2)]
KERNELS = [(1, 1), (3, 3), (5, 3), (2, 2), (4, 3), (7, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ksize", KERNELS)
def test_equals_the_direct_sum(shape: tuple[int, ...], ksize: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.standard_normal(shape), rng.standard_normal(ksize)
    np.testing.assert_allclose(
        circular_blur(image, kernel), direct_blur(image, kernel), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("ksize", [(3, 3), (5, 7), (2, 2), (4, 5)])
def test_equals_scipy(ksize: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    image, kernel = rng.random((11, 13, 3)), rng.random(ksize)
    want = ndimage.convolve(image, kernel[..., None], mode="wrap")
    np.testing.assert_allclose(circular_blur(image, kernel), want, rtol=0, atol=1e-12)


def test_a_disk_has_its_radius() -> None:
    for radius in (0.0, 0.5, 2.0, 3.7, 5.0):
        kernel = disk_kernel(13, radius=radius)
        assert kernel.sum() == pytest.approx(1)
        np.testing.assert_array_equal(kernel, kernel.T[::-1])
        y, x = np.indices(kernel.shape) - 6
        # Of an even disk the mean of the squared distance is radius^2 / 2; a pixel is no point.
        assert (kernel * (x**2 + y**2)).sum() == pytest.approx(radius**2 / 2, abs=0.35)
        if radius >= 2:
            inside = kernel[np.hypot(x, y) <= radius - 0.5]
            np.testing.assert_allclose(inside, 1 / (np.pi * radius**2), rtol=0.06)
    np.testing.assert_array_equal(disk_kernel(3, radius=0), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="radius: got 2; a kernel of size 4 holds 0 to 1 pixels"):
        disk_kernel(4, radius=2)


def test_keeps_float32() -> None:
    image = np.random.default_rng(2).random((8, 8, 3)).astype(np.float32)
    got = circular_blur(image, gaussian_kernel(5, 1.0))
    assert got.dtype == np.float32
    want = direct_blur(image.astype(np.float64), gaussian_kernel(5, 1.0))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-7)


def test_blur_refusals_name_the_argument() -> None:
    kernel = np.ones((3, 3)) / 9
    with pytest.raises(ValueError, match="image: got dtype uint8"):
        circular_blur(np.zeros((4, 4), np.uint8), kernel)
    with pytest.raises(ValueError, match="image: got shape"):
        circular_blur(np.zeros((1, 4, 4, 3)), kernel)
    with pytest.raises(ValueError, match=r"kernel: got shape \(3, 3, 1\)"):
        circular_blur(np.zeros((4, 4)), kernel[..., None])


@pytest.mark.parametrize("size", [1, 2, 5, 8, 25])
def test_gaussian_is_its_formula(size: int) -> None:
    got = gaussian_kernel(size, 1.6)
    want = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            want[i, j] = np.exp(-((i - size // 2) ** 2 + (j - size // 2) ** 2) / (2 * 1.6**2))
    np.testing.assert_allclose(got, want / want.sum(), atol=1e-15)


def test_elongated_gaussian_points_where_the_angle_says() -> None:
    flat = gaussian_kernel(21, (3.0, 1.0))
    moments = ndimage_moments(flat)
    np.testing.assert_allclose(moments, [[9, 0], [0, 1]], atol=0.1)  # (x, y)
    np.testing.assert_allclose(gaussian_kernel(21, (3.0, 1.0), angle=90.0), flat.T, atol=1e-15)
    # 45 degrees counter-clockwise: up where right, that is, smaller rows at larger columns.
    diagonal = gaussian_kernel(21, (3.0, 1.0), angle=45.0)
    assert diagonal[8, 12] > 10 * diagonal[12, 12]


def ndimage_moments(kernel: np.ndarray) -> np.ndarray:
    d = np.arange(len(kernel)) - len(kernel) // 2
    x, y = np.meshgrid(d, d)
    return np.array(
        [
            [(kernel * x * x).sum(), (kernel * x * y).sum()],
            [(kernel * x * y).sum(), (kernel * y * y).sum()],
        ]
    )


def test_motion_kernel_is_a_line() -> None:
    horizontal = motion_kernel(7, length=4.0, angle=0.0)
    want = np.zeros((7, 7))
    want[3, 1:6] = 0.2
    np.testing.assert_allclose(horizontal, want, atol=1e-12)
    np.testing.assert_allclose(motion_kernel(7, length=4.0, angle=90.0), want.T, atol=1e-12)
    np.testing.assert_allclose(
        motion_kernel(5, length=0.0, angle=30.0), np.pad([[1.0]], 2), atol=1e-12
    )
    rising = motion_kernel(9, length=6.0, angle=30.0)
    assert rising.sum() == pytest.approx(1.0, abs=1e-12)
    assert rising[3, 6] > 0 and rising[5, 6] == 0  # to the right it goes up
    np.testing.assert_allclose(rising, rising[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 15, 31])
def test_random_motion_kernel(size: int) -> None:
    kernel = random_motion_kernel(size, np.random.default_rng(5))
    assert kernel.shape == (size, size)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
    d = np.arange(size)
    centroid = (kernel.sum(1) @ d, kernel.sum(0) @ d)
    np.testing.assert_allclose(centroid, size // 2, atol=1e-9)
    np.testing.assert_array_equal(kernel, random_motion_kernel(size, np.random.default_rng(5)))


def test_random_motion_is_a_connected_curve_that_differs_by_seed() -> None:
    kernels = [random_motion_kernel(21, np.random.default_rng(s)) for s in range(6)]
    for kernel in kernels:
        assert ndimage.label(kernel > 0, structure=np.ones((3, 3)))[1] == 1
        assert (kernel > 0).mean() < 0.6  # a curve, not a blob
        rows, columns = np.nonzero(kernel)
        assert max(np.ptp(rows), np.ptp(columns)) >= 5  # it moves
    assert not np.allclose(kernels[0], kernels[1])


def test_kernel_refusals_name_the_argument() -> None:
    with pytest.raises(ValueError, match="size: got 0"):
        gaussian_kernel(0, 1.0)
    with pytest.raises(ValueError, match="sigma: got 0"):
        gaussian_kernel(3, 0.0)
    with pytest.raises(ValueError, match="length: got 9.0; a kernel of size 7 holds 0 to 6"):
        motion_kernel(7, length=9.0, angle=0.0)
    with pytest.raises(ValueError, match="size: got -1"):
        random_motion_kernel(-1, np.random.default_rng(0))


def test_protocol_noise_is_the_legacy_draw_and_leaves_the_global_state() -> None:
    state = np.random.get_state()
    try:
        np.random.seed(0)
        want = np.random.normal(0, 25 / 255.0, (5, 4, 3))
        np.random.seed(123)
        before = np.random.get_state()[1].copy()
        np.testing.assert_array_equal(protocol_noise((5, 4, 3), 25), want)
        np.testing.assert_array_equal(np.random.get_state()[1], before)
    finally:
        np.random.set_state(state)
    assert not np.array_equal(protocol_noise((5, 4, 3), 25, seed=1), want)
    # The first draw of seed 0, a number anyone can look up.
    assert protocol_noise((1,), 255.0)[0] == pytest.approx(1.764052345967664, abs=1e-14)
    with pytest.raises(ValueError, match="sigma: got -1"):
        protocol_noise((2,), -1)
