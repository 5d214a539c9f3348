"""Where clean images come from: folders, TFDS, and photographs that need no download."""

from __future__ import annotations

import collections
import importlib.util
import re
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

# Name endings that distinguish an input from its target, such as x4 in 0001x4.png.
_SIDE = re.compile(
    r"([_-]?x[2348]|[_-](lr[2348]?|hr|noisy|clean|blur|blurred|sharp|gt|input|target))$",
    re.IGNORECASE,
)

Decoded = np.ndarray | tuple[np.ndarray, np.ndarray]
"""A clean image, uint8 `[H, W, C]`; for a pair, it and its input `[H / scale, W / scale, C]`."""

# Photographs in the wheel of scikit-image: those for training, and those held out.
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
        """Its name in messages."""

    def key(self, index: int) -> str:
        """The key that it shares with its counterpart in another source."""

    def photograph(self, index: int) -> str:
        """The photograph that it is a tile of: a name that all of its tiles share."""


class ImageFiles:
    """Image files by path."""

    def __init__(self, paths: Sequence[Path], root: str | Path | None = None) -> None:
        """Take paths; `root` is a folder above all of them."""
        self._paths = list(paths)
        self._root = root

    def __len__(self) -> int:
        return len(self._paths)

    def open(self, index: int) -> BinaryIO:
        """Open a file; raises a TrainError if it cannot be read."""
        try:
            return open(self._paths[index], "rb")
        except OSError as error:
            raise TrainError(f"{self._paths[index]}: cannot be read ({error.strerror})") from None

    def name(self, index: int) -> str:
        """Its path."""
        return str(self._paths[index])

    def key(self, index: int) -> str:
        """Its path below the folder, without extension."""
        path = self._paths[index].with_suffix("")
        return path.name if self._root is None else path.relative_to(self._root).as_posix()

    def photograph(self, index: int) -> str:
        """Its path, without the ending that BasicSR's scripts give to tiles (0001_s012.png)."""
        return re.sub(r"_s\d{3,}(\.\w+)$", r"\1", str(self._paths[index].absolute()))


class _Reordered:
    """Some of a source's images, in another order."""

    def __init__(self, source: Encoded, indices: Sequence[int]) -> None:
        self._source, self._indices = source, list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def open(self, index: int) -> BinaryIO:
        return self._source.open(self._indices[index])

    def name(self, index: int) -> str:
        return self._source.name(self._indices[index])

    def key(self, index: int) -> str:
        return self._source.key(self._indices[index])

    def photograph(self, index: int) -> str:
        return self._source.photograph(self._indices[index])


