"""PSNR, SSIM and luma of 8-bit images, as published tables measure them."""

from __future__ import annotations

import math

import numpy as np

_WINDOW = 11
_WINDOW_SIGMA = 1.5
# ITU-R BT.601 luma of R'G'B' in [0, 1], in 8-bit levels: 16 is black, 235 is white.
_LUMA = np.array([65.481, 128.553, 24.966])
_LUMA_BLACK = 16.0


def _checked(a: np.ndarray, b: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    """The two images as float64 `[H, W, C]`, cropped by `border` pixels on every side."""
    a, b = np.asarray(a), np.asarray(b)
    for name, image in (("a", a), ("b", b)):
        if image.dtype != np.uint8:
            raise ValueError(
                f"{name}: got dtype {image.dtype}; expected uint8 images, to_uint8(x) makes them"
            )
        if image.ndim not in (2, 3) or 0 in image.shape:
            raise ValueError(
                f"{name}: got shape {image.shape}; expected a non-empty [H, W] or [H, W, C]"
            )
    if a.shape != b.shape:
        raise ValueError(f"a, b: got shapes {a.shape} and {b.shape}; expected images of one shape")
    height, width = a.shape[:2]
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(
            f"border: got {border} for an image of {height}x{width}; "
            f"expected 0 to {(min(height, width) - 1) // 2}"
        )
    inner = (slice(border, height - border), slice(border, width - border))
    shape = (height - 2 * border, width - 2 * border, -1)
    return (
        a[inner].reshape(shape).astype(np.float64),
        b[inner].reshape(shape).astype(np.float64),
    )


def psnr(a: np.ndarray, b: np.ndarray, *, border: int = 0) -> float:
    """Peak signal-to-noise ratio of two 8-bit images.

        PSNR = 10 log10(255^2 / mean((a - b)^2))

    Args:
        a, b: uint8 `[H, W]` or `[H, W, C]`, one shape; the mean is over pixels and channels.
        border: pixels left out at every side.

    Returns:
        Decibels; `inf` for identical images.

    Raises:
        ValueError: wrong dtype, different shapes, a border that leaves nothing.
    """
    x, y = _checked(a, b, border)
    error = float(np.mean((x - y) ** 2))
    return math.inf if error == 0.0 else 10.0 * math.log10(255.0**2 / error)


def _window() -> np.ndarray:
    """The 1-D Gaussian window; the 11x11 window is its outer product with itself."""
    d = np.arange(_WINDOW) - _WINDOW // 2
    w = np.exp(-0.5 * (d / _WINDOW_SIGMA) ** 2)
    return w / w.sum()


def _windowed_mean(x: np.ndarray) -> np.ndarray:
    """Gaussian-weighted means where the whole window fits: `[H - 10, W - 10, C]`."""
    w = _window()
    rows = sum(w[t] * x[t : x.shape[0] - _WINDOW + 1 + t] for t in range(_WINDOW))
    assert isinstance(rows, np.ndarray)
    out = sum(w[t] * rows[:, t : x.shape[1] - _WINDOW + 1 + t] for t in range(_WINDOW))
    assert isinstance(out, np.ndarray)
    return out


def ssim(a: np.ndarray, b: np.ndarray, *, border: int = 0) -> float:
    """Structural similarity of two 8-bit images.

        SSIM = mean( (2 ma mb + c1)(2 sab + c2) / ((ma^2 + mb^2 + c1)(sa^2 + sb^2 + c2)) )

    with means m, variances s^2 and covariance sab under an 11x11 Gaussian window of standard
    deviation 1.5, at every position where the window fits; c1 = (0.01 255)^2, c2 = (0.03 255)^2.

    Args:
        a, b: uint8 `[H, W]` or `[H, W, C]`, one shape; the mean is over positions and channels.
        border: pixels left out at every side, before the windows are placed.

    Returns:
        At most 1, which identical images reach.

    Raises:
        ValueError: wrong dtype, different shapes, or less than 11x11 pixels inside the border.

    Source: Z. Wang et al., "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004, eq. 13.
    """
    x, y = _checked(a, b, border)
    if min(x.shape[:2]) < _WINDOW:
        raise ValueError(
            f"a, b: {x.shape[0]}x{x.shape[1]} pixels inside a border of {border}; "
            f"SSIM needs at least {_WINDOW}x{_WINDOW}: give larger images or use psnr"
        )
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    mean_x, mean_y = _windowed_mean(x), _windowed_mean(y)
    xx, yy, xy = mean_x**2, mean_y**2, mean_x * mean_y
    var_x, var_y = _windowed_mean(x * x) - xx, _windowed_mean(y * y) - yy
    cov = _windowed_mean(x * y) - xy
    index = ((2 * xy + c1) * (2 * cov + c2)) / ((xx + yy + c1) * (var_x + var_y + c2))
    return float(index.mean())


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """The luma of an RGB image, studio range.

        Y = 16 + 65.481 R + 128.553 G + 24.966 B,   R, G, B in [0, 1], Y in 16..235 (of 255)

    Args:
        image: `[H, W, 3]`, uint8, or floating point in [0, 1].

    Returns:
        `[H, W]`: for uint8, Y rounded to uint8, which is what the tables measure;
        for floats, Y / 255 in `image`'s dtype, not rounded.

    Raises:
        ValueError: wrong dtype or shape.

    Source: ITU-R BT.601, in the form MATLAB documents for `rgb2ycbcr`.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image: got shape {image.shape}; expected an RGB image [H, W, 3]")
    if image.dtype == np.uint8:
        # Dividing last, as the authors do, keeps ties of the rounding on the same side.
        return np.round(image @ _LUMA / 255.0 + _LUMA_BLACK).astype(np.uint8)
    if np.issubdtype(image.dtype, np.floating):
        return ((image @ _LUMA + _LUMA_BLACK) / 255.0).astype(image.dtype)
    raise ValueError(f"image: got dtype {image.dtype}; expected uint8, or floats in [0, 1]")
