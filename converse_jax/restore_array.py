"""The work of `converse-jax restore` in one call, on an array."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from converse_jax.bundled import BundledTask, Solver, default_solver, kept_restorer
from converse_jax.imaging import Image, read_image, read_kernel
from converse_jax.imaging._encode import to_samples
from converse_jax.restore import RestoreError, apply_to_image

_BITS = {"uint8": 8, "uint16": 16}


def restore_image(
    image: np.ndarray | str | os.PathLike[str],
    *,
    task: BundledTask = "photo",
    scale: int | None = None,
    solver: Solver | None = None,
    kernel: np.ndarray | str | os.PathLike[str] | None = None,
    sigma: float | None = None,
    white_level: float | None = None,
    **options: Any,
) -> np.ndarray:
    """Restore an image with the networks that come with the package.

    Networks and compiled programs of the last calls are kept. For a network of your own, or to
    write files, see `Restorer` and `restore_files`.

    Args:
        image: `[H, W]` or `[H, W, C]`, C = 1 (gray), 2 (and alpha), 3 (RGB) or 4 (and alpha);
            uint8, uint16, or floating point in [0, 1]. Or an image file, see `read_image`.
        task: "photo" improves an ordinary photograph, "denoise" removes noise, "sr" enlarges,
            "deblur" reverses a known blur.
        scale: enlargement of "sr", an integer of at least 2; 2 by default.
        solver: "network" or "pnp", see `BundledRestorer`; what restores better by default.
        kernel: the blur, for "deblur" and "sr": `[kh, kw]`, its element `(kh // 2, kw // 2)` at the
            origin, or a file or a description, see `read_kernel`.
        sigma: standard deviation of the noise on the scale of 0 to 255, whatever the type of
            `image`; estimated by default.
        white_level: the value in `image` that is white, if that is not the largest of its type.
        options: of `Restorer`, as `strength`, `self_ensemble`, `extend_borders`, `tile`, `overlap`.

    Returns:
        The restored image in the type of `image` (of the file) and with its axes.

    Raises:
        RestoreError: an argument that is not valid, or that the task has no use for.
        ImageError, KernelError: a file that cannot be read.

    Example:
        >>> better = restore_image("photo.jpg")
        >>> sharp = restore_image(x, task="deblur", kernel="motion:15:30")
    """
    taken: np.ndarray | None = None
    if kernel is not None:
        if task not in ("deblur", "sr"):
            raise RestoreError(f"kernel: task {task!r} has no use for one; leave it out")
        taken = kernel if isinstance(kernel, np.ndarray) else read_kernel(kernel)[0]
    if isinstance(image, (str, os.PathLike)):
        given, array = read_image(image, white_level=white_level), None
    else:
        array = np.asarray(image)
        given = _from_array(array, white_level)
    solver = solver or default_solver(task, kernel=taken, sigma=sigma)
    chosen = kept_restorer(task, scale, solver)
    plan = chosen.plan(given.pixels, sigma=None if sigma is None else sigma / 255)
    result = apply_to_image(plan.restorer, given, kernel=taken, sigma=plan.sigma, **options)
    restored = to_samples(result)
    if array is None:
        return restored
    return restored.astype(array.dtype, copy=False).reshape(*restored.shape[: array.ndim])


def _from_array(array: np.ndarray, white_level: float | None) -> Image:
    maps = array[..., None] if array.ndim == 2 else array
    if maps.ndim != 3 or maps.shape[-1] not in (1, 2, 3, 4) or 0 in maps.shape:
        raise RestoreError(
            f"image: got shape {array.shape}; expected [H, W] or [H, W, C] with 1 to 4 channels"
        )
    if not (array.dtype.name in _BITS or np.issubdtype(array.dtype, np.floating)):
        raise RestoreError(f"image: got {array.dtype}; expected uint8, uint16, or floats in [0, 1]")
    bits = _BITS.get(array.dtype.name, 32)
    largest = 1.0 if bits == 32 else 2.0**bits - 1
    if white_level is not None and not 0 < white_level < float("inf"):
        raise RestoreError(f"white_level: got {white_level}; expected a positive number")
    has_alpha = maps.shape[-1] in (2, 4)
    colors = maps[..., :-1] if has_alpha else maps
    pixels = (colors / (white_level or largest)).astype(np.float32)
    alpha = (maps[..., -1] / largest).astype(np.float32) if has_alpha else None
    return Image(pixels, alpha, bits=bits, white=white_level)
