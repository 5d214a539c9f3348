"""How much noise an image has, from the image alone."""

from __future__ import annotations

import math

import numpy as np

_SIDE = 8  # of a block, in pixels
_BLOCKS = 16384  # at most about this many are examined
_FLAT = 0.02  # share of the blocks that may be flat enough to show noise alone
_FEWEST = 32  # of them, in small images
_QUANTILE = 0.1  # the flat blocks' energy is read here: less of it is texture than of their mean
_LOW = 4  # coefficients u + v < 4 rank the blocks, the others measure


def estimate_noise(image: np.ndarray) -> float:
    """Estimate the standard deviation of an image's noise, telling it from texture.

        sigma^2 = mean_c  Q_q { mean_{u+v>=4} D_b[c, u, v]^2 : b flat }  k / chi2_k(q)

    D_b is the orthonormal DCT of an 8x8 block b, for RGB of gray and two color differences (an
    orthonormal basis: white noise stays white, and texture is almost only in gray). The 2% of the
    blocks with the least gray energy in the coefficients 0 < u+v < 4 count as flat. For white noise
    the energy of the k other coefficients has a chi^2 distribution; its quantile Q_q, q = 0.1, is
    divided by that of chi^2_k / k, and is less affected by texture than a mean.

    On BSDS500/val, white noise of 5 to 50 levels (of 255) is estimated to within 0.3 to 0.7 on
    average. Without noise the median estimate is 0.6 to 0.7, but dense texture from edge to edge
    reads as up to 12. About half of the noise is found after a camera's smoothing and JPEG. Blocks
    with non-finite samples, or with a tenth of them exactly 0 or 1 (clipped), are ignored.

    Args:
        image: float `[H, W, C]` in [0, 1]; noise may leave the range.

    Returns:
        At least 0, in units of [0, 1]; 0 for images with a side below 8 pixels or without a usable
        block.

    Raises:
        ValueError: wrong dtype or shape.

    Source: after N. Ponomarenko et al., "An automatic approach to lossy compression of AVIRIS
    images", IGARSS 2007 (noise from the DCT of flat blocks); constants chosen on BSDS500/train.
    """
    from scipy.special import gammaincinv

    image = np.asarray(image)
    if not np.issubdtype(image.dtype, np.floating) or image.ndim != 3 or 0 in image.shape:
        raise ValueError(
            f"image: got {image.dtype} {image.shape}; expected floats in [0, 1], [H, W, C]"
        )
    if min(image.shape[:2]) < _SIDE:
        return 0.0
    blocks = _sampled_blocks(image)
    if not len(blocks):
        return 0.0
    basis = _GRAY_AND_COLORS if image.shape[2] == 3 else np.eye(image.shape[2], dtype=np.float32)
    # Not `@`: for small arrays in many loading threads, BLAS's own threads take ten times as long.
    gray = np.einsum("c,bcp->bp", basis[0], blocks)
    rank = np.square(np.einsum("bp,pw->bw", gray, _LOW_WAVES)).sum(axis=1)
    count = min(max(int(_FLAT * len(rank)), _FEWEST), len(rank))
    flat = blocks[np.argpartition(rank, count - 1)[:count]]
    high = np.einsum("bdp,pw->bdw", np.einsum("dc,bcp->bdp", basis, flat), _HIGH_WAVES)
    energy = np.quantile(np.square(high).mean(axis=2), _QUANTILE, axis=0)
    waves = _HIGH_WAVES.shape[1]
    chi_squared = 2 * float(gammaincinv(waves / 2, _QUANTILE))
    return math.sqrt(float(energy.mean()) * waves / chi_squared)


def _sampled_blocks(image: np.ndarray) -> np.ndarray:
    """Blocks `[b, C, 64]` on a grid of an odd step, so that they meet JPEG's grid at any offset."""
    step = max(3, math.isqrt(image.shape[0] * image.shape[1] // _BLOCKS)) | 1
    windows = np.lib.stride_tricks.sliding_window_view(image, (_SIDE, _SIDE), axis=(0, 1))
    windows = windows[::step, ::step]
    blocks = windows.reshape(-1, image.shape[2], _SIDE * _SIDE).astype(np.float32)
    clipped = ((blocks == 0) | (blocks == 1)).mean(axis=(1, 2)) >= 0.1
    return blocks[~clipped & np.isfinite(blocks).all(axis=(1, 2))]


def _waves() -> tuple[np.ndarray, np.ndarray]:
    """The DCT's basis images of low and of high frequency, `[64, waves]` each."""
    t = np.arange(_SIDE)
    rows = np.cos(np.pi * np.outer(t, t + 0.5) / _SIDE) * math.sqrt(2 / _SIDE)
    rows[0] /= math.sqrt(2)
    total = np.add.outer(t, t).ravel()
    waves = np.kron(rows, rows).T.astype(np.float32)
    return waves[:, (total > 0) & (total < _LOW)], waves[:, total >= _LOW]


_LOW_WAVES, _HIGH_WAVES = _waves()
_GRAY_AND_COLORS = np.array(
    [[1, 1, 1], [1, 0, -1], [1, -2, 1]] / np.sqrt([[3], [2], [6]]), np.float32
)
