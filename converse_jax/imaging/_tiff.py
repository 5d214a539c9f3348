"""Decode TIFF: pages, stacks, reduced copies; the plain kinds of pixels by imagecodecs.

Pillow keeps the upper 8 bits of 16-bit RGB and drops an unnamed alpha, so it decodes only what has
8 bits and needs conversion: bilevel, palette, CMYK and YCbCr.
"""

from __future__ import annotations

import functools
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from converse_jax.imaging._exif import ORIENTATION, descriptive_tags
from converse_jax.imaging._formats import RAW
from converse_jax.imaging._image import Image, ImageError
from converse_jax.imaging._pages import Options, Pages, damage_as_image_error
from converse_jax.imaging._pixels import assembled, from_pillow, resolution, unit

# TIFF tags (TIFF 6.0, sections 3 to 8 and 18; SampleFormat and the sample values: section 19; the
# sub-directories: TIFF technical note 1; XMP: its specification, part 3)
_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_PHOTOMETRIC, _DESCRIPTION, _OFFSETS, _SAMPLES, _MAXIMUM = 262, 270, 273, 277, 281
_X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _UNIT = 282, 283, 284, 296
_SUBDIRECTORIES, _EXTRA, _FORMAT, _SAMPLE_MAXIMUM = 330, 338, 339, 341
_XMP, _IPTC, _ICC, _DNG = 700, 33723, 34675, 50706
# Photometric interpretation -> color channels: white is zero, black is zero, RGB; then, for
# Pillow, palette, CMYK, YCbCr and Lab (which is told apart from damage there).
_PLAIN_COLORS = {0: 1, 1: 1, 2: 3}
_OTHER_COLORS = {3: 1, 5: 4, 6: 3, 8: 3}
_RAW_COLORS = (32803, 34892)  # a color filter array; linear raw
_ASSOCIATED = 1  # the extra sample is an alpha that the colors are multiplied with
_REDUCED, _MASK = 1, 4  # bits of the kind of a page
_UNREAD_COMPRESSIONS = {
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((22610, 34934), "JPEG XR"),
    **dict.fromkeys((50002, 52546), "JPEG XL"),
    34892: "lossy DNG",
    65000: "a camera maker's own",
}
_KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 4: "of no stated kind"}
_READ_BITS = {1: (8, 10, 12, 14, 16), 3: (16, 32, 64)}
_MAX_PAGES = 65536

Tags = Any  # Pillow's directory


def tiff_pages(data: bytes, name: str, options: Options) -> Pages:
    """The pages of a TIFF file, or the slices of the stack behind its one directory.

    Raises:
        ImageError: a raw file, a damaged one, or a stack in a layout that is not read.
    """
    with damage_as_image_error(name, "tiff"):
        directories = list(read_directories(data))
        raw = [*directories, *(sub for tags in directories for sub in _subdirectories(data, tags))]
        if any(_DNG in tags or tags.get(_PHOTOMETRIC) in _RAW_COLORS for tags in raw):
            raise ImageError(f"{name}: {RAW}")
        kinds = [_kind(tags) for tags in directories]
        full = [n for n, kind in enumerate(kinds) if not kind & (_REDUCED | _MASK)]
        if not full:
            if _SUBDIRECTORIES in directories[0]:
                raise ImageError(
                    f"{name}: begins with a thumbnail, and the image lies in a sub-directory, "
                    "which is not read; export a plain TIFF or PNG from it"
                )
            full = [0]
        others = [kind for n, kind in enumerate(kinds) if n not in full]
        masks = sum(bool(kind & _MASK) for kind in others)
        below = sum(len(_offsets(directories[n], _SUBDIRECTORIES)) for n in full)
        notes = [
            f"{count} {what} in it are left out"
            for count, what in (
                (
                    len(others) - masks + below,
                    "reduced or further images (thumbnails, levels of a pyramid)",
                ),
                (masks, "transparency masks"),
            )
            if count
        ]
        page = functools.partial(_page, data, name, options)
        decoders: list[Callable[[], Image]] = [
            functools.partial(page, directories[n], n) for n in full
        ]
        frames = _stack(directories[full[0]]) if len(full) == 1 else 1
        if frames > 1:
            tags = directories[full[0]]
            start = _stack_start(data, tags, frames, name)
            decoders = [
                functools.partial(page, tags, full[0], start, frame) for frame in range(frames)
            ]
        description = directories[full[0]].get(_DESCRIPTION)
        if isinstance(description, str) and "<OME" in description[:1000]:
            notes.append("its OME-XML is dropped")
        return Pages(name, decoders, notes)


