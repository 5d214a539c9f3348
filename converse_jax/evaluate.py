"""The evaluation protocol of the paper's tables, applied to a model and a folder of images."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import jax
import numpy as np

from converse_jax._version import __version__
from converse_jax.atomic import write_bytes
from converse_jax.imaging import (
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
from converse_jax.restore import RestoreError, Restorer, normalized_kernel

SIGMAS: dict[Task, float | None] = {"denoise": 25.0, "sr": None, "deblur": 2.55}
"""Noise of the paper's experiments, in 8-bit levels; super-resolution has none."""

METRICS = ("psnr", "ssim", "psnr_y", "ssim_y")


class Row(Score):
    """The figures of one image."""

    name: str


class Report(TypedDict):
    """The figures and what they belong to: the JSON that `converse-jax evaluate` writes."""

    mean: Score
    images: list[Row]
    model: str
    architecture: str
    sha256: str
    task: Task
    sigma: float | None
    scale: int
    kernel: list[list[float]] | None
    data: str
    notes: list[str]
    versions: dict[str, str]
    device: str


def evaluate(
    restorer: Restorer,
    data: str | os.PathLike[str],
    *,
    task: Task,
    sigma: float | None = None,
    kernel: np.ndarray | None = None,
    on_result: Callable[[Row, int, int], None] | None = None,
) -> Report:
    """Degrade each image, restore it, and measure: the protocol of the paper's tables.

    A gray model is given the luma of color images, 0.299 R + 0.587 G + 0.114 B; a color model is
    given gray images as three equal channels. Transparency is ignored.

    Args:
        restorer: the network; its card says the scale.
        data: a folder of images, including its subfolders, or one image.
        task: "denoise", "sr" or "deblur"; must be the model's.
        sigma: standard deviation of the noise in 8-bit levels; None means `SIGMAS` of the task.
        kernel: the blur of the task "deblur", `[kh, kw]`, non-negative.
        on_result: called after each image with its figures, its number from 1, and the total.

    Returns:
        The means over all images and the figures of each, with what they belong to.

    Raises:
        RestoreError: a task other than the model's, a missing or unused kernel, or an image too
            small to be measured.
        ImageError: data cannot be read.
    """
    card = restorer.card
    if task != card.task:
        raise RestoreError(
            f"task: got {task!r}, but {card.name} ({card.architecture}) is a model for "
            f"{card.task!r}; give --task {card.task} or another model"
        )
    if sigma is not None and task == "sr":
        raise RestoreError("sigma: the protocol of 'sr' adds no noise; leave it out")
    sigma = SIGMAS[task] if sigma is None else sigma
    if kernel is not None:
        kernel, _ = normalized_kernel(kernel)
    if (task == "deblur") != (kernel is not None):
        raise RestoreError(
            "kernel: task 'deblur' blurs the images first; give the kernel (--kernel k.npy)"
            if kernel is None
            else f"kernel: task {task!r} blurs nothing; leave it out"
        )
    # A blind model is not told the kernel its images were blurred with.
    known = None if restorer.blur_size is None else kernel
    restorer.prepare_kernel(known)

    root, paths = Path(data), [Path(data)]
    if os.path.isdir(root):
        paths = list_images(root)
    if not paths:
        raise RestoreError(f"{root}: holds no images; give a folder with PNG, JPEG or TIFF files")
    rows: list[Row] = []
    notes: dict[str, None] = {}
    for number, path in enumerate(paths, 1):
        clean, note = _read_clean(path, card.channels)
        notes |= {note: None} if note else {}
        try:
            given, target = _degrade(clean, task, sigma, card.scale, kernel)
            level = sigma / 255 if restorer.takes_sigma and sigma is not None else None
            restored = restorer(given, kernel=known, sigma=level, extend_borders=False)
            figures = score(to_uint8(restored), target, task=task, scale=card.scale)
        except ValueError as error:  # an image too small, a kernel that is not a blur
            raise RestoreError(f"{path}: {error}") from None
        name = path.name if path == root else path.relative_to(root).as_posix()
        rows.append(Row(name=name, **figures))
        if on_result is not None:
            on_result(rows[-1], number, len(paths))
    return Report(
        mean=_mean(rows),
        images=rows,
        model=card.name,
        architecture=card.architecture,
        sha256=card.sha256,
        task=task,
        sigma=sigma,
        scale=card.scale,
        kernel=None if kernel is None else kernel.tolist(),
        data=str(data),
        notes=list(notes),
        versions=_versions(),
        device=jax.devices()[0].device_kind,
    )


def _read_clean(path: Path, channels: int) -> tuple[np.ndarray, str | None]:
    """The image in 8 bits with the model's channels, and a note if they had to be converted."""
    pixels = read_image(path).pixels
    clean = to_reference_uint8(pixels, channels)
    if pixels.shape[-1] == channels:
        return clean, None
    if channels == 1:
        return clean, "color images were converted to gray, as the model is gray"
    return clean, "gray images were given to the model as three equal channels"


def _degrade(
    clean: np.ndarray, task: Task, sigma: float | None, scale: int, kernel: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if task == "sr":
        return degrade_sr(clean, scale=scale)
    assert sigma is not None
    if task == "denoise":
        return degrade_denoise(clean, sigma=sigma)
    assert kernel is not None
    return degrade_deblur(clean, kernel, sigma=sigma)


def _mean(rows: list[Row]) -> Score:
    def mean(metric: str) -> float:
        return float(np.mean([row[metric] for row in rows]))  # type: ignore[literal-required]

    return Score(psnr=mean("psnr"), ssim=mean("ssim"), psnr_y=mean("psnr_y"), ssim_y=mean("ssim_y"))


def _versions() -> dict[str, str]:
    installed = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    return {"converse-jax": __version__, **installed, "numpy": np.__version__}


def write_report(path: str | os.PathLike[str], report: Report, *, overwrite: bool = False) -> None:
    """Write a report as JSON, completely or not at all; an infinite PSNR (equal images) is null.

    Raises:
        RestoreError: the file exists and `overwrite` is False, or it cannot be written.
    """
    check_report_path(path, overwrite=overwrite)
    path = Path(path)
    text = json.dumps(_finite(report), indent=1) + "\n"
    try:
        write_bytes(path, text.encode(), overwrite=overwrite)
    except OSError as error:
        raise RestoreError(f"{path}: cannot be written ({error.strerror})") from None


def check_report_path(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise a RestoreError if `write_report` would; to be called before the work."""
    path = Path(path)
    if os.path.isdir(path):
        raise RestoreError(f"{path}: is a folder; name a file in it")
    if not os.path.isdir(path.parent):
        raise RestoreError(f"{path}: there is no folder {path.parent}; create it first")
    if os.path.lexists(path) and not overwrite:
        raise RestoreError(
            f"{path}: exists already; name another file, or overwrite it (--overwrite)"
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
