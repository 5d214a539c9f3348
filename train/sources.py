"""Where clean images come from: folders, TFDS, and photographs that need no download."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from converse_jax.imaging import ImageError, list_images, read_image, to_reference_uint8
from train.errors import TrainError
from train.tfds_source import TfdsImages

EMBEDDED = "embedded"
TFDS = "tfds:"

# Photographs in the wheel of scikit-image; those to learn from, and those held out.
_TRAIN = (
    "brick.png",
    "cell.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
_HELD_OUT = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png")


class Encoded(Protocol):
    """Random access to encoded image files."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> BinaryIO:
        """An image file, open for reading."""

    def name(self, index: int) -> str:
        """What to call it in a message."""


class ImageFiles:
    """Image files by path."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Take paths."""
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def open(self, index: int) -> BinaryIO:
        """Open a file."""
        try:
            return open(self._paths[index], "rb")
        except OSError as error:
            raise TrainError(f"{self._paths[index]}: cannot be read ({error.strerror})") from None

    def name(self, index: int) -> str:
        """Its path."""
        return str(self._paths[index])


def open_source(name: str, *, held_out: bool = False, tfds_dir: str | None = None) -> Encoded:
    """The images that a name in a configuration stands for.

    Args:
      name: "embedded" (photographs of scikit-image), "tfds:NAME@SPLIT" (see `TfdsImages`), or a
        folder, with the folders below it.
      held_out: of "embedded", the photographs that are not trained on.
      tfds_dir: where TFDS data sets are prepared; None is TFDS's own default.

    Raises:
      TrainError: there is no such source, or no image in it.
    """
    if name == EMBEDDED:
        return ImageFiles(_embedded(_HELD_OUT if held_out else _TRAIN))
    if name.startswith(TFDS):
        return TfdsImages(name.removeprefix(TFDS), tfds_dir)
    try:
        paths = list_images(name)
    except ImageError:
        raise TrainError(
            f'{name}: there is no such folder; give a folder of images, "{EMBEDDED}" or '
            f'"{TFDS}NAME@SPLIT"'
        ) from None
    if not paths:
        raise TrainError(f"{name}: holds no images; give a folder with PNG, JPEG or TIFF files")
    return ImageFiles(paths)


def _embedded(names: Sequence[str]) -> list[Path]:
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise TrainError(
            f'"{EMBEDDED}" is photographs in the package scikit-image: pip install -e ".[train]"'
        )
    # Files are read, nothing of the package is run: its own loader might start a download.
    folder = Path(package.origin).parent / "data"
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise TrainError(
            f"scikit-image no longer carries {', '.join(missing)}; give a folder of images "
            "(--data.train), or install a version named in constraints.txt"
        )
    return [folder / name for name in names]


class Images:
    """Decoded images, uint8 ``[H, W, channels]``, kept in memory up to a limit.

    What is kept first stays: shuffled epochs visit all images equally often, and a cache that
    forgets the oldest would forget each just before it is wanted.
    """

    def __init__(self, sources: Sequence[Encoded], channels: int, *, cache_mb: float = 0) -> None:
        """Chain sources.

        Args:
          sources: of encoded images.
          channels: 1 (luma of color images) or 3.
          cache_mb: memory for decoded images, in megabytes.
        """
        self._entries = [(source, i) for source in sources for i in range(len(source))]
        self._channels = channels
        self._room = int(cache_mb * 1e6)
        self._cache: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Images({len(self)}, channels={self._channels})"

    def name(self, index: int) -> str:
        """What to call an image in a message."""
        source, i = self._entries[index]
        return source.name(i)

    def __getitem__(self, index: int) -> np.ndarray:
        """Decode an image, or find it in memory.

        Raises:
          TrainError: a damaged file; it is named.
        """
        kept = self._cache.get(index)
        if kept is not None:
            return kept
        source, i = self._entries[index]
        try:
            with source.open(i) as file:
                pixels = read_image(file).pixels
        except ImageError as error:
            raise TrainError(f"{error}, or take it out of the folder") from None
        image = to_reference_uint8(pixels, self._channels)
        with self._lock:
            if index not in self._cache and image.nbytes <= self._room:
                self._room -= image.nbytes
                self._cache[index] = image
        return image

    def sizes(self) -> list[tuple[int, int]]:
        """``(height, width)`` of all, up to a turn, from the heads of the files.

        Raises:
          TrainError: a file that is no image; it is named.
        """
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self._size, range(len(self))))

    def _size(self, index: int) -> tuple[int, int]:
        from PIL import Image as PilImage
        from PIL import UnidentifiedImageError

        source, i = self._entries[index]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is in its metadata
                with source.open(i) as file, PilImage.open(file) as image:
                    return image.height, image.width
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise TrainError(
                f"{source.name(i)}: not an image that can be read ({type(error).__name__}); "
                "take it out"
            ) from None

    def select(self, indices: Sequence[int]) -> Images:
        """Some of the images, with a memory of their own of the same size."""
        chosen = Images([], self._channels, cache_mb=self._room / 1e6)
        chosen._entries = [self._entries[i] for i in indices]
        return chosen

    def __getstate__(self) -> dict[str, object]:
        # For worker processes: each fills its own cache.
        return {**self.__dict__, "_cache": {}, "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
