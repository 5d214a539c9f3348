"""Read and write image files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from converse_jax.atomic import write_bytes
from converse_jax.imaging._decode import decode_image
from converse_jax.imaging._encode import encode_image
from converse_jax.imaging._image import EXTENSIONS, MAX_PIXELS, Image, ImageError


def read_image(
    source: str | os.PathLike[str] | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS
) -> Image:
    """Read a still image with its metadata.

    PNG, JPEG, TIFF, WebP and BMP, recognized by their contents; gray, RGB, palette and bilevel at
    8 bits or less, gray and RGB at 16 (in full, PNG and TIFF), each with or without alpha or a
    transparent color; CMYK (JPEG, TIFF) is converted to RGB without its profile. The image is
    turned upright as EXIF says. Of a JPEG with appended previews (MPO) the first image is read.

    Args:
        source: a path, the bytes of a file, or a file open for reading bytes.
        max_pixels: width times height above which the file is refused before decoding.

    Returns:
        The image, upright.

    Raises:
        ImageError: no such file, an empty, damaged or truncated one, one that is not an
            image, too many pixels, an animation or several pages, or an unsupported kind.
    """
    if isinstance(source, bytes):
        return decode_image(source, "<bytes>", max_pixels=max_pixels)
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return decode_image(_file_bytes(name), name, max_pixels=max_pixels)
    name, data = str(getattr(source, "name", "<file>")), source.read()
    if not isinstance(data, bytes):
        raise ImageError(f"{name}: gives {type(data).__name__}; open it for reading bytes")
    return decode_image(data, name, max_pixels=max_pixels)


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
) -> None:
    """Write an image file, completely or not at all.

    The bytes go to a temporary file in the same folder, which then takes the target's name in
    one step. Without `overwrite` that step fails if the file has been made meanwhile.

    Args:
        target: the path of the file; its folder must exist.
        image: what to write; see `encode_image` for what each format holds.
        overwrite: replace an existing file.
        format: "png", "jpeg", "tiff", "webp" or "bmp"; by default, what the extension says.

    Raises:
        ImageError: the file exists, its folder does not or cannot be written to, an unknown
            extension or format, or an image that the format cannot hold.
    """
    path = Path(target)
    if format is None:
        format = EXTENSIONS.get(path.suffix.lower())
        if format is None:
            raise ImageError(
                f"{path}: the extension {path.suffix!r} is not one of {' '.join(EXTENSIONS)}; "
                "use one of them or give format"
            )
    if os.path.isdir(path):
        raise ImageError(f"{path}: is a folder; give the name of a file in it")
    if not os.path.isdir(path.parent):
        raise ImageError(f"{path}: there is no folder {path.parent}; create it first")
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    try:
        data = encode_image(image, format)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    try:
        write_bytes(path, data, overwrite=overwrite)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be written ({error.strerror}); check the folder and its free space"
        ) from None


def _exists(path: Path) -> ImageError:
    return ImageError(f"{path}: exists already; give another name, or overwrite=True")


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files in a folder and its subfolders, sorted by path.

    They are recognized by extension, ignoring case; names that begin with a dot are left out, and
    links to folders are not followed.

    Raises:
        ImageError: there is no such folder.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise ImageError(f"{root}: there is no such folder; check the path")
    paths = []
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                paths.append(Path(parent, name))
    return sorted(paths)
