"""Blur kernels and circular blur: the degradation of the deblurring experiments."""

from __future__ import annotations

import math

import numpy as np


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size: got {size}; expected the kernel's side in pixels, at least 1")


def _offsets(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Each tap's x (right) and y (up) from the tap (size//2, size//2), both `[size, size]`."""
    d = np.arange(size, dtype=np.float64) - size // 2
    return np.broadcast_to(d, (size, size)), np.broadcast_to(-d[:, None], (size, size))


def _along_and_across(size: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The taps' coordinates along the direction `angle` (degrees) and across it."""
    x, y = _offsets(size)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return c * x + s * y, c * y - s * x


def _reach(size: int) -> int:
    """How far a kernel may extend from its center, size//2, without being cut on any side."""
    return size - 1 - size // 2


def gaussian_kernel(
    size: int, sigma: float | tuple[float, float], *, angle: float = 0.0
) -> np.ndarray:
    """A sampled Gaussian blur kernel, isotropic or elongated.

        k[p] proportional to exp(-(a_p^2 / sigma_a^2 + b_p^2 / sigma_b^2) / 2),   sum(k) = 1

    with a and b the distances from the center along and across the direction `angle`.

    Args:
        size: side of the kernel in pixels; its center is the tap `(size//2, size//2)`.
        sigma: standard deviation in pixels, > 0; or the pair (along, across).
        angle: direction of the first of the pair, in degrees counter-clockwise from the x axis.

    Returns:
        float64 `[size, size]`.

    Raises:
        ValueError: a size below 1 or a standard deviation that is not positive.
    """
    _check_size(size)
    along, across = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    if not (along > 0 and across > 0):
        raise ValueError(f"sigma: got {sigma!r}; expected positive standard deviations in pixels")
    a, b = _along_and_across(size, angle)
    kernel = np.exp(-0.5 * ((a / along) ** 2 + (b / across) ** 2))
    return kernel / kernel.sum()


def motion_kernel(size: int, *, length: float, angle: float) -> np.ndarray:
    """The blur of a straight, even camera motion: an antialiased line.

        k[p] proportional to max(0, 1 - distance(p, segment)),   sum(k) = 1

    Args:
        size: side of the kernel in pixels; the line's middle is the tap `(size//2, size//2)`.
        length: distance between the line's ends in pixels; 0 gives the identity kernel.
        angle: direction in degrees counter-clockwise from the x axis.

    Returns:
        float64 `[size, size]`.

    Raises:
        ValueError: a size below 1, or a length that is negative or does not fit.
    """
    _check_size(size)
    if not 0 <= length <= 2 * _reach(size):
        raise ValueError(
            f"length: got {length}; a kernel of size {size} holds 0 to {2 * _reach(size)} pixels"
        )
    along, across = _along_and_across(size, angle)
    beyond = np.maximum(np.abs(along) - length / 2.0, 0.0)
    kernel = np.maximum(0.0, 1.0 - np.hypot(beyond, across))
    return kernel / kernel.sum()


def disk_kernel(size: int, *, radius: float) -> np.ndarray:
    """The blur of a lens out of focus: a disk with an antialiased edge.

        k[p] proportional to min(1, max(0, radius + 1/2 - |p|)),   sum(k) = 1

    Args:
        size: side of the kernel in pixels; the disk's center is the tap `(size//2, size//2)`.
        radius: in pixels; 0 gives the identity kernel.

    Returns:
        float64 `[size, size]`.

    Raises:
        ValueError: a size below 1, or a radius that is negative or does not fit.
    """
    _check_size(size)
    if not 0 <= radius <= _reach(size):
        raise ValueError(
            f"radius: got {radius}; a kernel of size {size} holds 0 to {_reach(size)} pixels"
        )
    kernel = np.clip(radius + 0.5 - np.hypot(*_offsets(size)), 0.0, 1.0)
    return kernel / kernel.sum()


def random_motion_kernel(size: int, rng: np.random.Generator) -> np.ndarray:
    """The blur of a random camera shake: a smooth random walk, drawn with bilinear weights.

        v_t = r v_{t-1} + n_t,   p_t = p_{t-1} + v_t,   k = mean_t bilinear(center + p_t)

    with n_t standard normal in the plane and r chosen so that the velocity decorrelates in an
    eighth of the exposure. The path is moved so that its centroid is the kernel's center (the blur
    shifts nothing) and scaled to reach between half way and all the way to the border.

    Args:
        size: side of the kernel in pixels; its center is the tap `(size//2, size//2)`.
        rng: the source of randomness; equal generators give equal kernels.

    Returns:
        float64 `[size, size]`, not negative, sum 1.

    Raises:
        ValueError: a size below 1.

    Source: in the manner of G. Boracchi and A. Foi, "Modeling the performance of image
    restoration from motion blur", IEEE TIP 21(8), 2012, without its impulsive shakes.
    """
    _check_size(size)
    # Sixteen samples per pixel: no gaps in the curve even where it is fast.
    steps = 16 * size
    memory = 1.0 - 8.0 / steps
    noise = rng.standard_normal((steps, 2))
    velocity = np.empty((steps, 2))
    current = rng.standard_normal(2) / math.sqrt(1.0 - memory**2)
    for t in range(steps):
        current = memory * current + noise[t]
        velocity[t] = current
    path = np.cumsum(velocity, axis=0)
    path -= path.mean(axis=0)
    path *= rng.uniform(0.5, 1.0) * _reach(size) / np.abs(path).max()

    position = size // 2 + path
    corner = np.floor(position).astype(np.int64)
    fraction = position - corner
    kernel = np.zeros((size, size))
    for dy in (0, 1):
        for dx in (0, 1):
            wy = fraction[:, 0] if dy else 1.0 - fraction[:, 0]
            wx = fraction[:, 1] if dx else 1.0 - fraction[:, 1]
            # A corner on the last row or column has a neighbor outside, of weight 0.
            y = np.minimum(corner[:, 0] + dy, size - 1)
            x = np.minimum(corner[:, 1] + dx, size - 1)
            np.add.at(kernel, (y, x), wy * wx)
    return kernel / kernel.sum()


def circular_blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve every channel with one kernel; the image is periodic.

        out[i, j] = sum_{u, v} k[u, v] image[(i - u + kh//2) mod H, (j - v + kw//2) mod W]

    True convolution (the kernel is flipped), centered at the tap `(kh//2, kw//2)`, for even kernels
    too; a kernel larger than the image wraps. Computed by FFT in float64.

    Args:
        image: `[H, W]` or `[H, W, C]`, floating point.
        kernel: `[kh, kw]`, real.

    Returns:
        The blurred image in `image`'s shape and dtype.

    Raises:
        ValueError: wrong dtype or rank, or an empty array.

    Source: the data model Y = X (*) K of the paper, eq. 4, with s = 1.
    """
    image, kernel = np.asarray(image), np.asarray(kernel)
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(
            f"image: got dtype {image.dtype}; expected floats, e.g. uint8 pixels / 255.0"
        )
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(
            f"image: got shape {image.shape}; expected a non-empty [H, W] or [H, W, C]"
        )
    if kernel.ndim != 2 or kernel.size == 0:
        raise ValueError(f"kernel: got shape {kernel.shape}; expected a non-empty [kh, kw]")
    height, width = image.shape[:2]
    y = (np.arange(kernel.shape[0]) - kernel.shape[0] // 2) % height
    x = (np.arange(kernel.shape[1]) - kernel.shape[1] // 2) % width
    psf = np.zeros((height, width))
    np.add.at(psf, (y[:, None], x[None, :]), kernel)
    otf = np.fft.rfft2(psf)
    del psf
    out = np.empty_like(image)
    for channel in range(image.shape[2]) if image.ndim == 3 else (...,):
        # One after the other: a photograph of 100 megapixels has 0.8 GB in each.
        spectrum = np.fft.rfft2(image[:, :, channel].astype(np.float64))
        out[:, :, channel] = np.fft.irfft2(spectrum * otf, s=(height, width))
    return out
