"""The evaluation protocol of the paper's tables: degrade a clean image, score a restored one."""

from __future__ import annotations

from typing import Literal, TypedDict

import numpy as np

from converse_jax.imaging._blur import circular_blur
from converse_jax.imaging._metrics import psnr, rgb_to_y, ssim
from converse_jax.imaging._noise import protocol_noise
from converse_jax.imaging._resize import modcrop, resize

Task = Literal["denoise", "sr", "deblur"]


class Score(TypedDict):
    """What `score` measures: PSNR in decibels and SSIM, on all channels and on luma."""

    psnr: float
    ssim: float
    psnr_y: float
    ssim_y: float


def _check_clean(clean: np.ndarray) -> np.ndarray:
    clean = np.asarray(clean)
    if clean.dtype != np.uint8:
        raise ValueError(
            f"clean: got dtype {clean.dtype}; expected the 8-bit image, to_uint8(x) makes it"
        )
    if clean.ndim not in (2, 3) or 0 in clean.shape:
        raise ValueError(
            f"clean: got shape {clean.shape}; expected a non-empty [H, W] or [H, W, C]"
        )
    return clean


def _check_kernel(kernel: np.ndarray) -> np.ndarray:
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 2 or kernel.size == 0:
        raise ValueError(f"kernel: got shape {kernel.shape}; expected a non-empty [kh, kw]")
    if abs(kernel.sum() - 1.0) > 1e-3:
        raise ValueError(f"kernel: got sum {kernel.sum():.6g}; expected a blur kernel, of sum 1")
    return kernel


