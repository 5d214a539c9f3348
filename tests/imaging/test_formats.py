"""The formats that are read and not written, and JPEGs that are unusual or cut short."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image as PilImage

from converse_jax.imaging import Image, ImageError, read_image
from converse_jax.imaging._headers import jxl_size

from .images import exif, pillow, samples

COLOR, DEEP = samples((24, 20, 3)), samples((24, 20, 3), 16)
FLOATS = (COLOR / 255).astype(np.float32)


def pnm(kind: str, last: str, body: bytes) -> bytes:
    return f"{kind}\n# a comment\n20 24\n{last}\n".encode() + body


FILES = {
    "gif": (pillow(PilImage.fromarray(COLOR[..., 0]), "GIF"), COLOR[..., [0, 0, 0]] / 255),
    "jp2": (pillow(PilImage.fromarray(COLOR), "JPEG2000", irreversible=False), COLOR / 255),
    "jp2 of 16 bits": (imagecodecs.jpeg2k_encode(DEEP, level=0), DEEP / 65535),
    "jp2 of 12 bits": (
        imagecodecs.jpeg2k_encode(DEEP >> 4, level=0, bitspersample=12),
        (DEEP >> 4) / 4095,
    ),
    "j2k": (imagecodecs.jpeg2k_encode(DEEP, level=0, codecformat="j2k"), DEEP / 65535),
    "jxl": (imagecodecs.jpegxl_encode(COLOR, lossless=True), COLOR / 255),
    "jxl of 16 bits": (imagecodecs.jpegxl_encode(DEEP, lossless=True), DEEP / 65535),
    "jxl of floats": (imagecodecs.jpegxl_encode(FLOATS, lossless=True), FLOATS),
    "jxl in boxes": (
        imagecodecs.jpegxl_encode(COLOR, lossless=True, usecontainer=True),
        COLOR / 255,
    ),
    "avif of 10 bits": (
        imagecodecs.avif_encode(DEEP >> 6, level=100, bitspersample=10),
        (DEEP >> 6) / 1023,
    ),
    "avif of 12 bits": (
        imagecodecs.avif_encode(DEEP >> 4, level=100, bitspersample=12),
        (DEEP >> 4) / 4095,
    ),
    "ppm": (pnm("P6", "255", COLOR.tobytes()), COLOR / 255),
    "pgm": (pnm("P5", "100", (COLOR[..., 0] % 101).tobytes()), (COLOR[..., :1] % 101) / 100),
    "pgm of 12 bits": (
        pnm("P5", "4095", (DEEP[..., 0] >> 4).astype(">u2").tobytes()),
        (DEEP[..., :1] >> 4) / 4095,
    ),
    "ascii": (
        pnm("P2", "255", " ".join(map(str, COLOR[..., 0].ravel())).encode()),
        COLOR[..., :1] / 255,
    ),
    "pbm": (pillow(PilImage.fromarray(COLOR[..., 0] > 99), "PPM"), COLOR[..., :1] > 99),
    "pfm": (pnm("PF", "-1.0", FLOATS[::-1].astype("<f4").tobytes()), FLOATS),
    "gray pfm": (pnm("Pf", "2.5", FLOATS[::-1, :, 0].astype(">f4").tobytes()), FLOATS[..., :1]),
    "tga": (pillow(PilImage.fromarray(COLOR), "TGA"), COLOR / 255),
    "packed tga": (pillow(PilImage.fromarray(COLOR), "TGA", compression="tga_rle"), COLOR / 255),
    "12-bit jpeg": (
        imagecodecs.jpeg8_encode(np.full((24, 20), 2800, np.uint16), bitspersample=12),
        None,
    ),
}


def named(kind: str, data: bytes) -> io.BytesIO:
    """A file whose name says TGA, which has no mark in its contents."""
    file = io.BytesIO(bytes(data))
    file.name = "a.TGA" if "tga" in kind else "a.bin"
    return file


@pytest.mark.parametrize("kind", FILES)
def test_read(kind: str) -> None:
    data, want = FILES[kind]
    got = read_image(named(kind, data))
    bits = 32 if "float" in kind or "pfm" in kind else 16 if "bit" in kind or kind == "j2k" else 8
    assert got.bits == bits
    if want is None:
        want = np.full((24, 20, 1), 2800 / 4095)
        assert got.white == 4095
        np.testing.assert_allclose(got.pixels, want, atol=2e-3)
    else:
        np.testing.assert_allclose(got.pixels, want, rtol=1e-6, atol=1e-7)


def test_avif_with_alpha() -> None:
    flat = np.full((16, 16, 4), (200, 100, 50, 128), np.uint8)
    got = read_image(pillow(PilImage.fromarray(flat), "AVIF", quality=100, exif=exif(6)))
    np.testing.assert_allclose(got.pixels[8, 8] * 255, [200, 100, 50], atol=2)
    np.testing.assert_allclose(got.alpha, 128 / 255, atol=0.01)
    assert got.exif == exif(1)


def test_animations_are_refused() -> None:
    frames = [PilImage.fromarray(samples((8, 8, 3), seed=n)) for n in range(3)]
    for format in ("GIF", "AVIF"):
        data = pillow(frames[0], format, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match="holds 3 images"):
            read_image(data)
    with pytest.raises(ImageError, match="holds 3 images"):
        read_image(bytes(imagecodecs.jpegxl_encode(samples((3, 8, 8, 3)))))


@pytest.mark.parametrize(
    "size", [(8, 16), (7, 9), (256, 256), (300, 1000), (1080, 1920), (3, 9000), (1200, 1000)]
)
def test_the_size_of_a_jpeg_xl_is_known_beforehand(size: tuple[int, int]) -> None:
    assert jxl_size(bytes(imagecodecs.jpegxl_encode(np.zeros(size, np.uint8)))) == size[::-1]


@pytest.mark.parametrize("kind", FILES)
def test_sizes_are_checked_before_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    for name in ("jpeg2k_decode", "jpegxl_decode", "avif_decode", "jpeg8_decode"):
        monkeypatch.setattr(imagecodecs, name, never)
    with pytest.raises(ImageError, match="20x24 pixels are more than the limit of 479"):
        read_image(named(kind, FILES[kind][0]), max_pixels=479)


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_give_an_image_or_an_image_error(kind: str) -> None:
    rng, whole = np.random.default_rng(0), bytes(FILES[kind][0])
    for _ in range(40):
        data = bytearray(whole)
        reach = len(data) if rng.random() < 0.5 else min(100, len(data))
        for position in rng.integers(2, reach, size=3):
            data[position] = rng.integers(256)
        for keep in (len(data), int(rng.integers(len(data)))):
            try:
                got = read_image(named(kind, bytes(data[:keep])), max_pixels=1_000_000)
            except ImageError as error:
                assert "\n" not in str(error)
            else:
                assert isinstance(got, Image) and np.isfinite(got.pixels).all()


def test_a_jpeg_2000_whose_box_hides_a_larger_code_stream() -> None:
    data = bytearray(FILES["jp2"][0])
    siz = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">II", data, siz + 8, 60000, 60000)
    with pytest.raises(ImageError, match="60000x60000 pixels are more than the limit"):
        read_image(bytes(data))


def gradient() -> np.ndarray:
    return np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[:, None], 48, axis=1)


def test_a_jpeg_cut_short_is_read_as_far_as_it_goes() -> None:
    data = pillow(PilImage.fromarray(gradient()), "JPEG", quality=95)
    for cut in (data[:-2], data[: len(data) * 3 // 4]):
        with pytest.raises(ImageError, match=r"cut short.*restore what is there \(--tolerate-dam"):
            read_image(cut)
        got = read_image(cut, tolerate_damage=True)
        assert got.notes == ("the file is cut short: what is missing at its end is gray or coarse",)
        np.testing.assert_allclose(got.pixels[:16, :, 0], gradient()[:16] / 255, atol=0.02)
    whole = read_image(data + b"trailing bytes", tolerate_damage=True)
    assert whole.notes == ()
    np.testing.assert_allclose(whole.pixels[..., 0], gradient() / 255, atol=0.02)


def test_jpegs_of_more_bits_than_are_read_say_so() -> None:
    data = bytes(imagecodecs.jpeg8_encode(samples((8, 8), 16), lossless=True, bitspersample=16))
    with pytest.raises(ImageError, match="a JPEG of 16 bits a sample without loss, which is not"):
        read_image(data)


def test_a_12_bit_jpeg_is_turned_upright() -> None:
    s = np.repeat(np.linspace(0, 4095, 16).astype(np.uint16)[None], 8, axis=0)
    data = bytes(imagecodecs.jpeg8_encode(s, bitspersample=12, level=98))
    block = exif(6)
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(block)) + block + data[2:]
    got = read_image(data)
    np.testing.assert_allclose(got.pixels[:, 0, 0], s[0] / 4095, atol=0.01)
    assert got.exif == exif(1)
