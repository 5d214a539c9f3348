"""Restoring image files: one, or a folder of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import jax
import numpy as np

from converse_jax._tiling import folder_tile
from converse_jax.atomic import remove_leftovers
from converse_jax.imaging import Image, ImageError, encode_pages, read_pages, resize
from converse_jax.imaging._encode import check_encodable, check_quality, dropped
from converse_jax.imaging._files import (
    TargetExistsError,
    check_target,
    format_of,
    sort_out,
    write_encoded,
)
from converse_jax.imaging._image import EXTENSIONS, MAX_PIXELS, READ_EXTENSIONS
from converse_jax.messages import exists_already
from converse_jax.restore import Plan, RestoreError, apply_to_image, checked_sides
from converse_jax.weights import ModelCard

_SIZES_BETWEEN_CLEARINGS = 32


class AnyRestorer(Protocol):
    """A `Restorer`, or a `BundledRestorer` that chooses one for each image."""

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """Of the networks."""

    def plan(self, image: np.ndarray, *, sigma: float | None = None) -> Plan:
        """How an image is restored, and notes for the user."""

    def prepare_kernel(self, kernel: np.ndarray | None) -> tuple[np.ndarray | None, list[str]]:
        """The kernel as the network takes it."""


@dataclass(frozen=True)
class Output:
    """How results are written.

    Attributes:
        format: "png", "jpeg", "tiff", "webp" or "bmp"; None: what the name of the file says.
        quality: 1 to 100, for JPEG (95 if None), and for WebP (lossless if None). A folder's other
            formats are written as ever.
        width: of the result in pixels; its height in proportion.
        resize: size of the result over that of the image, e.g. 2 where the network enlarges by 4.
            Neither: the size that the network gives. Sizes other than that are reached by
            antialiased bicubic resizing.

    Raises:
        ImageError: a quality out of range or for a format without loss; both sizes, or one that is
            not positive.
    """

    format: str | None = None
    quality: int | None = None
    width: int | None = None
    resize: float | None = None

    def __post_init__(self) -> None:
        if self.quality is not None:
            check_quality(self.format or "jpeg", self.quality)
        if self.width is not None and self.resize is not None:
            raise ImageError("width, resize: give one of them")
        if self.width is not None and self.width < 1:
            raise ImageError(f"width: got {self.width}; expected at least 1 pixel")
        if self.resize is not None and not 0 < self.resize < float("inf"):
            raise ImageError(f"resize: got {self.resize:g}; expected a positive factor")

    def size(self, image: Image, scale: int) -> tuple[int, int]:
        """Height and width of the result for an image, by a network of this scale.

        Raises:
            ImageError: more pixels than are read.
        """
        height, width = image.pixels.shape[:2]
        if self.width is None and self.resize is None:
            return scale * height, scale * width
        factor = self.resize if self.width is None else self.width / width
        assert factor is not None
        final = self.width or max(1, round(factor * width))
        size = max(1, round(factor * height)), final
        if size[0] * size[1] > max(MAX_PIXELS, scale**2 * width * height):
            raise ImageError(f"the result would have {size[1]}x{size[0]} pixels; make it smaller")
        return size

    def finish(self, image: Image, size: tuple[int, int]) -> Image:
        """The restored image at its final size, `(height, width)`."""
        factor = size[1] / image.pixels.shape[1]
        if image.pixels.shape[:2] == size:
            return image
        pixels = resize(image.pixels, size)
        if image.bits != 32:
            pixels = np.clip(pixels, 0, 1)
        alpha = None if image.alpha is None else np.clip(resize(image.alpha, size), 0, 1)
        resolution = image.resolution and image.resolution.enlarged(factor)
        return replace(image, pixels=pixels, alpha=alpha, resolution=resolution)


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
    """How many files were restored, skipped (their output exists), and failed.

    Attributes:
        restored: how many were.
        skipped: how many were.
        failed: how many were.
        unread: the others, which are no images of a kind that is read, relative to the folder.
    """

    restored: int = 0
    skipped: int = 0
    failed: int = 0
    unread: tuple[Path, ...] = ()


def restore_file(
    restorer: AnyRestorer,
    source: str | os.PathLike[str] | BinaryIO,
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    output: Output | None = None,
    **options: Any,
) -> Plan:
    """Restore one image file, page by page if it has several; options as for `restore_bytes`.

    The folder of `target` is made if it is missing. Returns how it was restored.

    Raises:
        ImageError: source cannot be read, target cannot be written or is there already.
        RestoreError: as `Restorer`.
    """
    target, output = Path(target), output or Output()
    _check_options(restorer, options)
    # Fail before the work if its result could not be written.
    if not overwrite and os.path.lexists(target):
        raise TargetExistsError(exists_already(target))
    format = output.format or format_of(target)
    check_target(target, overwrite=overwrite)
    data, plan = restore_bytes(restorer, source, format, name=str(target), output=output, **options)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{target.parent}: cannot be made ({error.strerror})") from None
    write_encoded(target, data, overwrite=overwrite)
    return plan


def restore_bytes(
    restorer: AnyRestorer,
    source: str | os.PathLike[str] | BinaryIO,
    format: str,
    *,
    name: str = "output",
    output: Output | None = None,
    white_level: float | None = None,
    tolerate_damage: bool = False,
    sigma: float | None = None,
    on_page: Callable[[int, int], None] | None = None,
    on_restored: Callable[[Image, Image], None] | None = None,
    **options: Any,
) -> tuple[bytes, Plan]:
    """Restore one image file to the bytes of another.

    Args:
        restorer: the network.
        source: as for `read_image`.
        format: of the result, as for `encode_image`.
        name: of the result, in messages.
        output: the result's size and quality.
        white_level: as for `read_image`.
        tolerate_damage: as for `read_image`.
        sigma: as for `Restorer.plan`.
        on_page: called after each page with its number from 1 and the total.
        on_restored: called with each page and its result.
        options: options of `Restorer`; of several pages tiles are not counted (`on_tile`).

    Returns:
        The whole file, and how its first page was restored, with remarks on all.

    Raises:
        ImageError: source cannot be read, or the format cannot hold the result.
        RestoreError: as `Restorer`.
    """
    _check_options(restorer, options)
    output = output or Output()
    given = source if isinstance(source, (str, os.PathLike)) else "standard input"
    pages = read_pages(source, white_level=white_level, tolerate_damage=tolerate_damage)
    plans: list[Plan] = []
    remarks = dict.fromkeys(pages.notes)  # each once, in order
    if len(pages) > 1:
        options["on_tile"] = None

    def restored() -> Iterator[Image]:
        for number, image in enumerate(pages, 1):
            try:
                plan = restorer.plan(image.pixels, sigma=sigma)
                size = _final_size(name, image, format, plan, len(pages), output)
                result = apply_to_image(plan.restorer, image, sigma=plan.sigma, **options)
            except RestoreError as error:
                raise RestoreError(f"{given}: {error}") from None
            plans.append(plan)
            remarks.update(dict.fromkeys(image.notes))
            if lost := dropped(image, format):
                remarks[f"{format.upper()} has no place for it, dropped: {', '.join(lost)}"] = None
            result = output.finish(result, size)
            if on_restored is not None:
                on_restored(image, result)
            if on_page is not None:
                on_page(number, len(pages))
            yield result

    data = encode_pages(restored(), format, quality=output.quality)
    return data, replace(plans[0], remarks=tuple(remarks))


def _check_options(restorer: AnyRestorer, options: Mapping[str, Any]) -> None:
    """Raise a RestoreError about options that no image could be restored with."""
    restorer.prepare_kernel(options.get("kernel"))
    for card in restorer.cards:
        checked_sides(card, options.get("tile"), options.get("overlap"))


def _final_size(
    name: str, image: Image, format: str, plan: Plan, pages: int, output: Output
) -> tuple[int, int]:
    """Height and width of the result; an ImageError if it could not be written."""
    try:
        size = output.size(image, plan.restorer.card.scale)
        check_encodable(image, format, size=size, pages=pages, quality=output.quality)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    return size


def restore_folder(
    restorer: AnyRestorer,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    output: Output | None = None,
    on_result: Callable[[FileResult, int, int], None] | None = None,
    **options: Any,
) -> Counts:
    """Restore the images of a folder into another, under the same names and sub-folders.

    Images that exist in the target are skipped, unless `overwrite`: several processes may share the
    work of a folder. One that cannot be restored does not stop the others. Images are sorted by
    size, as each size is compiled. If there are more than two sizes, all images are restored in
    tiles of one size, unless `tile=0` asks otherwise.

    Args:
        restorer: the network.
        source: a folder; its subfolders are included.
        target: another folder, made if missing. It may lie in `source`, and is then not read.
        overwrite: replace existing images.
        output: format, quality and size of the results. An image of a format that is not written
            becomes a PNG (a PFM a TIFF), and its extension changes with the format.
        on_result: called after each image with its result, its number from 1, and the total.
        options: options of `restore_file`.

    Returns:
        How many images were restored, skipped, and failed.

    Raises:
        ImageError: no such source, no images in it, or a target that is source or a file.
        RestoreError: a kernel, tile or overlap that the model cannot use.
    """
    source, target, output = Path(source), Path(target), output or Output()
    _check_options(restorer, options)
    images, unread = _images_outside(source, target)
    targets = _targets(images, output)
    for folder in {(target / name).parent for name in targets.values()}:
        remove_leftovers(folder)  # also where all images are finished, and nothing is written
    finished = [] if overwrite else [p for p in targets if os.path.lexists(target / targets[p])]
    waiting = sorted((_size(source / p), p) for p in set(targets) - set(finished))

    counts = {"restored": 0, "skipped": 0, "failed": 0}

    def report(result: FileResult) -> None:
        counts[result.status] += 1
        if on_result is not None:
            on_result(result, sum(counts.values()), len(images))

    for name in finished:
        report(FileResult(source / name, target / targets[name], "skipped"))
    for name in images:
        if name not in targets:
            made = target / target_name(name, output)
            reason = f"{source / name}: another image is written to {made}; rename one of them"
            report(FileResult(source / name, made, "failed", reason=reason))
    tiled: tuple[str, ...] = ()
    if options.get("tile") is None:
        found = {size[:2] for size, _ in waiting if size != (0,)}
        options["tile"] = tile = folder_tile(restorer.cards, found, options.get("overlap"))
        if tile is not None:
            why = "as each size of whole images (--tile 0) would be compiled"
            tiled = (f"images of {len(found)} sizes: restored in tiles of {tile} pixels, {why}",)
    sizes: set[tuple[int, ...]] = set()
    for size, name in waiting:
        sizes.add(() if options["tile"] else size)
        if len(sizes) > _SIZES_BETWEEN_CLEARINGS:
            # JAX keeps the traces of every size, megabytes each, until all caches are cleared; the
            # price is to trace the next size anew.
            jax.clear_caches()
            sizes = {size}
        given, made = source / name, target / targets[name]
        format = output.format or format_of(made)
        own = output if format in ("jpeg", "webp") else replace(output, quality=None)
        if not overwrite and os.path.lexists(made):  # another process restores this folder, too
            report(FileResult(given, made, "skipped"))
            continue
        try:
            plan = restore_file(restorer, given, made, overwrite=overwrite, output=own, **options)
            plan = replace(plan, notes=(*plan.notes, *tiled))
            report(FileResult(given, made, "restored", plan))
        except TargetExistsError:  # made meanwhile
            report(FileResult(given, made, "skipped"))
        except (ImageError, RestoreError) as error:
            report(FileResult(given, made, "failed", reason=str(error)))
        except (OSError, MemoryError) as error:
            reason = f"{given}: {str(error) or type(error).__name__}"
            report(FileResult(given, made, "failed", reason=reason))
    return Counts(**counts, unread=tuple(unread))


def _targets(images: list[Path], output: Output) -> dict[Path, Path]:
    """The images and the files they become; an image whose file another becomes is missing."""
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    # An image that keeps its name comes first.
    for path in sorted(images, key=lambda path: (target_name(path, output) != path, path)):
        name = target_name(path, output)
        if name not in taken:
            taken.add(name)
            targets[path] = name
    return targets


def target_name(path: Path, output: Output) -> Path:
    """The name of an image's result: its own, with the extension of the format written."""
    suffix = path.suffix.lower()
    own = EXTENSIONS.get(suffix)
    if own is not None and output.format in (None, own):
        return path
    format = output.format or ("tiff" if suffix == ".pfm" else "png")
    extension = next(known for known, format_of_it in EXTENSIONS.items() if format_of_it == format)
    return path.with_suffix(extension) if suffix in READ_EXTENSIONS else Path(f"{path}{extension}")


