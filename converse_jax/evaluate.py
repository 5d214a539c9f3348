"""The evaluation protocol of the paper's tables, applied to a model and a folder of images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, cast

import jax
import numpy as np

from converse_jax._report import (
    Failure,
    Pair,
    Row,
    matched_images,
    mean_of,
    measure_pairs,
    versions,
)
from converse_jax.imaging import (
    ImageError,
    KernelError,
    Score,
    Task,
    degrade_deblur,
    degrade_denoise,
    degrade_sr,
    list_images,
    read_image,
    score,
    to_reference_uint8,
    to_uint8,
)
from converse_jax.imaging._kernels import normalized_kernel
from converse_jax.imaging._protocol import with_channels
from converse_jax.restore import RestoreError, Restorer

SIGMAS: dict[Task, float | None] = {"denoise": 25.0, "sr": None, "deblur": 2.55}
"""Noise of the paper's experiments, in 8-bit levels; super-resolution has none."""


class Report(TypedDict):
    """The figures and what they belong to: the JSON that `converse-jax evaluate` writes."""

    mean: Score
    images: list[Row]
    failed: list[Failure]
    model: str
    architecture: str
    sha256: str
    task: Task
    sigma: float | None
    scale: int
    kernel: list[list[float]] | None
    data: str
    input: str | None
    notes: list[str]
    versions: dict[str, str]
    device: str


def evaluate(
    restorer: Restorer,
    data: str | os.PathLike[str],
    *,
    task: Task | None = None,
    sigma: float | None = None,
    kernel: np.ndarray | None = None,
    input: str | os.PathLike[str] | None = None,
    extend_borders: bool = True,
    limit: int | None = None,
    on_result: Callable[[Row | Failure, int, int], None] | None = None,
) -> Report:
    """Degrade each image, restore it, and measure: the protocol of the paper's tables.

    With `input` nothing is degraded: its images are restored and compared with those of `data`.
    A gray model is given the luma of color images, 0.299 R + 0.587 G + 0.114 B; a color model is
    given gray images as three equal channels. Transparency is ignored. An image of a folder that
    cannot be measured does not end the evaluation.

    Args:
        restorer: the network; its card says the scale.
        data: a folder of images, including its subfolders, or one image.
        task: "denoise", "sr" or "deblur"; must be the model's, which is the default.
        sigma: standard deviation of the noise in 8-bit levels; None means `SIGMAS` of the task. It
            is added; of images of `input` it is what the model is told, and estimated by default.
        kernel: the blur of the task "deblur", `[kh, kw]`, or of "sr" for a `PnPRestorer`; of images
            of `input`, what the model is told.
        input: a folder of degraded images with the names of those in `data` (`matched_images`), or
            one image.
        extend_borders: as for `Restorer`, for images of `input`; the protocol's blur is circular.
        limit: measure this many images at most, the first by name.
        on_result: called after each image with its figures or why there are none, its number from
            1, and the total.

    Returns:
        The means over the images that were measured and the figures of each, with what they belong
        to.

    Raises:
        RestoreError: a task other than the model's, a missing or unused kernel, a noise level that
            the model cannot use, an image that is too small to be measured if there is no other.
        ImageError: data or input cannot be read.
    """
    card = restorer.card
    task = _checked_task(restorer, task)
    if sigma is not None and not 0 <= sigma < float("inf"):
        raise RestoreError(f"sigma: got {sigma}; expected a standard deviation of at least 0")
    if limit is not None and limit < 1:
        raise RestoreError(f"limit: got {limit}; expected a number of images of at least 1")
    if kernel is not None:
        try:
            kernel, _ = normalized_kernel(kernel)
        except KernelError as error:
            raise RestoreError(str(error)) from None
    known = kernel
    if input is not None:
        if sigma is not None and not restorer.takes_sigma:
            raise RestoreError(f"sigma: {card.name} is told none, and to pairs none is added")
        pairs = matched_images(data, input, scale=card.scale)
    else:
        if sigma is not None and task == "sr" and not restorer.takes_sigma:
            raise RestoreError("sigma: the protocol of 'sr' adds no noise; leave it out")
        sigma = SIGMAS[task] if sigma is None else sigma
        if task == "deblur" and kernel is None:
            raise RestoreError(
                "kernel: task 'deblur' blurs the images first; give the kernel (--kernel K)"
            )
        if kernel is not None and not (task == "deblur" or restorer.takes_kernel):
            raise RestoreError(f"kernel: task {task!r} blurs nothing; leave it out")
        # A blind model is not told the kernel its images were blurred with.
        known = kernel if restorer.takes_kernel else None
        pairs = _listed(Path(data))
    _, kernel_notes = restorer.prepare_kernel(known)
    level = sigma / 255 if restorer.takes_sigma and sigma is not None else None

    def measured(pair: Pair) -> Row:
        clean = _read_clean(pair.a, card.channels, notes)
        if input is None:
            given, target = _degrade(clean, task, sigma, card.scale, kernel)
        else:
            given, target = _read_given(pair.b, clean, card.scale)
        extend = extend_borders if input is not None else kernel is None
        restored = restorer(given, kernel=known, sigma=level, extend_borders=extend)
        figures = score(to_uint8(restored), target, task=task, scale=card.scale)
        return Row(name=pair.name, **figures)

    notes: dict[str, None] = dict.fromkeys(kernel_notes)
    rows, failed = measure_pairs(pairs[:limit], measured, on_result, error=RestoreError)
    if not rows:
        raise RestoreError(f"{data}: none of its {len(failed)} images could be measured")
    return Report(
        mean=mean_of(rows),
        images=rows,
        failed=failed,
        model=card.name,
        architecture=card.architecture,
        sha256=card.sha256,
        task=task,
        sigma=sigma,
        scale=card.scale,
        kernel=None if kernel is None else kernel.tolist(),
        data=str(data),
        input=None if input is None else str(input),
        notes=list(notes),
        versions=versions(),
        device=jax.devices()[0].device_kind,
    )