def counterparts(inputs: Encoded, targets: Encoded, where: str) -> Encoded:
    """The inputs in the order of their targets.

    The images of a pair have the same path below their folders, apart from the extension and, if
    names differ, endings such as x4, _LR and _HR, _noisy and _clean. In TFDS they have the same
    index.

    Args:
        inputs: in any order.
        targets: as many as inputs.
        where: name of the two sources in messages.

    Raises:
        TrainError: images with no counterpart, or with several; the message names them.
    """
    exact = [[source.key(i) for i in range(len(source))] for source in (inputs, targets)]
    plain = [[_SIDE.sub("", key) for key in keys] for keys in exact]
    for of_inputs, of_targets in (exact, plain):
        if sorted(of_inputs) == sorted(set(of_targets)) and len(inputs) == len(targets):
            place = {key: i for i, key in enumerate(of_inputs)}
            return _Reordered(inputs, [place[key] for key in of_targets])
    names: dict[str, list[str]] = {"no counterpart": [], "several counterparts": []}
    for source, own, others in ((inputs, 0, 1), (targets, 1, 0)):
        count = collections.Counter(plain[others])
        for i, key in enumerate(plain[own]):
            if count[key] != 1:
                names["several counterparts" if count[key] else "no counterpart"].append(
                    source.name(i)
                )
    lacking = "; ".join(f"{what} of {_few(of)}" for what, of in names.items() if of)
    raise TrainError(
        f"{where}: {lacking}; give two folders in which an input and its target have the same "
        "path, apart from the extension and endings such as x4, _LR, _HR, _noisy, _clean"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def open_source(name: str, *, held_out: bool = False, tfds_dir: str | None = None) -> Encoded:
    """The images that a name in a configuration stands for.

    Args:
        name: "embedded" (photographs of scikit-image), "tfds:NAME@SPLIT" (see `TfdsImages`), or a
            folder, with the folders below it.
        held_out: for "embedded", the photographs that are not for training.
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
    return ImageFiles(paths, name)


def _embedded(names: Sequence[str]) -> list[Path]:
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise TrainError(
            f'"{EMBEDDED}" needs photographs of the package scikit-image: pip install -e ".[train]"'
        )
    # Read the files directly: the package's own loader might start a download.
    folder = Path(package.origin).parent / "data"
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise TrainError(
            f"scikit-image no longer carries {', '.join(missing)}; give a folder of images "
            "(--data.train), or install a version named in constraints.txt"
        )
    return [folder / name for name in names]


class Images:
    """Decoded images, uint8 `[H, W, channels]`, or pairs, kept in memory up to a limit.

    The first images stay: shuffled epochs visit all images equally often, so evicting the oldest
    would evict each just before it is needed.
    """

    def __init__(
        self,
        sources: Sequence[Encoded],
        channels: int,
        *,
        inputs: Sequence[Encoded] = (),
        scale: int = 1,
        cache_mb: float = 0,
    ) -> None:
        """Chain sources.

        Args:
            sources: of encoded images.
            channels: 1 (luma of color images) or 3.
            inputs: for pairs, the inputs of each source in the order of its targets.
            scale: for pairs, how many times as large as its input a target is.
            cache_mb: memory for decoded images, in megabytes.
        """
        self._sources, self._inputs, self._scale = list(sources), list(inputs), scale
        self._known_sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self._entries = [(k, i) for k, source in enumerate(sources) for i in range(len(source))]
        self._channels = channels
        self._room = int(cache_mb * 1e6)
        self._cache: dict[int, Decoded] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Images({len(self)}, channels={self._channels})"

    def name(self, index: int) -> str:
        """Name of an image in messages."""
        source, i = self._entry(index)
        return source.name(i)

    def photographs(self) -> list[list[int]]:
        """Indices of the images of each photograph; an image that is not a tile is its own."""
        groups: dict[str, list[int]] = {}
        for index in range(len(self)):
            source, i = self._entry(index)
            groups.setdefault(source.photograph(i), []).append(index)
        return list(groups.values())

    def of_source(self, number: int) -> list[int]:
        """Indices of the images of a source."""
        return [index for index, (k, _) in enumerate(self._entries) if k == number]

    def __getitem__(self, index: int) -> Decoded:
        """Decode an image or a pair, unless it is in memory.

        Raises:
            TrainError: a damaged file, or a pair whose sizes do not match; the message names it.
        """
        kept = self._cache.get(index)
        if kept is not None:
            return kept
        source, i = self._entry(index)
        image = self._decode(source, i)
        decoded: Decoded = image
        size = image.nbytes
        if self._inputs:
            given = self._decode(self._inputs[self._entries[index][0]], i)
            height, width = given.shape[:2]
            if (height, width) != tuple(n // self._scale for n in image.shape[:2]):
                raise TrainError(self._misfit(index, image.shape[:2], given.shape[:2]))
            image = image[: self._scale * height, : self._scale * width]
            decoded = image, given
            size += given.nbytes
        with self._lock:
            if index not in self._cache and size <= self._room:
                self._room -= size
                self._cache[index] = decoded
        return decoded

    def _decode(self, source: Encoded, i: int) -> np.ndarray:
        try:
            with source.open(i) as file:
                pixels = read_image(file).pixels
        except ImageError as error:
            raise TrainError(f"{error}, or take it out of the folder") from None
        return to_reference_uint8(pixels, self._channels)

    def sizes(self) -> list[tuple[int, int]]:
        """`(height, width)` of all images, from the files' headers, before EXIF rotation.

        Raises:
            TrainError: a file that is not an image, or a pair whose sizes do not match; the message
                names it.
        """
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self._size, range(len(self))))

    def _size(self, index: int) -> tuple[int, int]:
        known = self._known_sizes.get(self._entries[index])
        if known is not None:  # TFDS reads whole records for their headers: once is enough
            return known
        source, i = self._entry(index)
        size = _size_in_head(source, i)
        if self._inputs:
            given = _size_in_head(self._inputs[self._entries[index][0]], i)
            small = size[0] // self._scale, size[1] // self._scale
            if given not in (small, small[::-1]):  # EXIF may say that one is rotated
                raise TrainError(self._misfit(index, size, given))
        self._known_sizes[self._entries[index]] = size
        return size

    def _misfit(self, index: int, size: Sequence[int], given: Sequence[int]) -> str:
        number, i = self._entries[index]
        return (
            f"{self._inputs[number].name(i)}: got {given[1]}x{given[0]}, with a target "
            f"{self.name(index)} of {size[1]}x{size[0]}; expected pairs whose targets are "
            f"{self._scale} times as large, the scale of the task"
        )

    def select(self, indices: Sequence[int]) -> Images:
        """Some of the images, with a cache of their own of the same size."""
        chosen = Images(
            self._sources,
            self._channels,
            inputs=self._inputs,
            scale=self._scale,
            cache_mb=self._room / 1e6,
        )
        chosen._known_sizes = self._known_sizes
        chosen._entries = [self._entries[i] for i in indices]
        return chosen

    def _entry(self, index: int) -> tuple[Encoded, int]:
        number, i = self._entries[index]
        return self._sources[number], i

    def __getstate__(self) -> dict[str, object]:
        # For worker processes: each fills its own cache.
        return {**self.__dict__, "_cache": {}, "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def _size_in_head(source: Encoded, index: int) -> tuple[int, int]:
    from PIL import Image as PilImage
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its metadata
            with source.open(index) as file, PilImage.open(file) as image:
                return image.height, image.width
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise TrainError(
            f"{source.name(index)}: not an image that can be read ({type(error).__name__}); "
            "take it out"
        ) from None
