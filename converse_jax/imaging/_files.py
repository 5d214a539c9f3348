"""Read and write image files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from converse_jax.atomic import write_bytes
from converse_jax.imaging._decode import decode_pages
from converse_jax.imaging._encode import encode_pages
from converse_jax.imaging._formats import HEAD, sniff, why_not_read
from converse_jax.imaging._image import (
    EXTENSIONS,
    MAX_PIXELS,
    READ_EXTENSIONS,
    Image,
    ImageError,
)
from converse_jax.imaging._pages import Options, Pages
from converse_jax.messages import cannot_be_written, no_folder


class TargetExistsError(ImageError):
    """A file that would have to be replaced."""


def read_image(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    max_pixels: int = MAX_PIXELS,
    white_level: float | None = None,
    tolerate_damage: bool = False,
) -> Image:
    """Read a still image with its metadata.

    Recognized by their contents: PNG, JPEG, TIFF, WebP, BMP, GIF, AVIF, JPEG XL, JPEG 2000, PNM,
    PFM and TGA; gray, RGB, palette and bilevel at 8 bits or less, gray and RGB at 9 to 16 and as
    floats (in full), each with or without alpha or a transparent color; CMYK (JPEG, TIFF) is
    converted to RGB without its profile. The image is turned upright as EXIF says. Of a JPEG with
    appended previews (MPO) the first image is read.

    Values that fill 8, 10, 12 or 14 of 16 bits, and floats beyond 1, are divided by a white level:
    the one given, the file's own (SMaxSampleValue), or one guessed from the largest value. What was
    guessed or dropped is said in the image's `notes`.

    Args:
        source: a path, the bytes of a file, or a file open for reading bytes.
        max_pixels: width times height above which the file is refused before decoding.
        white_level: the value in the file that is white, at least the image's largest.
        tolerate_damage: read a JPEG that is cut short as far as it goes; the rest is gray.

    Returns:
        The image, upright.

    Raises:
        ImageError: no such file, an empty, damaged or truncated one, one that is not an
            image, too many pixels, an animation or several pages (`read_pages`), NaN or infinity,
            or an unsupported kind.
    """
    return read_pages(
        source,
        max_pixels=max_pixels,
        white_level=white_level,
        tolerate_damage=tolerate_damage,
    ).only()


def read_pages(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    max_pixels: int = MAX_PIXELS,
    white_level: float | None = None,
    tolerate_damage: bool = False,
) -> Pages:
    """The images of one file: the pages of a TIFF, the slices of a stack; or the one image.

    Reduced copies (thumbnails, levels of a pyramid) are left out, as `notes` of the result says.

    Args:
        source: as for `read_image`, as are the others.
        max_pixels: of each page.
        white_level: of every page.
        tolerate_damage: see `read_image`.

    Returns:
        A sequence of `Image` that decodes each one whenever it is asked for.

    Raises:
        ImageError: as `read_image`; what is wrong with a page, when it is asked for.
    """
    options = Options(max_pixels, white_level, tolerate_damage)
    if isinstance(source, bytes):
        return decode_pages(source, "<bytes>", options)
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return decode_pages(_file_bytes(name), name, options)
    name, data = str(getattr(source, "name", "<file>")), source.read()
    if not isinstance(data, bytes):
        raise ImageError(f"{name}: gives {type(data).__name__}; open it for reading bytes")
    return decode_pages(data, name, options)


def _file_bytes(name: str) -> bytes:
    # os.path, not pathlib: it returns False for an impossible name instead of raising.
    if os.path.isdir(name):
        raise ImageError(f"{name}: is a folder; list_images names the images in it")
    if not os.path.exists(name):
        raise ImageError(f"{name}: there is no such file; check the path")
    if not os.path.isfile(name):
        raise ImageError(f"{name}: is not a regular file; copy the image to one")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ImageError(
            f"{name}: cannot be read ({error.strerror}); check its permissions"
        ) from None


def write_image(
    target: str | os.PathLike[str],
    image: Image,
    *,
    overwrite: bool = False,
    format: str | None = None,
    quality: int | None = None,
) -> None:
    """Write an image file, completely or not at all.

    The bytes go to a temporary file in the same folder, which then takes the target's name in
    one step. Without `overwrite` that step fails if the file has been made meanwhile.

    Args:
        target: the path of the file; its folder must exist.
        image: what to write; see `encode_image` for what each format holds.
        overwrite: replace an existing file.
        format: "png", "jpeg", "tiff", "webp" or "bmp"; by default, what the extension says.
        quality: see `encode_image`.

    Raises:
        ImageError: the file exists, its folder does not or cannot be written to, an unknown
            extension or format, or an image that the format cannot hold.
    """
    write_pages(target, [image], overwrite=overwrite, format=format, quality=quality)


def write_pages(
    target: str | os.PathLike[str],
    images: Iterable[Image],
    *,
    overwrite: bool = False,
    format: str | None = None,
    quality: int | None = None,
) -> None:
    """Write images as the pages of one TIFF file; otherwise as `write_image`.

    They are taken one after the other, and each is kept in its encoded form only.

    Raises:
        ImageError: as `write_image`.
    """
    path = Path(target)
    if format is None:
        format = format_of(path)
    check_target(path, overwrite=overwrite)
    if not os.path.isdir(path.parent):
        raise ImageError(no_folder(path))
    try:
        data = encode_pages(images, format, quality=quality)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    write_encoded(path, data, overwrite=overwrite)


def write_encoded(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write the bytes of an image file, completely or not at all; errors as `write_image`."""
    try:
        write_bytes(path, data, overwrite=overwrite)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise ImageError(cannot_be_written(path, error)) from None