def _checked_task(restorer: Restorer, task: Task | None) -> Task:
    card = restorer.card
    if task is not None and task != card.task:
        raise RestoreError(
            f"task: got {task!r}, but {card.name} ({card.architecture}) is a model for "
            f"{card.task!r}; give --task {card.task} or another model"
        )
    return cast(Task, card.task)


def _listed(root: Path) -> list[Pair]:
    """The image, or the images of the folder, each with itself."""
    if not os.path.isdir(root):
        return [Pair(root.name, root, root)]
    pairs = [Pair(p.relative_to(root).as_posix(), p, p) for p in list_images(root)]
    if not pairs:
        raise RestoreError(f"{root}: holds no images; give a folder with PNG, JPEG or TIFF files")
    return pairs


def _read_clean(path: Path, channels: int, notes: dict[str, None]) -> np.ndarray:
    """The image in 8 bits with the model's channels; a note if they had to be converted."""
    pixels = read_image(path).pixels
    if pixels.shape[-1] > channels:
        notes["color images were converted to gray, as the model is gray"] = None
    elif pixels.shape[-1] < channels:
        notes["gray images were given to the model as three equal channels"] = None
    return to_reference_uint8(pixels, channels)


def _read_given(path: Path, clean: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """A degraded image, and the part of the clean one that it shows."""
    given = with_channels(read_image(path).pixels, clean.shape[-1]).astype(np.float32)
    (height, width), (rows, columns) = given.shape[:2], clean.shape[:2]
    if (height, width) != (rows // scale, columns // scale):
        raise ImageError(
            f"{path}: got {width}x{height}; expected {columns // scale}x{rows // scale}, "
            f"as the original is {columns}x{rows} and the model's scale {scale}"
        )
    return given, clean[: scale * height, : scale * width]


def _degrade(
    clean: np.ndarray, task: Task, sigma: float | None, scale: int, kernel: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if task == "sr":
        return degrade_sr(clean, scale=scale, kernel=kernel, sigma=sigma or 0.0)
    assert sigma is not None
    if task == "denoise":
        return degrade_denoise(clean, sigma=sigma)
    assert kernel is not None
    return degrade_deblur(clean, kernel, sigma=sigma)
