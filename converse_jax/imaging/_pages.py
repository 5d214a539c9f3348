"""The images of one file, and how they are to be read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

from converse_jax.imaging._image import MAX_PIXELS, Image, ImageError
from converse_jax.messages import one_line


@dataclass(frozen=True)
class Options:
    """How an image is read: see `read_image`."""

    max_pixels: int = MAX_PIXELS
    white_level: float | None = None
    tolerate_damage: bool = False

    def check_size(self, name: str, width: int, height: int) -> None:
        """Refuse a size before anything of that size is allocated."""
        if width < 1 or height < 1:
            raise ImageError(f"{name}: says it is {width}x{height} pixels; export it again")
        if width * height > self.max_pixels:
            raise ImageError(
                f"{name}: {width}x{height} pixels are more than the limit of {self.max_pixels}; "
                "cut it into parts"
            )


class Pages(Sequence[Image]):
    """The images of one file, each decoded whenever it is asked for.

    Attributes:
        name: of the file, for messages.
        notes: what was left out of the file; the images have notes of their own.
    """

    def __init__(
        self, name: str, decoders: Sequence[Callable[[], Image]], notes: Sequence[str] = ()
    ) -> None:
        """Make the sequence from a decoder for each image."""
        self.name, self.notes = name, tuple(notes)
        self._decoders = decoders

    def __len__(self) -> int:
        return len(self._decoders)

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> Pages: ...

    def __getitem__(self, index: int | slice) -> Image | Pages:
        if isinstance(index, slice):
            return Pages(self.name, self._decoders[index], self.notes)
        return self._decoders[index]()

    def only(self) -> Image:
        """The image of a file with one, with all notes.

        Raises:
            ImageError: there are several.
        """
        if len(self) != 1:
            raise several(self.name, len(self))
        image = self[0]
        return replace(image, notes=(*self.notes, *image.notes))


def several(name: str, count: int) -> ImageError:
    """The error for a file of several images where one is wanted."""
    return ImageError(
        f"{name}: holds {count} images (an animation or pages); export each as a file"
    )


@contextlib.contextmanager
def damage_as_image_error(name: str, kind: str) -> Iterator[None]:
    """Whatever decoders raise on damaged files as an `ImageError`, which names the file."""
    from PIL.Image import DecompressionBombError

    try:
        yield
    except ImportError:
        raise
    except ImageError as error:
        text = str(error)
        raise ImageError(text if text.startswith(f"{name}: ") else f"{name}: {text}") from None
    except DecompressionBombError:  # Pillow's WebP and tiled TIFF readers look at its own limit
        raise ImageError(
            f"{name}: has more pixels than Pillow's own limit; cut it into parts"
        ) from None
    except MemoryError:
        raise ImageError(
            f"{name}: decoding the {kind.upper()} file needs more memory than is available; cut it "
            "into parts"
        ) from None
    except Exception as error:  # damaged files make decoders raise almost anything
        raise ImageError(
            f"{name}: the {kind.upper()} file is damaged or cut short ({one_line(error)}); "
            "fetch or export it again"
        ) from None
