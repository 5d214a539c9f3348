"""Decode the bytes of an image file to an `Image`.

Pillow decodes up to 8 bits per sample and reads the metadata; it has no 16-bit RGB (it silently
keeps the upper 8 bits) and drops TIFF's unnamed alpha, so imagecodecs decodes 16-bit PNG and the
plain kinds of TIFF.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from converse_jax.imaging._exif import ORIENTATION, descriptive_tags, turned, upright
from converse_jax.imaging._image import MAX_PIXELS, Image, ImageError, fitting_profile
from converse_jax.messages import one_line

if TYPE_CHECKING:
    from PIL import Image as PilImage

# TIFF tags (TIFF 6.0, sections 3 to 8 and 18; SampleFormat: section 19)
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262
_SAMPLES, _PLANAR, _EXTRA, _FORMAT, _ICC = 277, 284, 338, 339, 34675
# Photometric interpretation -> color channels: white is zero, black is zero, RGB; then, for
# Pillow, palette, CMYK, YCbCr and Lab (which is told apart from damage there).
_PLAIN_COLORS = {0: 1, 1: 1, 2: 3}
_OTHER_COLORS = {3: 1, 5: 4, 6: 3, 8: 3}
_ASSOCIATED = 1  # the extra sample is an alpha that the colors are multiplied with


def sniff(data: bytes) -> str | None:
    """The format the first bytes announce, or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"BM"):
        return "bmp"
    return None


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode the bytes of one image file; `name` is used in messages.

    Raises:
        ImageError: anything is wrong with the file.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty; fetch or export the image again")
    kind = sniff(data)
    if kind is None:
        raise ImageError(f"{name}: not an image; give a PNG, JPEG, TIFF, WebP or BMP file")
    from PIL.Image import DecompressionBombError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "tiff":
                return _decode_tiff(data, name, max_pixels)
            return _decode_other(data, kind, name, max_pixels)
    except (ImageError, ImportError):
        raise
    except DecompressionBombError:  # Pillow's WebP and tiled TIFF readers look at its own limit
        raise ImageError(
            f"{name}: has more pixels than Pillow's own limit; "
            "cut it into parts, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from None
    except Exception as error:  # damaged files make decoders raise almost anything
        reason = one_line(error)
        raise ImageError(
            f"{name}: the {kind.upper()} file is damaged or cut short ({reason}); "
            "fetch or export it again"
        ) from None


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: says it is {width}x{height} pixels; export it again")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} pixels are more than the limit of {max_pixels}; "
            "cut it into parts, or raise max_pixels if you trust the file"
        )


def _check_still(name: str, frames: int | None) -> None:
    if frames != 1:
        many = "several" if frames is None else str(frames)
        raise ImageError(
            f"{name}: holds {many} images (an animation or pages); export each as a file"
        )