def format_of(path: Path) -> str:
    """The format that the extension of a file to be written says."""
    format = EXTENSIONS.get(path.suffix.lower())
    if format is None:
        raise ImageError(
            f"{path}: the extension {path.suffix!r} is not one of {' '.join(EXTENSIONS)}; "
            "use one of them"
        )
    return format


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise what writing to a path will raise, before there is anything to write.

    Raises:
        ImageError: a folder, an existing file unless overwritten, or a place where no file or
            folder can be made.
    """
    if os.path.isdir(path):
        raise ImageError(f"{path}: is a folder; give the name of a file in it")
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    # Missing folders are made in the first that is there.
    folder = path.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not os.path.isdir(folder):
        raise ImageError(f"{path}: cannot be written, as {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"{path}: cannot be written, as {folder} may not be written to")


def _exists(path: Path) -> TargetExistsError:
    return TargetExistsError(f"{path}: exists already; give another name, or overwrite=True")


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files in a folder and its subfolders, sorted by path.

    They are recognized by extension, ignoring case; names that begin with a dot are left out, and
    links to folders are not followed.

    Raises:
        ImageError: there is no such folder, or one in it cannot be read.
    """
    return [path for path in _files(Path(folder)) if path.suffix.lower() in READ_EXTENSIONS]


def sort_out(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """The files in a folder and its subfolders that are taken for images, and the others.

    An image is a regular file, or a link to one, whose name or contents say so, unless it is of a
    kind that is not read. Otherwise as `list_images`.

    Raises:
        ImageError: there is no such folder, or one in it cannot be read.
    """
    images: list[Path] = []
    others: list[Path] = []
    for path in _files(Path(folder)):
        (images if _is_image(path) else others).append(path)
    return images, others


def _files(root: Path) -> list[Path]:
    if not os.path.isdir(root):
        raise ImageError(f"{root}: there is no such folder; check the path")

    def refuse(error: OSError) -> None:  # or its images would be left out silently
        raise ImageError(f"{error.filename}: cannot be read ({error.strerror}); check the folder")

    paths = []
    for parent, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(paths)


def _is_image(path: Path) -> bool:
    named = path.suffix.lower() in READ_EXTENSIONS
    # Opening a named pipe would wait for ever.
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return named  # reading it will say why it cannot be
    if why_not_read(head, path.name) is not None:
        return False
    return named or sniff(head, path.name) is not None