def read_directories(data: bytes) -> Iterator[Tags]:
    """The directories of the file's chain."""
    tags = _directory(data, None)
    seen: set[int] = set()
    yield tags
    while tags.next:
        if tags.next in seen or len(seen) >= _MAX_PAGES:
            raise ValueError("its directories form a loop")
        seen.add(tags.next)
        tags = _directory(data, tags.next)
        yield tags


def _directory(data: bytes, offset: int | None) -> Tags:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file = io.BytesIO(data)
    # BigTIFF (version 43 instead of 42) has a longer header.
    tags = ImageFileDirectory_v2(data[: 16 if b"+" in data[2:4] else 8])
    file.seek(tags.next if offset is None else offset)
    tags.next = -1  # stays so where the directory cannot be read to its end
    tags.load(file)
    if tags.next == -1:
        raise ValueError("its directory is missing")
    return tags


def _offsets(tags: Tags, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, ())
    values = value if isinstance(value, tuple) else (value,)
    return tuple(v for v in values if isinstance(v, int) and v > 0)


def _subdirectories(data: bytes, tags: Tags) -> Iterator[Tags]:
    for offset in _offsets(tags, _SUBDIRECTORIES)[:16]:
        try:
            yield _directory(data, offset)
        except Exception:  # only looked at, never read
            continue


def _kind(tags: Tags) -> int:
    new, old = tags.get(_SUBFILE, 0), tags.get(_OLD_SUBFILE)
    return new if isinstance(new, int) and new else _REDUCED if old == 2 else 0


def _stack(tags: Tags) -> int:
    """How many images lie behind one directory, as ImageJ and tifffile write stacks."""
    text = tags.get(_DESCRIPTION)
    if not isinstance(text, str):
        return 1
    if text.startswith("ImageJ="):
        images = re.search(r"^images=(\d{1,9})", text, re.MULTILINE)
        return int(images[1]) if images else 1
    if text.startswith('{"shape"'):
        try:
            total = math.prod(int(n) for n in json.loads(text)["shape"])
            return total // (tags[_WIDTH] * tags[_HEIGHT] * tags.get(_SAMPLES, 1))
        except (ValueError, TypeError, KeyError, ZeroDivisionError):
            return 1
    return 1


def _stack_start(data: bytes, tags: Tags, frames: int, name: str) -> int:
    offsets, bits = _offsets(tags, _OFFSETS), tags.get(_BITS, (1,))
    size = tags[_WIDTH] * tags[_HEIGHT] * tags.get(_SAMPLES, 1) * bits[0] // 8
    plain = tags.get(_COMPRESSION, 1) == 1 and bits[0] in (8, 16, 32) and offsets
    plain = plain and tags.get(_PHOTOMETRIC) in _PLAIN_COLORS
    planar = tags.get(_SAMPLES, 1) > 1 and tags.get(_PLANAR, 1) == 2
    if not plain or planar or offsets[0] + frames * size > len(data):
        raise ImageError(
            f"{name}: says that it holds {frames} images behind one directory, in a layout that "
            "is not read; export them as pages"
        )
    return offsets[0]


def _page(
    data: bytes,
    name: str,
    options: Options,
    tags: Tags,
    index: int,
    stack: int | None = None,
    frame: int = 0,
) -> Image:
    """One page; in a stack that begins at byte `stack`, one frame."""
    with damage_as_image_error(name, "tiff"):
        width, height = tags.get(_WIDTH), tags.get(_HEIGHT)
        if not isinstance(width, int) or not isinstance(height, int):
            raise ValueError("its directory is missing")
        options.check_size(name, width, height)
        compression = tags.get(_COMPRESSION, 1)
        if compression in _UNREAD_COMPRESSIONS:
            raise ImageError(
                f"{name}: a TIFF compressed by {_UNREAD_COMPRESSIONS[compression]}, which is not "
                "read; export it uncompressed, or with LZW or deflate"
            )
        bits = tuple(tags.get(_BITS, (1,)))
        photometric, samples = tags.get(_PHOTOMETRIC, -1), tags.get(_SAMPLES, 1)
        kinds = set(tags.get(_FORMAT, (1,)))
        kind = kinds.pop() if len(kinds) == 1 else 4
        plain = photometric in _PLAIN_COLORS and min(bits) >= 8
        extra = samples - (_PLAIN_COLORS | _OTHER_COLORS).get(photometric, samples)
        if extra not in ((0, 1) if plain else (0,)):
            raise ImageError(
                f"{name}: has {samples} channels, of which not all can be kept; "
                "export it as gray or RGB, with alpha or without"
            )
        if plain and (len(set(bits)) > 1 or bits[0] not in _READ_BITS.get(kind, ())):
            raise ImageError(
                f"{name}: its samples are {'/'.join(map(str, sorted(set(bits))))}-bit "
                f"{_KINDS.get(kind, _KINDS[4])}, which are not read; "
                "convert them to 8 or 16-bit unsigned integers or to floats"
            )
        if plain:
            shape = (height, width, samples)
            if stack is None:
                planar = samples > 1 and tags.get(_PLANAR, 1) == 2
                decoded = _samples(data, index, shape, planar)
            else:
                decoded = _frame(data, shape, bits[0], kind, stack, frame)
            parts = _unit(decoded, bits[0], photometric, tags, options)
            orientation = tags.get(ORIENTATION, 1)
        else:
            if max(bits) > 8 or samples > 4:
                raise ImageError(
                    f"{name}: a TIFF of {samples} times {max(bits)} bits and photometric "
                    f"{photometric} is not read; "
                    "convert it to 8 or 16-bit gray or RGB, or to 8-bit CMYK"
                )
            parts, orientation = _by_pillow(data, index)
        factor = {2: 1.0, 3: 2.54}.get(tags.get(_UNIT, 2))
        return assembled(
            parts,
            orientation,
            icc_profile=tags.get(_ICC),
            exif=_tiff_exif(data, tags),
            xmp=_bytes(tags.get(_XMP)),
            iptc=_bytes(tags.get(_IPTC)),
            resolution=resolution(
                tags.get(_X_RESOLUTION),
                tags.get(_Y_RESOLUTION),
                "none" if factor is None else "inch",
                factor or 1.0,
            ),
        )