def _open(data: bytes, kind: str) -> PilImage.Image:
    """Pillow's reader of one format, its header parsed and no pixel decoded.

    Not `PilImage.open`: that guesses among formats nobody asked for, and its size limit is one
    module-wide variable. A JPEG is opened as JPEG even where a phone has appended
    previews or a gain map (MPO): the first image is the photograph.
    """
    from PIL import (
        BmpImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    readers: dict[str, Any] = {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
    }
    image: PilImage.Image = readers[kind](io.BytesIO(data))
    return image


def _decode_other(data: bytes, kind: str, name: str, max_pixels: int) -> Image:
    """PNG, JPEG, WebP, BMP."""
    with _open(data, kind) as image:
        _check_size(name, *image.size, max_pixels)
        _check_still(name, getattr(image, "n_frames", 1))
        # Byte 24 is IHDR's bit depth: IHDR is the first chunk by definition.
        depth = data[24] if kind == "png" else 8
        if depth == 16:
            import imagecodecs

            image.load()  # for the metadata alone, which may follow the pixels
            pixels, alpha = _split(imagecodecs.png_decode(data), 65535)
        else:
            image.load()
            pixels, alpha = _from_pillow(image, name, depth)
        orientation = image.getexif().get(ORIENTATION, 1)
        info = image.info
    return _image(
        pixels,
        alpha,
        16 if depth == 16 else 8,
        orientation,
        info.get("icc_profile"),
        info.get("exif"),
    )


def _image(
    pixels: np.ndarray,
    alpha: np.ndarray | None,
    bits: int,
    orientation: Any,
    icc_profile: bytes | None,
    exif: bytes | None,
) -> Image:
    """The upright `Image` from what a file held."""
    return Image(
        pixels=np.ascontiguousarray(turned(pixels, orientation)),
        alpha=None if alpha is None else np.ascontiguousarray(turned(alpha, orientation)),
        bits=bits,
        icc_profile=fitting_profile(icc_profile, pixels.shape[-1]),
        exif=upright(exif),
    )


def _split(samples: np.ndarray, peak: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Integer samples `[H, W]` or `[H, W, 1..4]` to colors and alpha in [0, 1]."""
    samples = samples.reshape(*samples.shape[:2], -1)
    unit = samples.astype(np.float32) / np.float32(peak)
    if samples.shape[-1] in (2, 4):
        return unit[..., :-1], unit[..., -1]
    return unit, None


def _from_pillow(
    image: PilImage.Image, name: str, depth: int = 8
) -> tuple[np.ndarray, np.ndarray | None]:
    """A loaded Pillow image of 8 bits a sample or less to colors and alpha in [0, 1]."""
    mode, key = image.mode, image.info.get("transparency")
    if mode in ("1", "L") and key is not None:
        # The key is given at the file's own depth, while the pixels are already scaled to 255.
        level = 255 * bool(key) if mode == "1" else int(key) * 255 // (2**depth - 1)
        gray = np.asarray(image.convert("L"))
        alpha = np.where(gray == level, 0.0, 1.0).astype(np.float32)
        return _split(gray, 255)[0], alpha
    if image.has_transparency_data:
        target = "LA" if mode in ("LA", "La") else "RGBA"
    elif mode in ("1", "L"):
        target = "L"
    elif mode in ("RGB", "RGBX", "P", "CMYK", "YCbCr"):
        target = "RGB"
    else:
        raise ImageError(
            f"{name}: its pixels are of kind {mode}, which is not read; "
            "convert it to 8 or 16-bit gray, RGB or CMYK"
        )
    return _split(np.asarray(image if mode == target else image.convert(target)), 255)


def _decode_tiff(data: bytes, name: str, max_pixels: int) -> Image:
    """TIFF: the plain kinds by imagecodecs; bilevel, palette, CMYK and YCbCr by Pillow."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file = io.BytesIO(data)
    # BigTIFF (version 43 instead of 42) has a longer header.
    tags = ImageFileDirectory_v2(data[: 16 if b"+" in data[2:4] else 8])
    file.seek(tags.next)
    tags.next = -1  # stays so where the directory cannot be read to its end
    tags.load(file)
    width, height = tags.get(_WIDTH), tags.get(_HEIGHT)
    if not isinstance(width, int) or not isinstance(height, int) or tags.next == -1:
        raise ValueError("its directory is missing")
    _check_size(name, width, height, max_pixels)
    _check_still(name, None if tags.next else 1)

    bits = tuple(tags.get(_BITS, (1,)))
    photometric, samples = tags.get(_PHOTOMETRIC, -1), tags.get(_SAMPLES, 1)
    plain = photometric in _PLAIN_COLORS and set(bits) in ({8}, {16})
    extra = samples - (_PLAIN_COLORS | _OTHER_COLORS).get(photometric, samples)
    if extra not in ((0, 1) if plain else (0,)):
        raise ImageError(
            f"{name}: has {samples} channels, of which not all can be kept; "
            "export it as gray or RGB, with alpha or without"
        )
    if plain:
        if set(tags.get(_FORMAT, (1,))) != {1}:
            raise ImageError(f"{name}: its samples are not unsigned integers; convert it")
        peak = 2 ** bits[0] - 1
        planar = samples > 1 and tags.get(_PLANAR, 1) == 2
        decoded = _tiff_samples(data, (height, width, samples), planar)
        pixels, alpha = _split(decoded, peak)
        if photometric == 0:
            pixels = 1.0 - pixels
        if alpha is not None and tags.get(_EXTRA, (0,))[0] == _ASSOCIATED:
            # Where alpha is 0 the color is unknown; it stays the black that premultiplying left.
            pixels = np.minimum(pixels / np.where(alpha > 0, alpha, 1.0)[..., None], 1.0)
        orientation, depth = tags.get(ORIENTATION, 1), bits[0]
    else:
        if max(bits) > 8 or samples > 4:
            raise ImageError(
                f"{name}: a TIFF of {samples} times {max(bits)} bits and photometric {photometric} "
                "is not read; convert it to 8 or 16-bit gray or RGB, or to 8-bit CMYK"
            )
        with _open(data, "tiff") as image:
            image.load()
            pixels, alpha = _from_pillow(image, name)
            # Pillow turns a TIFF while loading it; the loaded image says what is left to do.
            orientation, depth = image.getexif().get(ORIENTATION, 1), 8
    return _image(pixels, alpha, depth, orientation, tags.get(_ICC), _tiff_exif(data, tags))


def _tiff_samples(data: bytes, shape: tuple[int, int, int], planar: bool) -> np.ndarray:
    """The decoded first page, channels last whichever way its planes are stored."""
    import imagecodecs

    array = imagecodecs.tiff_decode(data)
    if planar:
        array = np.moveaxis(array, 0, -1)
    array = array.reshape(*array.shape[:2], -1)
    if array.shape != shape:
        raise ValueError(f"it decodes to shape {array.shape} instead of {shape}")
    return array


def _tiff_exif(data: bytes, tags: Any) -> bytes | None:
    """The descriptive part of a TIFF's directory as an EXIF block of its own."""
    from PIL import Image as PilImage

    source, block = PilImage.Exif(), PilImage.Exif()
    try:
        source.endian = block.endian = "<" if data[:2] == b"II" else ">"
        source.bigtiff = b"+" in data[2:4]
        source.load_from_fp(io.BytesIO(data), tags.offset)
        tags = descriptive_tags(source)
        for tag, value in tags.items():
            block[tag] = value
        return block.tobytes() if tags else None
    except Exception:  # a damaged description is no reason to refuse the image
        return None
