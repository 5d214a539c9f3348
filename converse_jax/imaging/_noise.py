"""The seeded noise of the evaluation protocol."""

from __future__ import annotations

import numpy as np


def protocol_noise(shape: tuple[int, ...], sigma: float, seed: int = 0) -> np.ndarray:
    """The Gaussian noise that all published numbers were measured with.

        n = normal(0, sigma / 255) from NumPy's legacy generator, freshly seeded

    The draws are those of `np.random.seed(seed); np.random.normal(0, sigma / 255, shape)`, but
    NumPy's global state is neither read nor changed. The seed is used anew for each image.

    Args:
        shape: shape of the noise; in the protocol that of the image, `(H, W, C)`.
        sigma: standard deviation in 8-bit gray levels, at least 0.
        seed: seed of the generator; 0 in the protocol.

    Returns:
        float64 `shape`, in units of the [0, 1] range.

    Raises:
        ValueError: a negative sigma.

    Source: the authors' released test scripts.
    """
    if not sigma >= 0:
        raise ValueError(
            f"sigma: got {sigma}; expected a standard deviation of at least 0 (of 255)"
        )
    return np.random.RandomState(seed).normal(0.0, sigma / 255.0, shape)
