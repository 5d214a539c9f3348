"""Restoring image files: one, or a folder of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import jax
import numpy as np

from converse_jax.imaging import (
    Image,
    ImageError,
    encode_image,
    list_images,
    read_image,
    write_image,
)
from converse_jax.imaging._image import EXTENSIONS
from converse_jax.restore import Plan, RestoreError, restore_image

_SIZES_BETWEEN_CLEARINGS = 32


class AnyRestorer(Protocol):
    """A `Restorer`, or a `BundledRestorer` that chooses one for each image."""

    def plan(self, image: np.ndarray, *, sigma: float | None = None) -> Plan:
        """How an image is restored, and notes for the user."""

    def prepare_kernel(self, kernel: np.ndarray | None) -> tuple[np.ndarray | None, list[str]]:
        """The kernel as the network takes it."""


@dataclass(frozen=True)
class FileResult:
    """The result of one file.

    Attributes:
        source: the image that was read.
        target: the file that was written, or would have been.
        status: "restored", "skipped" (target was there already) or "failed".
        plan: for a restored file, how it was restored.
        reason: for a failed one, why.
    """

    source: Path
    target: Path
    status: Literal["restored", "skipped", "failed"]
    plan: Plan | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Counts:
    """How many files were restored, skipped (their output exists), and failed."""

    restored: int = 0
    skipped: int = 0
    failed: int = 0


def restore_file(
    restorer: AnyRestorer,
    source: str | os.PathLike[str] | BinaryIO,
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    sigma: float | None = None,
    **options: Any,
) -> Plan:
    """Restore one image file; `sigma` is as for `Restorer.plan`, `options` as for `Restorer`.

    The folder of `target` is made if it is missing. Returns how it was restored.

    Raises:
        ImageError: source cannot be read, target cannot be written or is there already.
        RestoreError: as `Restorer`.
    """
    target = Path(target)
    restorer.prepare_kernel(options.get("kernel"))
    # Fail before the work if its result could not be written.
    if not overwrite and os.path.lexists(target):
        raise ImageError(
            f"{target}: exists already; name another file, or overwrite it (--overwrite)"
        )
    format = _format(target)
    image = read_image(source)
    check_holds(str(target), image, format)
    try:
        plan = restorer.plan(image.pixels, sigma=sigma)
        restored = restore_image(plan.restorer, image, sigma=plan.sigma, **options)
    except RestoreError as error:
        name = source if isinstance(source, (str, os.PathLike)) else "standard input"
        raise RestoreError(f"{name}: {error}") from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{target.parent}: cannot be made ({error.strerror})") from None
    write_image(target, restored, overwrite=overwrite)
    return plan


def check_holds(name: str, image: Image, format: str) -> None:
    """Raise an ImageError about `name` if the format cannot hold all that is in the image."""
    alpha = None if image.alpha is None else image.alpha[:1, :1]
    try:
        # One pixel is enough to find out.
        encode_image(replace(image, pixels=image.pixels[:1, :1], alpha=alpha), format)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


def _format(target: Path) -> str:
    format = EXTENSIONS.get(target.suffix.lower())
    if format is None:
        known = " ".join(EXTENSIONS)
        raise ImageError(f"{target}: the extension {target.suffix!r} is not one of {known}")
    return format


def restore_folder(
    restorer: AnyRestorer,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    on_result: Callable[[FileResult, int, int], None] | None = None,
    **options: Any,
) -> Counts:
    """Restore the images of a folder into another, under the same names and sub-folders.

    Images that exist in the target are skipped, unless `overwrite`. One that cannot be restored
    does not stop the others. Images are sorted by size, as each size is compiled.

    Args:
        restorer: the network.
        source: a folder; its subfolders are included.
        target: another folder, made if missing. It may lie in `source`, and is then not read.
        overwrite: replace existing images.
        on_result: called after each image with its result, its number from 1, and the total.
        options: options of `restore_file`.

    Returns:
        How many images were restored, skipped, and failed.

    Raises:
        ImageError: no such source, no images in it, or a target that is source or a file.
        RestoreError: a kernel that the model cannot use.
    """
    source, target = Path(source), Path(target)
    restorer.prepare_kernel(options.get("kernel"))
    images = _images_outside(source, target)
    finished = [] if overwrite else [p for p in images if os.path.lexists(target / p)]
    waiting = sorted((_size(source / p), p) for p in set(images) - set(finished))

    counts = {"restored": 0, "skipped": 0, "failed": 0}

    def report(result: FileResult) -> None:
        counts[result.status] += 1
        if on_result is not None:
            on_result(result, sum(counts.values()), len(images))

    for name in finished:
        report(FileResult(source / name, target / name, "skipped"))
    sizes: set[tuple[int, ...]] = set()
    for size, name in waiting:
        sizes.add(size)
        if len(sizes) > _SIZES_BETWEEN_CLEARINGS:
            # JAX keeps the traces of every size, megabytes each, until all caches are cleared; the
            # price is to trace the next size anew.
            jax.clear_caches()
            sizes = {size}
        try:
            plan = restore_file(
                restorer, source / name, target / name, overwrite=overwrite, **options
            )
            report(FileResult(source / name, target / name, "restored", plan))
        except (ImageError, RestoreError) as error:
            report(FileResult(source / name, target / name, "failed", reason=str(error)))
        except (OSError, MemoryError) as error:
            reason = f"{source / name}: {str(error) or type(error).__name__}"
            report(FileResult(source / name, target / name, "failed", reason=reason))
    return Counts(**counts)


def _images_outside(source: Path, target: Path) -> list[Path]:
    """Images in source but not in target, relative to source."""
    images = list_images(source)
    own, others = source.resolve(), target.resolve()
    if own == others:
        raise ImageError(f"{target}: is the folder that is read; name another one to write to")
    if os.path.lexists(target) and not target.is_dir():
        raise ImageError(f"{target}: is a file; the images of a folder need a folder")
    inside = [path for path in images if not path.resolve().is_relative_to(others)]
    # A target above the source contains all of it: then nothing is left out.
    chosen = images if own.is_relative_to(others) else inside
    if not chosen:
        raise ImageError(f"{source}: holds no images ({' '.join(EXTENSIONS)})")
    return [path.relative_to(source) for path in chosen]


def _size(path: Path) -> tuple[int, ...]:
    """Width, height and whether the image lies on its side, for sorting: (0,) if unreadable."""
    from PIL import Image as PilImage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PilImage.open(path) as image:
                return (*image.size, int(image.getexif().get(0x0112, 1) > 4))
    except Exception:  # restoring it will report what is wrong
        return (0,)
