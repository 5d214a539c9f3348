"""The bundled networks at work: a photograph for each, degraded and restored."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from converse_jax._sheet import Panel, check_target, write_sheet
from converse_jax.demo._photographs import CREDITS, read_photograph
from converse_jax.demo._rows import WIDTH, panels
from converse_jax.imaging import (
    degrade_deblur,
    degrade_denoise,
    degrade_sr,
    psnr,
    random_motion_kernel,
    resize,
    to_uint8,
)
from converse_jax.restore import Restorer
from converse_jax.weights import list_models, load

_HEIGHT, _WIDTH = 192, 256
_SIDE = 36  # of the detail
_KERNEL = random_motion_kernel(7, np.random.default_rng(7))


@dataclass(frozen=True)
class Example:
    """One row of the sheet: a network, and the part of a photograph that it restores.

    The whole photograph is degraded before the part is cut out, so that its borders are like those
    of any photograph.

    Attributes:
        network: name of a bundled network.
        photograph: one of scikit-image's.
        corner: row and column of the part, multiples of `scale`.
        detail: row and column, in the part, of the square to magnify.
        degrade: takes the photograph, uint8 `[H, W, C]`, to the image that is restored, float32
            `[H/scale, W/scale, C]`.
        degraded, restored: captions.
        scale: the network's enlargement.
        sigma: noise level (0 to 255) for a network that takes one; None estimates it.
        kernel: blur kernel for a network that takes one.
    """

    network: str
    photograph: str
    corner: tuple[int, int]
    detail: tuple[int, int]
    degrade: Callable[[np.ndarray], np.ndarray]
    degraded: str
    restored: str
    scale: int = 1
    sigma: float | None = None
    kernel: np.ndarray | None = None


@dataclass(frozen=True)
class Restoration:
    """An example restored: images float32 `[192, 256, C]` and their PSNR in dB, in 8 bits.

    `before` is the network's input, enlarged by cubic interpolation if the network enlarges.
    """

    example: Example
    before: np.ndarray
    after: np.ndarray
    clean: np.ndarray
    psnr_before: float
    psnr_after: float


def _white_noise(clean: np.ndarray) -> np.ndarray:
    return degrade_denoise(clean, sigma=25)[0]


def _smaller(clean: np.ndarray, scale: int) -> np.ndarray:
    return degrade_sr(clean, scale=scale)[0]


def _shaken(clean: np.ndarray) -> np.ndarray:
    return degrade_deblur(clean, _KERNEL, sigma=2.55)[0]


def _like_a_phone(clean: np.ndarray) -> np.ndarray:
    """Slight blur, shot and read noise of 4 levels in middle gray, and a good JPEG file."""
    from PIL import Image as PilImage
    from scipy import ndimage

    seen = ndimage.gaussian_filter(clean.astype(np.float64), (0.5, 0.5, 0), mode="nearest")
    level = 4 * np.sqrt((seen / 255 + 0.1) / 0.6)
    noise = np.random.default_rng(0).standard_normal(clean.shape)
    file = io.BytesIO()
    PilImage.fromarray(np.clip(np.rint(seen + level * noise), 0, 255).astype(np.uint8)).save(
        file, "JPEG", quality=90
    )
    return np.asarray(PilImage.open(file), np.float32) / np.float32(255)


EXAMPLES = (
    Example(
        *("denoise-color", "astronaut", (8, 92), (78, 98), _white_noise),
        *("White noise, sigma 25", "Denoised by denoise-color"),
        sigma=25,
    ),
    Example(
        *("denoise-gray", "camera", (56, 152), (78, 82), _white_noise),
        *("White noise, sigma 25, gray", "Denoised by denoise-gray"),
        sigma=25,
    ),
    Example(
        *("sr-x4", "coffee", (28, 164), (112, 30), functools.partial(_smaller, scale=4)),
        *("A quarter of the size, enlarged bicubically", "Enlarged x4 by sr-x4"),
        scale=4,
    ),
    Example(
        *("sr-x2", "astronaut", (300, 96), (50, 60), functools.partial(_smaller, scale=2)),
        *("Half the size, enlarged bicubically", "Enlarged x2 by sr-x2"),
        scale=2,
    ),
    Example(
        *("deblur", "coffee", (192, 264), (76, 84), _shaken),
        *("Camera shake of 7 pixels, noise 2.55/255", "Deblurred by deblur, told the shake"),
        sigma=2.55,
        kernel=_KERNEL,
    ),
    # Not the coffee: JPEG removes the noise in its dark parts, so that 1.1 of 3.3 levels are
    # estimated, as without noise; here 2.3 of 3.3.
    Example(
        *("photo", "chelsea", (60, 112), (36, 44), _like_a_phone),
        *("As from a phone: noise, soft lens, JPEG", "Restored by photo, told nothing"),
    ),
)
"""The rows of the sheet from the top down, one for each network."""


def choose_examples() -> tuple[list[Example], list[str]]:
    """The examples whose network is in this package, and the names of the missing networks."""
    names = list_models().keys()
    present = [example for example in EXAMPLES if example.network in names]
    missing = [example.network for example in EXAMPLES if example.network not in names]
    return present, missing


def demo_networks(
    target: str | os.PathLike[str],
    examples: Sequence[Example],
    *,
    overwrite: bool = False,
    on_result: Callable[[Restoration], None] | None = None,
) -> list[Restoration]:
    """Restore photographs, each with its bundled network, and save one sheet of them all.

    Args:
        target: the image to make.
        examples: its rows, from `choose_examples`.
        overwrite: replace an existing file.
        on_result: called with each row when it is restored.

    Returns:
        The rows, restored.

    Raises:
        ImageError: target exists or cannot be written, or scikit-image is not installed.
        WeightsError: no such network in this package.
        RestoreError: a network that cannot restore its example.
    """
    check_target(target, overwrite=overwrite)
    results = []
    for example in examples:
        results.append(restore_example(example))
        if on_result is not None:
            on_result(results[-1])
    write_sheet(
        target,
        "Photographs restored by the networks of converse-jax",
        "Reverse convolution in every block; none of these photographs was used in training",
        [_row(result) for result in results],
        width=WIDTH,
        row_gap=16,
        overwrite=overwrite,
    )
    return results


def restore_example(example: Example) -> Restoration:
    """Degrade the example's photograph and restore it; the result is always the same.

    Raises:
        ImageError: scikit-image is not installed.
        WeightsError: no such network in this package.
        RestoreError: a network that cannot restore this.
    """
    photograph, scale = to_uint8(read_photograph(example.photograph)), example.scale
    clean = _cut(photograph, example.corner, 1)
    given = _cut(example.degrade(photograph), example.corner, scale)
    restorer = Restorer(*load(example.network))
    sigma = None if example.sigma is None or not restorer.takes_sigma else example.sigma / 255
    after = restorer(given, kernel=example.kernel, sigma=sigma)
    before = given if scale == 1 else resize(given, scale=scale)
    figures = [psnr(to_uint8(image), clean) for image in (before, after)]
    return Restoration(example, before, after, clean.astype(np.float32) / 255, *figures)


def _cut(image: np.ndarray, corner: tuple[int, int], scale: int) -> np.ndarray:
    """The example's part of an image `scale` times smaller than the photograph."""
    top, left, height, width = (x // scale for x in (*corner, _HEIGHT, _WIDTH))
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _row(result: Restoration) -> list[Panel]:
    example = result.example
    return panels(
        (result.before, result.after, result.clean),
        (result.psnr_before, result.psnr_after),
        (example.degraded, example.restored),
        (*example.detail, _SIDE),
        f"Photograph: {CREDITS[example.photograph]}",
    )
