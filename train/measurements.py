"""Figures of weights on test sets, kept by content: what was measured once costs nothing again.

A figure belongs to the hash of the weights, the hash of the image, and the protocol. They lie in
`FOLDER/WEIGHTS/SET.json`, which is rewritten after each image, so that nothing is lost when the
process is killed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converse_jax import WeightsError, load
from converse_jax.evaluate import evaluate
from converse_jax.imaging import ImageError, KernelError, list_images, read_kernel
from converse_jax.messages import one_line
from converse_jax.progress import progress_bar
from converse_jax.restore import RestoreError, Restorer
from train.errors import TrainError
from train.json_file import write_object


@dataclass(frozen=True)
class TestSet:
    """Images to measure on.

    Attributes:
        name: as in the tables, e.g. "BSD68".
        images: their files.
        kernel: the blur, for deblurring.
    """

    name: str
    images: tuple[Path, ...]
    kernel: np.ndarray | None = None


@dataclass(frozen=True)
class Figures:
    """Means over the images of a set, on luma for super-resolution.

    Attributes:
        psnr: in dB.
        ssim: SSIM.
        images: "psnr", "ssim" and "sha256" of each image by name.
        of: how many images the set has.
        protocol: "kernel", the blur, or None.
    """

    psnr: float
    ssim: float
    images: dict[str, dict[str, Any]]
    of: int
    protocol: dict[str, Any]


def parse_test_set(text: str) -> tuple[str, tuple[Path, ...]]:
    """Name and images of "NAME=FOLDER", or "NAME=FOLDER:N" for the N first by name.

    Raises:
        TrainError: another form, no such folder, no images in it, or fewer than N.
    """
    name, equals, place = text.partition("=")
    folder, colon, count = place.rpartition(":")
    if not (colon and count.isdigit()):
        folder, count = place, ""
    if not (name and equals and folder):
        raise TrainError(f"--test: got {text!r}; expected NAME=FOLDER, e.g. Set12=testsets/Set12")
    try:
        images = sorted(list_images(Path(folder)), key=lambda path: path.name)
    except ImageError as error:
        raise TrainError(f"--test: {error}") from None
    if len(images) < max(1, int(count or 1)):
        raise TrainError(
            f"--test: {folder}: holds {len(images)} images; expected at least {count or 1}"
        )
    return name, tuple(images[: int(count)] if count else images)


def read_kernels(paths: list[str]) -> list[np.ndarray]:
    """Blur kernels; raises a TrainError that names the one that cannot be read."""
    try:
        return [read_kernel(path)[0] for path in paths]
    except KernelError as error:
        raise TrainError(f"--kernels: {error}") from None


def sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Measurements:
    """Figures by weights and set in a folder."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which need not exist."""
        self._folder = folder
        self._restorer: tuple[Path, Restorer] | None = None

    def of(self, weights: str) -> dict[str, Figures]:
        """All figures of weights, given their hash, by set."""
        found = {}
        for path in sorted((self._folder / weights).glob("*.json")):
            kept = _read(path)
            if kept["images"]:
                found[kept["set"]] = _figures(kept)
        return found

    def take(self, weights: str, sets: dict[str, dict[str, Any]]) -> None:
        """Take over figures from results.json, where there are none of these weights and set."""
        if not re.fullmatch("[0-9a-f]{64}", weights):
            raise ValueError(f"sha256: got {weights!r}; expected 64 digits")
        for name, figures in sets.items():
            path = self._path(weights, name)
            if not path.exists():
                kept = {key: figures[key] for key in ("of", "protocol", "images")}
                write_object(path, {"set": name, **kept})

    def _path(self, weights: str, name: str) -> Path:
        return self._folder / weights / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}.json"

    def measure(
        self,
        weights: Path,
        test_set: TestSet,
        *,
        limit: int | None = None,
        say: Callable[[str], None],
    ) -> Figures:
        """Measure what is not known yet.

        Args:
            weights: a file that `converse_jax.load` reads.
            test_set: the images.
            limit: measure so many images of the set at most.
            say: called with a line when something was measured.

        Raises:
            TrainError: weights or an image cannot be read, or do not belong together.
        """
        digest = sha256(weights)
        path = self._path(digest, test_set.name)
        kernel = test_set.kernel
        protocol = {"kernel": None if kernel is None else kernel.tolist()}
        known = self._known(path.parent, protocol)
        kept: dict[str, Any] = {
            "set": test_set.name,
            "of": len(test_set.images),
            "protocol": protocol,
            "images": {},
        }
        images, new = test_set.images[:limit], 0
        try:
            with progress_bar(f"{weights.stem}, {test_set.name}") as progress:
                for done, image in enumerate(images):
                    progress(done, len(images))
                    key = sha256(image)
                    if key not in known:
                        known[key], new = self._measured(weights, image, kernel), new + 1
                    kept["images"][image.name] = {"sha256": key, **known[key]}
                    if new:
                        write_object(path, kept)
        except (RestoreError, ImageError, WeightsError) as error:
            raise TrainError(str(error)) from None
        earlier = _read(path)["images"] if path.exists() else {}
        # Those beyond the limit were measured before, and stay.
        kept["images"] = kept["images"] | {
            image.name: earlier[image.name]
            for image in test_set.images[len(images) :]
            if image.name in earlier
        }
        write_object(path, kept)
        figures = _figures(kept)
        if new:
            say(f"{weights.stem}, {test_set.name}: {figures.psnr:.2f} dB ({new} images measured)")
        return figures

    def _known(self, folder: Path, protocol: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Figures of these weights by this protocol, by the hash of the image, whatever the set."""
        kept = [_read(path) for path in folder.glob("*.json")]
        return {
            image["sha256"]: {"psnr": image["psnr"], "ssim": image["ssim"]}
            for one in kept
            if one["protocol"] == protocol
            for image in one["images"].values()
        }

    def _measured(self, weights: Path, image: Path, kernel: np.ndarray | None) -> dict[str, Any]:
        if self._restorer is None or self._restorer[0] != weights:
            self._restorer = (weights, Restorer(*load(weights)))
        restorer = self._restorer[1]
        mean = evaluate(restorer, image, kernel=kernel)["mean"]
        luma = "_y" if restorer.card.task == "sr" else ""
        return {name: mean[f"{name}{luma}"] for name in ("psnr", "ssim")}  # type: ignore[literal-required]


def _figures(kept: dict[str, Any]) -> Figures:
    images = kept["images"]
    mean = {
        name: math.fsum(image[name] for image in images.values()) / len(images)
        for name in ("psnr", "ssim")
    }
    return Figures(mean["psnr"], mean["ssim"], images, kept["of"], kept["protocol"])


def _read(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not {"set", "of", "protocol"} <= kept.keys():
            raise ValueError("it holds no measurement")
        for image in kept["images"].values():
            if not (
                math.isfinite(image["psnr"] + image["ssim"]) and isinstance(image["sha256"], str)
            ):
                raise ValueError("it holds figures that are none")
    except (OSError, ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise TrainError(
            f"{path}: cannot be read ({one_line(error, 200)}); delete it to measure again"
        ) from None
    return kept
