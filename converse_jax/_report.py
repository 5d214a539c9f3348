"""What measurements share: images matched by name, rows of figures, and the JSON file of them."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from converse_jax._version import __version__
from converse_jax.atomic import write_bytes
from converse_jax.imaging import ImageError, Score, list_images
from converse_jax.messages import exists_already, no_folder
from converse_jax.restore import RestoreError

METRICS = ("psnr", "ssim", "psnr_y", "ssim_y")


class Row(Score):
    """The figures of one image."""

    name: str


class Failure(TypedDict):
    """An image that could not be measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Pair:
    """Two images of one name, relative to their folders; or one of them, and a reason."""

    name: str
    a: Path
    b: Path
    reason: str | None = None


def matched_images(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, scale: int = 1
) -> list[Pair]:
    """The images of two folders, subfolders included, that have one name; or two images.

    The extensions may differ, and names in `b` may end in x2, _x2 and so on where `scale` is 2.
    An image without a counterpart is a pair with a reason.

    Raises:
        ImageError: a folder and a file, a path that is not there, or no counterpart at all.
    """
    roots = Path(a), Path(b)
    for root in roots:
        if not os.path.exists(root):
            raise ImageError(f"{root}: there is no such file or folder; check the path")
    folder, other = (os.path.isdir(root) for root in roots)
    if folder != other:
        one, two = roots if folder else roots[::-1]
        raise ImageError(f"{two}: is a file, but {one} is a folder; give two images or two folders")
    if not folder:
        return [Pair(roots[0].name, *roots)]
    images = [[path.relative_to(root) for path in list_images(root)] for root in roots]
    by_stem: dict[Path, list[Path]] = {}
    for path in images[1]:
        by_stem.setdefault(path.with_suffix(""), []).append(path)
    pairs, used = [], set()
    for path in images[0]:
        stem = path.with_suffix("")
        stems = [stem, *(stem.with_name(f"{stem.name}{x}{scale}") for x in ("x", "_x"))]
        found = [y for s in stems[: 1 if scale == 1 else 3] for y in by_stem.get(s, [])]
        found = [path] if path in found else found
        used |= set(found)
        reason = None
        if len(found) != 1:
            many = ", ".join(map(str, found))
            reason = f"{roots[0] / path}: {f'{roots[1]} holds {many}' if found else 'no image'}"
            reason += " of this name" if found else f" of this name in {roots[1]}"
        match = roots[1] / (found[0] if found else path)
        pairs.append(Pair(path.as_posix(), roots[0] / path, match, reason))
    if all(pair.reason is not None for pair in pairs):
        raise ImageError(f"{roots[0]}: no image has one of the same name in {roots[1]}")
    for path in images[1]:
        if path not in used:
            reason = f"{roots[1] / path}: no image of this name in {roots[0]}"
            pairs.append(Pair(path.as_posix(), roots[0] / path, roots[1] / path, reason))
    return pairs


def measure_pairs(
    pairs: Sequence[Pair],
    measure: Callable[[Pair], Row],
    on_result: Callable[[Row | Failure, int, int], None] | None = None,
    *,
    error: type[ValueError],
) -> tuple[list[Row], list[Failure]]:
    """The figures of all pairs that can be measured, and why the others cannot.

    Args:
        pairs: without a reason, or with the one for which they are not measured.
        measure: the figures of a pair.
        on_result: called after each pair with its figures or why there are none, its number from 1,
            and the total.
        error: raised for a pair that is the only one, unless that is an `ImageError`.

    Raises:
        ImageError, error: the only pair cannot be measured.
    """
    rows: list[Row] = []
    failed: list[Failure] = []
    for number, pair in enumerate(pairs, 1):
        result: Row | Failure
        try:
            if pair.reason is not None:
                raise ImageError(pair.reason)
            result = measure(pair)
            rows.append(result)
        # An image too small, of another size, damaged, or larger than the memory.
        except (ValueError, OSError, MemoryError) as problem:
            text, known = str(problem) or type(problem).__name__, isinstance(problem, ImageError)
            reason = text if known else f"{pair.a}: {text}"
            if len(pairs) == 1:
                raise (ImageError if known else error)(reason) from None
            result = Failure(name=pair.name, reason=reason)
            failed.append(result)
        if on_result is not None:
            on_result(result, number, len(pairs))
    return rows, failed


def mean_of(rows: Sequence[Row]) -> Score:
    """The mean of each figure; at least one row."""

    def mean(metric: str) -> float:
        return float(np.mean([row[metric] for row in rows]))  # type: ignore[literal-required]

    return Score(psnr=mean("psnr"), ssim=mean("ssim"), psnr_y=mean("psnr_y"), ssim_y=mean("ssim_y"))


def versions() -> dict[str, str]:
    """The versions that figures depend on."""
    installed = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    return {"converse-jax": __version__, **installed, "numpy": np.__version__}


def write_report(
    path: str | os.PathLike[str], report: Mapping[str, Any], *, overwrite: bool = False
) -> None:
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
        raise RestoreError(no_folder(path))
    if os.path.lexists(path) and not overwrite:
        raise RestoreError(exists_already(path))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