def _images_outside(source: Path, target: Path) -> tuple[list[Path], list[Path]]:
    """Images and other files in source but not in target, relative to source."""
    images, others = sort_out(source)
    own, written = (Path(os.path.realpath(folder)) for folder in (source, target))
    if own == written:
        raise ImageError(f"{target}: is the folder that is read; name another one to write to")
    if os.path.lexists(target) and not target.is_dir():
        raise ImageError(f"{target}: is a file; the images of a folder need a folder")
    # A target above the source contains all of it: then nothing is left out.
    if not own.is_relative_to(written):
        # Only the folder of a file counts, not where a link leads.
        def outside(path: Path) -> bool:
            return not Path(os.path.realpath(path.parent)).is_relative_to(written)

        images, others = ([p for p in paths if outside(p)] for paths in (images, others))
    if not images:
        found = f"; {shown(others)}" if others else ""
        raise ImageError(f"{source}: holds no images ({' '.join(READ_EXTENSIONS)}){found}")
    return [p.relative_to(source) for p in images], [p.relative_to(source) for p in others]


def shown(paths: list[Path] | tuple[Path, ...], most: int = 5) -> str:
    """How many files there are, and the names of the first."""
    names = ", ".join(path.name for path in paths[:most])
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    files = "1 file is" if len(paths) == 1 else f"{len(paths)} files are"
    return f"{files} no image that is read: {names}{more}"


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