def _unit(
    decoded: np.ndarray, bits: int, photometric: int, tags: Tags, options: Options
) -> dict[str, Any]:
    tagged = tags.get(_SAMPLE_MAXIMUM, tags.get(_MAXIMUM))
    tagged = max(tagged) if isinstance(tagged, tuple) and tagged else tagged
    tagged = float(tagged) if isinstance(tagged, (int, float)) and tagged > 0 else None
    parts = unit(decoded, bits, given=options.white_level, tagged=tagged)
    if photometric == 0:
        parts["pixels"] = 1.0 - parts["pixels"]
    alpha = parts["alpha"]
    if alpha is not None and tags.get(_EXTRA, (0,))[0] == _ASSOCIATED:
        # Where alpha is 0 the color is unknown; it stays the black that premultiplying left.
        colors = parts["pixels"] / np.where(alpha > 0, alpha, np.float32(1))[..., None]
        parts["pixels"] = colors if parts["bits"] == 32 else np.minimum(colors, 1)
    return parts


def _by_pillow(data: bytes, index: int) -> tuple[dict[str, Any], Any]:
    from PIL import TiffImagePlugin

    with TiffImagePlugin.TiffImageFile(io.BytesIO(data)) as image:
        image.seek(index)
        image.load()
        # Pillow turns a TIFF while loading it; the loaded image says what is left to do.
        return unit(from_pillow(image), 8), image.getexif().get(ORIENTATION, 1)


def _samples(data: bytes, index: int, shape: tuple[int, int, int], planar: bool) -> np.ndarray:
    """The decoded page, channels last whichever way its planes are stored."""
    import imagecodecs

    array = imagecodecs.tiff_decode(data, index=index)
    if planar:
        array = np.moveaxis(array, 0, -1)
    array = array.reshape(*array.shape[:2], -1)
    if array.shape != shape:
        raise ValueError(f"it decodes to shape {array.shape} instead of {shape}")
    return array


def _frame(
    data: bytes, shape: tuple[int, int, int], bits: int, kind: int, start: int, frame: int
) -> np.ndarray:
    dtype = np.dtype(f"{'<' if data[:2] == b'II' else '>'}{'f' if kind == 3 else 'u'}{bits // 8}")
    count = math.prod(shape)
    offset = start + frame * count * dtype.itemsize
    return np.frombuffer(data, dtype, count, offset).reshape(shape)


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def _tiff_exif(data: bytes, tags: Tags) -> bytes | None:
    """The descriptive part of a TIFF's directory as an EXIF block of its own."""
    from PIL import Image as PilImage

    source, block = PilImage.Exif(), PilImage.Exif()
    try:
        source.endian = block.endian = "<" if data[:2] == b"II" else ">"
        source.bigtiff = b"+" in data[2:4]
        source.load_from_fp(io.BytesIO(data), tags.offset)
        tags = descriptive_tags(source)
        text = str(tags.get(_DESCRIPTION, ""))
        if text.startswith('{"shape"') or "<OME" in text[:1000]:
            del tags[_DESCRIPTION]  # it describes the layout of that file
        for tag, value in tags.items():
            block[tag] = value
        return block.tobytes() if tags else None
    except Exception:  # a damaged description is no reason to refuse the image
        return None
