"""Reading image files: every kind of pixel, the turned ones, the transparent, the hostile."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image as PilImage

from converse_jax.imaging import ImageError, list_images, read_image

from .images import as_stored, exif, pillow, png, profile, samples

# No warning of a decoder may reach the user.
pytestmark = pytest.mark.filterwarnings("error")


def same(array: np.ndarray | None, integers: np.ndarray) -> None:
    """The floats are the integers over their peak, to the last bit of float32."""
    peak = 65535 if integers.dtype == np.uint16 else 255
    assert array is not None and array.dtype == np.float32
    np.testing.assert_array_equal(array, (integers / peak).astype(np.float32))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (3, 500)])
def test_8_bit_rgb(format: str, size: tuple[int, int]) -> None:
    s = samples((*size, 3))
    got = read_image(pillow(PilImage.fromarray(s), format, lossless=True))
    same(got.pixels, s)
    assert got.alpha is None and got.bits == 8


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_8_bit_gray_has_one_channel(format: str) -> None:
    s = samples((5, 7))
    same(read_image(pillow(PilImage.fromarray(s), format)).pixels, s[..., None])


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_bilevel(format: str) -> None:
    s = samples((9, 11)) > 127
    got = read_image(pillow(PilImage.fromarray(s), format))
    np.testing.assert_array_equal(got.pixels[..., :1], s[..., None].astype(np.float32))


@pytest.mark.parametrize(
    ("format", "n"), [("PNG", 2), ("PNG", 4), ("TIFF", 2), ("TIFF", 4), ("WEBP", 4)]
)
def test_8_bit_alpha_is_kept_apart(format: str, n: int) -> None:
    s = samples((6, 5, n))
    s[0, 0, -1] = 0  # the color under full transparency stays, too
    got = read_image(pillow(PilImage.fromarray(s), format, lossless=True, exact=True))
    same(got.pixels, s[..., :-1])
    same(got.alpha, s[..., -1])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_16_bit_png_in_full(n: int) -> None:
    s = samples((6, 5, n), 16)
    got = read_image(bytes(imagecodecs.png_encode(s[..., 0] if n == 1 else s)))
    same(got.pixels, s[..., : 1 if n < 3 else 3])
    assert got.bits == 16 and (got.alpha is None) == (n in (1, 3))
    if got.alpha is not None:
        same(got.alpha, s[..., -1])


TIFF_LAYOUTS = {
    "strips": {"rowsperstrip": 2},
    "tiles": {"tile": (16, 16)},
    "planes": {"planarconfig": "separate"},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate"},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
}


@pytest.mark.parametrize("layout", TIFF_LAYOUTS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_tiff_layouts(layout: str, bits: int, n: int) -> None:
    s = samples((20, 35, n), bits)
    if (layout, n) == ("planes", 1):
        pytest.skip("one channel has no planes")
    options = dict(TIFF_LAYOUTS[layout])
    stored = s[..., 0] if n == 1 else s
    if layout == "planes":
        stored = np.ascontiguousarray(np.moveaxis(s, -1, 0))
    if n == 4:
        options["extrasample"] = "unassalpha"
    options["photometric"] = "minisblack" if n == 1 else "rgb"
    # A copy, because libtiff swaps the bytes of what it is given.
    got = read_image(bytes(imagecodecs.tiff_encode(stored.copy(), **options)))
    same(got.pixels, s[..., : min(n, 3)])
    assert got.bits == bits
    if n == 4:
        same(got.alpha, s[..., -1])


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_gray_with_alpha_and_small_sizes(bits: int) -> None:
    for size in [(3, 2), (2, 2), (1, 1), (3, 500)]:
        s = samples((*size, 2), bits)
        data = imagecodecs.tiff_encode(
            s, photometric="minisblack", planarconfig="contig", extrasample="unassalpha"
        )
        got = read_image(bytes(data))
        same(got.pixels, s[..., :1])
        same(got.alpha, s[..., 1])


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_alpha_that_is_unnamed_or_premultiplied(bits: int) -> None:
    s = samples((4, 5, 4), bits)
    got = read_image(
        bytes(imagecodecs.tiff_encode(s, photometric="rgb", extrasample="unspecified"))
    )
    same(got.pixels, s[..., :3])
    same(got.alpha, s[..., 3])

    peak = 2**bits - 1
    s[..., 3] = peak // 2
    s[0, 0, 3] = 0
    s[..., :3] = s[..., :3] // 3
    s[0, 0, :3] = 0
    got = read_image(bytes(imagecodecs.tiff_encode(s, photometric="rgb", extrasample="assocalpha")))
    want = s[..., :3] / (peak // 2)
    np.testing.assert_allclose(got.pixels, want, atol=1e-6)
    same(got.alpha, s[..., 3])


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_white_is_zero(bits: int) -> None:
    s = samples((4, 5), bits)
    got = read_image(bytes(imagecodecs.tiff_encode(s, photometric="miniswhite")))
    np.testing.assert_allclose(got.pixels[..., 0], 1 - s / (2**bits - 1), atol=1e-7)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_palette(format: str) -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)
    index = samples((5, 6)) % 3
    image = PilImage.fromarray(index)
    image.putpalette(colors.tobytes())
    got = read_image(pillow(image, format))
    same(got.pixels, colors[index])
    assert got.alpha is None


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\x80"])
def test_palette_transparency(transparency: int | bytes) -> None:
    index = samples((5, 6)) % 3
    image = PilImage.fromarray(index)
    image.putpalette(bytes([255, 0, 0, 0, 255, 0, 10, 20, 30]))
    got = read_image(pillow(image, "PNG", transparency=transparency))
    alphas = [255, 0, 128] if isinstance(transparency, bytes) else [255, 0, 255]
    same(got.alpha, np.array(alphas, np.uint8)[index])


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_gray_png_with_a_transparent_level(depth: int) -> None:
    levels = 2**depth
    s = np.array([[0, 1, levels - 1, 1]])
    packed = 0
    for value in s[0]:
        packed = packed << depth | int(value)
    rows = b"\0" + (packed << (-4 * depth % 8)).to_bytes((4 * depth + 7) // 8, "big")
    got = read_image(png(4, 1, depth, 0, rows, (b"tRNS", struct.pack(">H", 1))))
    np.testing.assert_array_equal(got.pixels[..., 0], (s / (levels - 1)).astype(np.float32))
    np.testing.assert_array_equal(got.alpha, (s != 1).astype(np.float32))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("color", [0, 2])
def test_png_with_a_transparent_color(depth: int, color: int) -> None:
    n, high = (1, 3)[color == 2], 40000 if depth == 16 else 200
    s = np.full((2, 3, n), 7)
    s[1, 1] = high
    s[0, 1, 0] = high  # differs from the transparent color, for RGB in one channel only
    kind = ">u2" if depth == 16 else "u1"
    rows = b"".join(b"\0" + row.astype(kind).tobytes() for row in s)
    got = read_image(png(3, 2, depth, color, rows, (b"tRNS", struct.pack(">" + "H" * n, *[7] * n))))
    same(got.pixels, s.astype(np.uint16 if depth == 16 else np.uint8))
    np.testing.assert_array_equal(got.alpha, (s != 7).any(axis=-1).astype(np.float32))
    assert got.bits == depth


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb_without_its_profile(format: str) -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # cyan
    image = PilImage.fromarray(ink, "CMYK")
    got = read_image(pillow(image, format, icc_profile=profile(b"CMYK")))
    np.testing.assert_allclose(got.pixels[4, 4], [0, 1, 1], atol=0.02)
    assert got.icc_profile is None


def test_jpeg_gray_and_rgb() -> None:
    gray = np.repeat(np.arange(32, dtype=np.uint8)[None] * 8, 16, axis=0)
    got = read_image(pillow(PilImage.fromarray(gray), "JPEG", quality=95))
    assert got.pixels.shape == (16, 32, 1)
    np.testing.assert_allclose(got.pixels[..., 0], gray / 255, atol=0.02)
    got = read_image(pillow(PilImage.new("RGB", (8, 8), (200, 100, 50)), "JPEG", quality=95))
    np.testing.assert_allclose(got.pixels[3, 3], np.array([200, 100, 50]) / 255, atol=0.02)


def test_a_jpeg_with_a_preview_behind_it_is_its_first_image() -> None:
    first, second = PilImage.new("RGB", (16, 8), (255, 0, 0)), PilImage.new("RGB", (4, 4))
    data = pillow(first, "MPO", save_all=True, append_images=[second])
    got = read_image(data)
    assert got.pixels.shape == (8, 16, 3)
    np.testing.assert_allclose(got.pixels[4, 8], [1, 0, 0], atol=0.02)


UPRIGHT = np.kron(samples((2, 3, 3), seed=3), np.ones((8, 8, 1), np.uint8))


def turned_file(kind: str, orientation: int) -> tuple[bytes, np.ndarray]:
    """A file with a turned image, and the upright samples it should give (alpha last)."""
    upright = UPRIGHT
    block = exif(orientation)
    if kind in ("rgba-png", "rgba-webp", "rgba-tiff"):
        upright = np.concatenate([upright, samples((16, 24, 1), seed=4)], axis=-1)
    stored = as_stored(upright, orientation)
    if kind == "16-bit-png":
        upright = samples((5, 4, 4), 16)
        data = bytes(imagecodecs.png_encode(as_stored(upright, orientation)))
        body = block[6:]
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body
        chunk += struct.pack(">I", zlib.crc32(b"eXIf" + body))
        return data[:-12] + chunk + data[-12:], upright  # behind the pixels, where it may stand
    if kind == "16-bit-tiff":
        upright = samples((5, 4), 16)
        image = PilImage.fromarray(as_stored(upright, orientation))
        return pillow(image, "TIFF", tiffinfo={274: orientation}), upright[..., None]
    if kind in ("tiff", "rgba-tiff", "lzw-tiff"):
        lzw = {"compression": "tiff_lzw"} if kind == "lzw-tiff" else {}
        image = PilImage.fromarray(stored)
        return pillow(image, "TIFF", tiffinfo={274: orientation}, **lzw), upright
    if kind == "palette-tiff":
        index = samples((5, 4)) % 3
        image = PilImage.fromarray(as_stored(index, orientation))
        colors = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)
        image.putpalette(colors.tobytes())
        return pillow(image, "TIFF", tiffinfo={274: orientation}), colors[index]
    options = {
        "jpeg": {"quality": 100, "subsampling": 0},
        "rgba-webp": {"lossless": True, "exact": True},
    }.get(kind, {})
    format = {"jpeg": "JPEG", "rgba-webp": "WEBP"}.get(kind, "PNG")
    return pillow(PilImage.fromarray(stored), format, exif=block, **options), upright


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "kind",
    [
        "jpeg",
        "png",
        "rgba-png",
        "rgba-webp",
        "16-bit-png",
        "16-bit-tiff",
        "tiff",
        "rgba-tiff",
        "lzw-tiff",
        "palette-tiff",
    ],
)
def test_orientation_turns_pixels_and_alpha(kind: str, orientation: int) -> None:
    data, upright = turned_file(kind, orientation)
    got = read_image(data)
    if upright.shape[-1] == 4:
        same(got.alpha, upright[..., 3])
        upright = upright[..., :3]
    if kind == "jpeg":
        np.testing.assert_allclose(got.pixels, upright / 255, atol=0.03)
    else:
        same(got.pixels, upright)
    if "tiff" not in kind:
        assert got.exif == exif(1)  # all else in place


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_of_the_unturned_image_is_unlinked(order: str) -> None:
    block = bytearray(exif(6, order=order))
    next_directory = 6 + 8 + 2 + 3 * 12
    block[next_directory : next_directory + 4] = struct.pack(order + "I", 8)
    data = pillow(PilImage.new("RGB", (4, 2)), "JPEG", exif=bytes(block))
    got = read_image(data)
    assert got.pixels.shape == (4, 2, 3)
    assert got.exif == exif(1, order=order)


def test_damaged_exif_is_dropped_and_the_image_read() -> None:
    block = exif(1)[:20]
    data = pillow(PilImage.new("RGB", (4, 2)), "JPEG", exif=block)
    got = read_image(data)
    assert got.exif is None and got.pixels.shape == (2, 4, 3)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_profile_and_exif_are_kept(format: str) -> None:
    image = PilImage.new("RGB", (4, 3), (1, 2, 3))
    got = read_image(pillow(image, format, icc_profile=profile(b"RGB "), exif=exif()))
    assert got.icc_profile == profile(b"RGB ")
    block = PilImage.Exif()
    assert got.exif is not None
    block.load(got.exif)
    assert block[271] == "Nobody" and block.get_ifd(0x8769)[0x8827] == 400


def test_a_profile_of_another_color_space_is_dropped() -> None:
    image = PilImage.new("L", (4, 3))
    assert read_image(pillow(image, "PNG", icc_profile=profile(b"RGB "))).icc_profile is None
    kept = read_image(pillow(image, "PNG", icc_profile=profile(b"GRAY"))).icc_profile
    assert kept == profile(b"GRAY")


def test_sources(tmp_path: Path) -> None:
    s = samples((3, 4, 3))
    path = tmp_path / "a.bin"  # the contents decide, not the name
    path.write_bytes(pillow(PilImage.fromarray(s), "PNG"))
    same(read_image(path).pixels, s)
    same(read_image(str(path)).pixels, s)
    same(read_image(path.read_bytes()).pixels, s)
    with path.open("rb") as file:
        same(read_image(file).pixels, s)


def test_list_images(tmp_path: Path) -> None:
    for name in ["b.PNG", "a.jpeg", "sub/c.tif", "sub/deep/d.webp", "e.txt", ".f.png", ".g/h.png"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    got = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert got == ["a.jpeg", "b.PNG", "sub/c.tif", "sub/deep/d.webp"]
    with pytest.raises(ImageError, match="nowhere: there is no such folder"):
        list_images(tmp_path / "nowhere")
