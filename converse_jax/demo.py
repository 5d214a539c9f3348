"""The operator by itself, without a network: it reverses the blur of a photograph."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from converse_jax.imaging import (
    Picture,
    PictureError,
    circular_blur,
    gaussian_kernel,
    motion_kernel,
    protocol_noise,
    psnr,
    read_picture,
    to_uint8,
    write_picture,
)
from converse_jax.ops import converse2d

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

DEFAULT_NAME = "converse-demo.png"

_SIDE = 256
_CORNER = (20, 100)  # of the crop: the face of the cat
_MOTION = motion_kernel(15, length=13, angle=35)
_GAUSSIAN = gaussian_kernel(7, 1.2)
_NOISE = 2.55  # of 255, as in the paper's deblurring experiments
_ROUNDING = 1 / np.sqrt(12)  # standard deviation of rounding to 8 bits, of 255


@dataclass(frozen=True)
class Reversal:
    """One degradation and its reversal: pictures float32 ``[H, W, 3]`` and their PSNR in dB."""

    before: np.ndarray
    after: np.ndarray
    psnr_before: float
    psnr_after: float
    lam: float


def demo(target: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Reversal, Reversal]:
    """Deblur and super-resolve a photograph with `converse2d` alone; save them side by side.

    The photograph is scikit-image's cat Chelsea (Stefan van der Walt, CC0), 256x256 pixels of it.

    Args:
      target: the picture to make.
      overwrite: replace a file of that name.

    Returns:
      The deblurring and the super-resolution.

    Raises:
      PictureError: target exists or cannot be written, or scikit-image is not installed.
    """
    if os.path.lexists(target) and not overwrite:
        raise PictureError(
            f"{target}: exists already; name another file, or overwrite it (--overwrite)"
        )
    clean = photograph()
    results = deblur(clean), super_resolve(clean)
    write_picture(target, Picture(_sheet(clean, *results)), overwrite=overwrite)
    return results


def photograph() -> np.ndarray:
    """The demo's photograph, float32 ``[256, 256, 3]``.

    Raises:
      PictureError: scikit-image, which carries it, is not installed.
    """
    # Its file is read, nothing of the package is run: its own loader might start a download.
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise PictureError(
            'the photograph of the demo is part of scikit-image: pip install "converse-jax[app]"'
        )
    row, column = _CORNER
    pixels = read_picture(Path(package.origin).parent / "data" / "chelsea.png").pixels
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

    `before` is the bicubic enlargement of the small picture, aligned with the pixels kept.
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
    r"""The lambda of `converse2d` from the given picture alone: noise to signal, by moments.

    With noise of variance n^2, and X - X0 white of variance t^2, the most probable X is Converse2D
    with lambda = n^2 / t^2. The residual Y - (X0 (*) K) down s has then the variance

        t^2 sum(K^2) + n^2,    so    lambda = n^2 sum(K^2) / (mean(residual^2) - n^2) .

    Args:
      given: Y.
      expected: ``(X0 (*) K) down s``, the same shape.
      kernel: K, ``[kh, kw]``.
      noise: n, in the units of Y.

    Returns:
      lambda; at most 1, where the residual is nothing but noise.
    """
    signal = float(np.mean((given - expected) ** 2)) - noise**2
    energy = float(np.sum(kernel**2))
    return min(noise**2 * energy / signal, 1.0) if signal > 0 else 1.0


def bicubic_x2(small: np.ndarray) -> np.ndarray:
    """Cubic interpolation (Keys, a = -0.5) at twice the resolution, the picture being periodic.

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
    """The same kernel for each of three channels, ``[kh, kw, 3]``."""
    return jnp.asarray(np.repeat(kernel[..., None], 3, axis=-1), jnp.float32)


def _reversal(before: np.ndarray, after: np.ndarray, clean: np.ndarray, lam: float) -> Reversal:
    target = to_uint8(clean)
    dB = [psnr(to_uint8(x), target) for x in (before, after)]
    return Reversal(before, after, dB[0], dB[1], lam)


# The sheet: two rows of three panels on white, a caption under each, a magnified detail in each.
_PANEL, _GAP, _CAPTION, _TITLE = 384, 20, 54, 76
_DETAIL, _MAGNIFIED = 44, 132
_INK, _SOFT, _ACCENT = (28, 28, 30), (110, 110, 115), (196, 76, 36)


def _sheet(clean: np.ndarray, deblurred: Reversal, enlarged: Reversal) -> np.ndarray:
    """The labelled picture, float32 ``[H, W, 3]``."""
    from PIL import Image, ImageDraw, ImageFont

    def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(size)

    width = 3 * _PANEL + 4 * _GAP
    sheet = Image.new("RGB", (width, _TITLE + 2 * (_PANEL + _CAPTION) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 18), "Reverse convolution of a photograph", _INK, font(24))
    draw.text(
        (_GAP, 48),
        "converse2d alone: one linear filter in closed form, no network",
        _SOFT,
        font(15),
    )
    rows = [
        (deblurred, "Motion blur of 13 pixels, noise 2.55/255", "Deblurred"),
        (enlarged, "Gaussian blur, every 2nd pixel kept, bicubic", "Super-resolved x2"),
    ]
    for i, (result, degraded, restored) in enumerate(rows):
        gain = f"{result.psnr_after:.2f} dB (+{result.psnr_after - result.psnr_before:.2f})"
        panels = [
            (result.before, degraded, f"{result.psnr_before:.2f} dB", _SOFT),
            (result.after, restored, gain, _ACCENT),
            (clean, "Original", "", _SOFT),
        ]
        top = _TITLE + i * (_PANEL + _CAPTION)
        for j, (pixels, caption, figure, colour) in enumerate(panels):
            left = _GAP + j * (_PANEL + _GAP)
            _paste(sheet, draw, pixels, left, top)
            draw.text((left, top + _PANEL + 6), caption, _INK, font(17))
            draw.text((left, top + _PANEL + 27), figure, colour, font(17))
    return np.asarray(sheet, np.float32) / 255


def _paste(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, pixels: np.ndarray, left: int, top: int
) -> None:
    from PIL import Image

    picture = Image.fromarray(to_uint8(pixels))
    sheet.paste(picture.resize((_PANEL, _PANEL), Image.Resampling.LANCZOS), (left, top))
    # The eye: what is looked at first in a face.
    row, column = 62, 52
    detail = picture.crop((column, row, column + _DETAIL, row + _DETAIL))
    corner = (left + _PANEL - _MAGNIFIED - 6, top + _PANEL - _MAGNIFIED - 6)
    ratio = _PANEL / _SIDE
    box = [left + column * ratio, top + row * ratio]
    draw.rectangle([*box, *(x + _DETAIL * ratio for x in box)], outline="white", width=2)
    end = (corner[0] + _MAGNIFIED, corner[1] + _MAGNIFIED)
    draw.rectangle([corner[0] - 2, corner[1] - 2, end[0] + 1, end[1] + 1], fill="white")
    sheet.paste(detail.resize((_MAGNIFIED, _MAGNIFIED), Image.Resampling.NEAREST), corner)