def to_uint8(image: np.ndarray) -> np.ndarray:
    """A restored image as the 8-bit image that is measured.

        round(255 clip(x, 0, 1))

    Args:
        image: any shape, floating point, nominally in [0, 1].

    Returns:
        uint8, the same shape; halves go to the even neighbor, as NumPy rounds.

    Raises:
        ValueError: wrong dtype, or NaN.
    """
    image = np.asarray(image)
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image: got dtype {image.dtype}; expected floats in [0, 1]")
    if np.isnan(image).any():
        raise ValueError("image: holds NaN, so there is nothing to measure; check the network")
    return np.round(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


def to_reference_uint8(pixels: np.ndarray, channels: int) -> np.ndarray:
    """An image in 8 bits with a model's number of channels.

    Args:
        pixels: `[H, W, 1]` or `[H, W, 3]`, floating point in [0, 1].
        channels: 1 takes the luma of a color image, 0.299 R + 0.587 G + 0.114 B; 3 repeats a gray
            image.

    Returns:
        uint8 `[H, W, channels]`.
    """
    return to_uint8(with_channels(pixels, channels))


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """`to_reference_uint8` before it is rounded."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 1:
        return pixels.astype(np.float64) @ np.array([[0.299], [0.587], [0.114]])
    return np.repeat(pixels, channels, axis=-1)


def degrade_denoise(clean: np.ndarray, *, sigma: float = 25.0) -> tuple[np.ndarray, np.ndarray]:
    """The denoising input: the image plus the protocol's seeded noise, not clipped.

        y = x / 255 + n,   n ~ normal(0, sigma / 255)

    Args:
        clean: uint8 `[H, W]` or `[H, W, C]`; the tables take gray, `[H, W, 1]`.
        sigma: standard deviation of the noise in 8-bit levels.

    Returns:
        The input, float32 in `clean`'s shape, and the target, `clean` itself.

    Raises:
        ValueError: wrong dtype or rank, or a negative sigma.

    Source: paper sec. 5.1 and the authors' test script.
    """
    clean = _check_clean(clean)
    noisy = clean / 255.0 + protocol_noise(clean.shape, sigma)
    return noisy.astype(np.float32), clean


def degrade_sr(
    clean: np.ndarray, *, scale: int = 4, kernel: np.ndarray | None = None, sigma: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The super-resolution input: antialiased bicubic by 1/scale, not rounded to 8 bits.

        y = resize(crop(x) / 255, 1 / scale) + n,   n ~ normal(0, sigma / 255)

    With a kernel, a circular blur of which every scale-th pixel is kept, beginning with the first:

        y = (crop(x) / 255 (*) k)[::scale, ::scale] + n.

    Args:
        clean: uint8 `[H, W]` or `[H, W, C]`, at least `scale` pixels on a side.
        scale: the factor, an integer of at least 1.
        kernel: `[kh, kw]`, sum 1; the tables take None.
        sigma: standard deviation of the protocol's noise in 8-bit levels; the tables take 0.

    Returns:
        The input, float32 `[H'/scale, W'/scale, ...]`, and the target, `clean` cropped at the
        bottom and right to `[H', W', ...]`, multiples of `scale`.

    Raises:
        ValueError: wrong dtype or rank, a scale below 1, an image smaller than the scale, a kernel
            that is not 2-D or whose sum is not 1.

    Source: paper sec. 5.2 and the authors' test script; with a kernel, K. Zhang, L. Van Gool,
    R. Timofte, "Deep Unfolding Network for Image Super-Resolution", CVPR 2020, eq. 1.
    """
    clean = _check_clean(clean)
    if scale < 1:
        raise ValueError(f"scale: got {scale}; expected an integer factor of at least 1, e.g. 4")
    target = modcrop(clean, scale)
    height, width = target.shape[:2]
    if kernel is None:
        small = resize(target / 255.0, (height // scale, width // scale))
    else:
        small = circular_blur(target / 255.0, _check_kernel(kernel))[::scale, ::scale]
    if sigma != 0:
        small = small + protocol_noise(small.shape, sigma)
    return small.astype(np.float32), target


def degrade_deblur(
    clean: np.ndarray, kernel: np.ndarray, *, sigma: float = 2.55
) -> tuple[np.ndarray, np.ndarray]:
    """The deblurring input: circular blur in 8 bits, then the protocol's seeded noise.

        y = floor(x (*) k) / 255 + n,   n ~ normal(0, sigma / 255)

    The blurred image is truncated to 8 bits, not rounded: that is what the published numbers
    were measured on (`scipy.ndimage.convolve` returns its input's dtype). Negative taps may leave
    the range of 8 bits, and are clipped to it.

    Args:
        clean: uint8 `[H, W]` or `[H, W, C]`, at least 8 pixels on a side.
        kernel: `[kh, kw]`, sum 1.
        sigma: standard deviation of the noise in 8-bit levels.

    Returns:
        The input, float32, and the target, `clean` cropped at the bottom and right to multiples of
        8, of the same shape.

    Raises:
        ValueError: wrong dtype or rank, an image below 8x8, a kernel that is not 2-D or whose sum
            is not 1.

    Source: paper sec. 5.3 and the authors' test script.
    """
    from scipy import ndimage

    clean = _check_clean(clean)
    kernel = _check_kernel(kernel)
    target = modcrop(clean, 8)
    weights = kernel[..., None] if target.ndim == 3 else kernel
    blurred = ndimage.convolve(target, weights, output=np.float64, mode="wrap")
    noisy = np.floor(np.clip(blurred, 0, 255)) / 255.0 + protocol_noise(target.shape, sigma)
    return noisy.astype(np.float32), target


def score(restored: np.ndarray, target: np.ndarray, *, task: Task, scale: int = 4) -> Score:
    """Measure a restored image as the tables do.

    The border left out is 0 for "denoise", `scale` for "sr" and 1 for "deblur". The tables quote
    `psnr` for denoising and deblurring, `psnr_y` for super-resolution.

    Args:
        restored, target: uint8 `[H, W]` or `[H, W, C]`, one shape.
        task: "denoise", "sr" or "deblur".
        scale: the factor of super-resolution; read for "sr" only.

    Returns:
        `measure` of the two.

    Raises:
        ValueError: an unknown task, or what `psnr` and `ssim` refuse.

    Source: the authors' test scripts.
    """
    borders = {"denoise": 0, "sr": scale, "deblur": 1}
    if task not in borders:
        raise ValueError(f"task: got {task!r}; expected one of {sorted(borders)}")
    return measure(restored, target, border=borders[task])


def measure(a: np.ndarray, b: np.ndarray, *, border: int = 0) -> Score:
    """All figures of two 8-bit images.

    Args:
        a, b: uint8 `[H, W]` or `[H, W, C]`, one shape.
        border: pixels left out at every side.

    Returns:
        `psnr`, `ssim` over all channels, `psnr_y`, `ssim_y` on the luma rounded to 8 bits.
        An image without three channels is its own luma.

    Raises:
        ValueError: what `psnr` and `ssim` refuse.
    """
    full = psnr(a, b, border=border), ssim(a, b, border=border)
    luma = full
    if a.ndim == 3 and a.shape[-1] == 3:
        y_a, y_b = rgb_to_y(a), rgb_to_y(b)
        luma = psnr(y_a, y_b, border=border), ssim(y_a, y_b, border=border)
    return Score(psnr=full[0], ssim=full[1], psnr_y=luma[0], ssim_y=luma[1])
