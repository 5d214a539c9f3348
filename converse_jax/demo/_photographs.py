"""The demo's photographs, from scikit-image; no bundled network was trained on them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from converse_jax.imaging import ImageError, read_image

CREDITS = {
    "astronaut": "NASA, public domain",
    "camera": "Lav Varshney, CC0",
    "chelsea": "Stefan van der Walt, CC0",
    "coffee": "Rachel Michetti, CC0",
}
"""Authors and licenses, from the docstrings of `skimage.data`."""


def read_photograph(name: str) -> np.ndarray:
    """A photograph of `CREDITS`, float32 `[H, W, C]` in [0, 1].

    Raises:
        ImageError: scikit-image, which carries it, is not installed.
    """
    # Read the file directly: the package's own loader might start a download.
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise ImageError(
            'the photograph of the demo is part of scikit-image: pip install "converse-jax[app]"'
        )
    return read_image(Path(package.origin).parent / "data" / f"{name}.png").pixels
