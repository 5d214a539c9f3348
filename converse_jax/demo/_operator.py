"""The operator alone, without a network: it reverses the blur of a photograph."""

from __future__ import annotations

import os
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from converse_jax._sheet import check_target, write_sheet
from converse_jax.demo._photographs import read_photograph
from converse_jax.demo._rows import WIDTH, panels
from converse_jax.imaging import (
    circular_blur,
    gaussian_kernel,
    motion_kernel,
    protocol_noise,
    psnr,
    to_uint8,
)
from converse_jax.ops import converse2d

_SIDE = 256
_CORNER = (20, 100)  # of the crop: the face of the cat
_DETAIL = (62, 52, 44)  # the eye
_MOTION = motion_kernel(15, length=13, angle=35)
_GAUSSIAN = gaussian_kernel(7, 1.2)
_NOISE = 2.55  # of 255, as in the paper's deblurring experiments
_ROUNDING = 1 / np.sqrt(12)  # standard deviation of rounding to 8 bits, of 255


@dataclass(frozen=True)
class Reversal:
    """One degradation and its reversal: images float32 `[H, W, 3]` and their PSNR in dB."""

    before: np.ndarray
    after: np.ndarray
    psnr_before: float
    psnr_after: float
    lam: float


def demo_operator(
    target: str | os.PathLike[str], *, overwrite: bool = False
) -> tuple[Reversal, Reversal]:
    """Deblur and super-resolve a photograph with `converse2d` alone; save them side by side.

    The photograph is scikit-image's cat Chelsea (Stefan van der Walt, CC0), 256x256 pixels of it.

    Args:
        target: the image to make.
        overwrite: replace an existing file.

    Returns:
        The deblurring and the super-resolution.

    Raises:
        ImageError: target exists or cannot be written, or scikit-image is not installed.
    """
    check_target(target, overwrite=overwrite)
    clean = photograph()
    results = deblur(clean), super_resolve(clean)
    captions = [
        ("Motion blur of 13 pixels, noise 2.55/255", "Deblurred"),
        ("Gaussian blur, every 2nd pixel kept, bicubic", "Super-resolved x2"),
    ]
    rows = [
        panels((x.before, x.after, clean), (x.psnr_before, x.psnr_after), texts, _DETAIL)
        for x, texts in zip(results, captions, strict=True)
    ]
    write_sheet(
        target,
        "Reverse convolution of a photograph",
        "converse2d alone: one linear filter in closed form, no network",
        rows,
        width=WIDTH,
        overwrite=overwrite,
    )
    return results


def photograph() -> np.ndarray:
    """The photograph of this demo, float32 `[256, 256, 3]`.

    Raises:
        ImageError: scikit-image, which carries it, is not installed.
    """
    row, column = _CORNER
    pixels = read_photograph("chelsea")
    return np.ascontiguousarray(pixels[row : row + _SIDE, column : column + _SIDE])


def deblur(clean: np.ndarray) -> Reversal:
    """Blur circularly with a motion of 13 pixels, add noise of 2.55/255, and reverse the blur."""
    noise = protocol_noise(clean.shape, _NOISE)
    before = (circular_blur(clean, _MOTION) + noise).astype(np.float32)
    lam = noise_to_signal(before, circular_blur(before, _MOTION), _MOTION, _NOISE / 255)
    after = converse2d(jnp.asarray(before), _channels(_MOTION), lam)
    return _reversal(before, np.asarray(after), clean, lam)


def super_resolve(clean: np.ndarray) -> Reversal:
    """Blur circularly with a Gaussian, keep every second pixel in 8 bits, and reverse that.

    `before` is the bicubic enlargement of the small image, aligned with the pixels kept.
    """
    small = to_uint8(circular_blur(clean, _GAUSSIAN)[::2, ::2]).astype(np.float32) / 255
    nearest = small.repeat(2, 0).repeat(2, 1)
    expected = circular_blur(nearest, _GAUSSIAN)[::2, ::2]
    lam = noise_to_signal(small, expected, _GAUSSIAN, _ROUNDING / 255)
    after = converse2d(jnp.asarray(small), _channels(_GAUSSIAN), lam, scale=2)
    return _reversal(bicubic_x2(small), np.asarray(after), clean, lam)


def noise_to_signal(
    given: np.ndarray, expected: np.ndarray, kernel: np.ndarray, noise: float
) -> float:
    r"""Estimate the lambda of `converse2d` from the given image: noise to signal, by moments.

    With noise of variance n^2, and X - X0 white of variance t^2, the most probable X is that of
    `converse2d` with lambda = n^2 / t^2. The residual Y - (X0 (*) K) down s then has the variance

        t^2 sum(K^2) + n^2,    so    lambda = n^2 sum(K^2) / (mean(residual^2) - n^2) .

    Args:
        given: Y.
        expected: `(X0 (*) K) down s`, the same shape.
        kernel: K, `[kh, kw]`.
        noise: n, in the units of Y.

    Returns:
        lambda, at most 1: the value if the residual is nothing but noise.
    """
    signal = float(np.mean((given - expected) ** 2)) - noise**2
    energy = float(np.sum(kernel**2))
    return min(noise**2 * energy / signal, 1.0) if signal > 0 else 1.0


def bicubic_x2(small: np.ndarray) -> np.ndarray:
    """Cubic interpolation (Keys, a = -0.5) at twice the resolution, the image being periodic.

    Pixel n of `small` is pixel 2n of the result: the down-sampler kept the upper-left pixel. The
    usual enlargement puts it at 2n + 1/2, and would lose about 0.9 dB here by that shift alone.
    Midway between two pixels the cubic's weights are (-1, 9, 9, -1) / 16.
    """
    rows = np.repeat(small, 2, axis=0)
    rows[1::2] = _midway(small, 0)
    both = np.repeat(rows, 2, axis=1)
    both[:, 1::2] = _midway(rows, 1)
    return both


def _midway(x: np.ndarray, axis: int) -> np.ndarray:
    near = x + np.roll(x, -1, axis)
    far = np.roll(x, 1, axis) + np.roll(x, -2, axis)
    return (9 * near - far) / 16


def _channels(kernel: np.ndarray) -> jax.Array:
    """The same kernel for each of three channels, `[kh, kw, 3]`."""
    return jnp.asarray(np.repeat(kernel[..., None], 3, axis=-1), jnp.float32)


def _reversal(before: np.ndarray, after: np.ndarray, clean: np.ndarray, lam: float) -> Reversal:
    target = to_uint8(clean)
    dB = [psnr(to_uint8(x), target) for x in (before, after)]
    return Reversal(before, after, dB[0], dB[1], lam)
