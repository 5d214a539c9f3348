"""Antialiased cubic resizing, the down-sampler of the super-resolution protocol."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.5, support [-2, 2] (R. Keys, IEEE TASSP 29(6), 1981, eq. 15)."""
    d = np.abs(x)
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return np.where(d <= 1.0, near, np.where(d <= 2.0, far, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
    """The linear interpolation kernel max(0, 1 - |x|), support [-1, 1]."""
    return np.maximum(0.0, 1.0 - np.abs(x))


# method -> (kernel, width of its support in output-independent pixels)
_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bicubic": (_cubic, 4.0),
    "bilinear": (_triangle, 2.0),
}


def _taps(length: int, out_length: int, scale: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights `[out_length, taps]` of one axis."""
    kernel, width = _KERNELS[method]
    # Shrinking stretches the kernel by 1/scale: it is then its own low-pass filter.
    stretch = min(scale, 1.0)
    width /= stretch
    center = (np.arange(out_length) + 0.5) / scale - 0.5
    first = np.floor(center - width / 2.0)
    index = first[:, None] + np.arange(math.ceil(width) + 2)
    weight = kernel((center[:, None] - index) * stretch)
    weight /= weight.sum(axis=1, keepdims=True)
    # Symmetric reflection (edge pixel repeated), as often as the kernel needs it.
    index = np.mod(index.astype(np.int64), 2 * length)
    return np.where(index < length, index, 2 * length - 1 - index), weight


def _resize_rows(image: np.ndarray, out_length: int, scale: float, method: str) -> np.ndarray:
    """Resize the first axis, one tap at a time to need no more memory than the result."""
    index, weight = _taps(image.shape[0], out_length, scale, method)
    weight = weight.reshape(weight.shape + (1,) * (image.ndim - 1))
    out = np.zeros((out_length, *image.shape[1:]))
    for tap in range(index.shape[1]):
        out += weight[:, tap] * image[index[:, tap]]
    return out


def resize(
    image: np.ndarray,
    size: tuple[int, int] | None = None,
    *,
    scale: float | None = None,
    method: str = "bicubic",
) -> np.ndarray:
    """Resize an image with an antialiased separable kernel, as MATLAB's `imresize` does.

        out[i] = sum_j w((u_i - j) m) image[j] / sum_j w((u_i - j) m),   u_i = (i + 1/2)/s - 1/2

    along each axis, w the cubic with a = -0.5 (or the triangle), s the scale of that axis,
    m = min(s, 1); the border is reflected with the edge pixel repeated.

    Args:
        image: `[H, W]` or `[H, W, C]`, floating point; values are not clipped, before or after.
        size: the output's `(H, W)`; each axis then has its own scale, output over input length.
        scale: both axes' scale, > 0; the output is `(ceil(scale H), ceil(scale W))`.
            Exactly one of `size` and `scale` is given.
        method: "bicubic" or "bilinear".

    Returns:
        The resized image in `image`'s dtype, computed in float64.

    Raises:
        ValueError: wrong dtype, rank, size, scale or method.

    Source: R. Keys, "Cubic convolution interpolation for digital image processing", 1981;
    the widened kernel and the output size are those MATLAB documents for `imresize`.
    """
    image = np.asarray(image)
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(
            f"image: got dtype {image.dtype}; expected floats, e.g. uint8 pixels / 255.0"
        )
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(
            f"image: got shape {image.shape}; expected a non-empty [H, W] or [H, W, C]"
        )
    if method not in _KERNELS:
        raise ValueError(f"method: got {method!r}; expected one of {sorted(_KERNELS)}")
    if (size is None) == (scale is None):
        raise ValueError("size, scale: give exactly one of them, e.g. resize(x, scale=0.25)")
    height, width = image.shape[:2]
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size: got {size!r}; expected (height, width), both at least 1")
        out_height, out_width = size
        scales = (out_height / height, out_width / width)
    else:
        assert scale is not None
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale: got {scale!r}; expected a positive number")
        # 49 * (1 / 49) and 10 * 1.1 miss an integer by rounding alone: tolerate that much.
        out_height, out_width = (math.ceil(n * scale * (1 - 1e-12)) for n in (height, width))
        scales = (scale, scale)
    rows = _resize_rows(image.astype(np.float64), out_height, scales[0], method)
    both = _resize_rows(rows.swapaxes(0, 1), out_width, scales[1], method).swapaxes(0, 1)
    return np.ascontiguousarray(both).astype(image.dtype)


def bicubic_kernel(scale: int) -> np.ndarray:
    """The blur of antialiased bicubic down-sampling: `resize` is `(x (*) k) down s`.

        k[u, v] = w(p_u / s) w(p_v / s) / s^2,   p_u = 5s//2 - u - (s - 1)/2

    with w the cubic of `resize`, and Y[i, j] = (x (*) k)[s i, s j]. The center of its taps lies
    (s - 1)/2 pixels from its origin `(5s//2, 5s//2)`: where a pixel of the small image is centered.
    It holds for all but the pixels at the border, which `resize` reflects.

    Args:
        scale: the factor s >= 1.

    Returns:
        float64 `[5s, 5s]`, sum 1.

    Raises:
        ValueError: a scale below 1.
    """
    if scale < 1:
        raise ValueError(f"scale: got {scale}; expected an integer factor of at least 1, e.g. 4")
    taps = _cubic((5 * scale // 2 - np.arange(5 * scale) - (scale - 1) / 2) / scale)
    taps /= taps.sum()
    return np.outer(taps, taps)


def modcrop(image: np.ndarray, multiple: int) -> np.ndarray:
    """Crop the bottom and the right so that both sides are multiples of `multiple`.

    Args:
        image: `[H, W]` or `[H, W, C]`, any dtype.
        multiple: the divisor, at least 1.

    Returns:
        A view `[H - H mod multiple, W - W mod multiple, ...]`.

    Raises:
        ValueError: a multiple below 1, or an image with a side shorter than it.
    """
    if multiple < 1:
        raise ValueError(f"multiple: got {multiple}; expected an integer of at least 1")
    height, width = (n - n % multiple for n in image.shape[:2])
    if height == 0 or width == 0:
        raise ValueError(
            f"image: got {image.shape[0]}x{image.shape[1]}, of which no multiple of {multiple} "
            f"can be cropped; expected an image of at least {multiple}x{multiple}"
        )
    return image[:height, :width]
