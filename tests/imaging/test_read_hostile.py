"""Reading what is no image, what is damaged, too large, or of a kind that is not read."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import PIL
import pytest
from PIL import Image as PilImage

from converse_jax.imaging import Image, ImageError, read_image

from .images import exif, pillow, png, profile, samples

# No warning of a decoder may reach the user.
pytestmark = pytest.mark.filterwarnings("error")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="none.png: there is no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="empty.png: the file is empty"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "note.png").write_text("not an image at all")
    with pytest.raises(ImageError, match="note.png: not an image; give a PNG"):
        read_image(tmp_path / "note.png")
    with pytest.raises(ImageError, match="there is no such file"):
        read_image("x" * 5000)
    with pytest.raises(ImageError, match="gives str; open it for reading bytes"):
        read_image(io.StringIO("text"))


def files_of_all_kinds() -> dict[str, bytes]:
    s = samples((24, 20, 3))
    image, index = PilImage.fromarray(s), PilImage.fromarray(samples((24, 20)) % 3)
    index.putpalette(bytes(range(9)))
    options = {"exif": exif(6), "icc_profile": profile(b"RGB ")}
    return {
        "png": pillow(image, "PNG", **options),
        "png16": bytes(imagecodecs.png_encode(samples((24, 20, 4), 16))),
        "jpeg": pillow(image, "JPEG", **options),
        "webp": pillow(image, "WEBP", lossless=True, **options),
        "bmp": pillow(image, "BMP"),
        "tiff": pillow(image, "TIFF", **options),
        "tiff16": bytes(imagecodecs.tiff_encode(samples((24, 20, 3), 16), compression="lzw")),
        "tiff-palette": pillow(index, "TIFF", compression="tiff_lzw"),
        "tiff-cmyk": pillow(image.convert("CMYK"), "TIFF"),
    }


FILES = files_of_all_kinds()


@pytest.mark.parametrize("kind", FILES)
def test_truncated_files(kind: str, tmp_path: Path) -> None:
    data = FILES[kind]
    path = tmp_path / "cut"
    for keep in (0.3, 0.6, 0.8):
        path.write_bytes(data[: int(keep * len(data))])
        with pytest.raises(ImageError, match="cut: the .* file is damaged or cut short") as error:
            read_image(path)
        assert "\n" not in str(error.value)
        assert error.value.__suppress_context__  # no traceback of the decoder
    for keep in range(0, len(data), max(1, len(data) // 60)):
        try:
            got = read_image(data[:keep])
        except ImageError:
            continue
        assert got.pixels.shape[:2] in ((24, 20), (20, 24))  # only the trailer was missing


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_give_an_image_or_an_image_error(kind: str) -> None:
    rng = np.random.default_rng(0)
    damaged = 0
    for _ in range(60):
        data = bytearray(FILES[kind])
        # Half of the damage is in the first bytes, where the structure is.
        reach = len(data) if rng.random() < 0.5 else 200
        for position in rng.integers(8, reach, size=3):
            data[position] = rng.integers(256)
        try:
            got = read_image(bytes(data), max_pixels=1_000_000)
        except ImageError as error:
            damaged += 1
            assert "\n" not in str(error)
        else:
            assert isinstance(got, Image) and np.isfinite(got.pixels).all()
    assert damaged > 0


def test_bombs_are_refused_from_the_header() -> None:
    rows = b"\0"
    for depth in (8, 16):
        bomb = png(60000, 60000, depth, 2, rows)
        with pytest.raises(ImageError, match="60000x60000 pixels are more than the limit of 256"):
            read_image(bomb)
    small = samples((9, 10, 3))
    for format in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        data = pillow(PilImage.fromarray(small), format)
        with pytest.raises(ImageError, match="10x9 pixels are more than the limit of 89"):
            read_image(data, max_pixels=89)
        assert read_image(data, max_pixels=90).pixels.shape == (9, 10, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_more_pixels_than_its_bytes_can_hold_is_cut_short(progressive: bool) -> None:
    small = PilImage.fromarray(np.full((16, 16), 128, np.uint8))
    data = bytearray(pillow(small, "JPEG", progressive=progressive))
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 16000, 16000)
    with pytest.raises(ImageError, match=r"cut short \(\d+ bytes for 16000x16000 pixels\)"):
        read_image(bytes(data))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_smallest_jpeg_of_its_size_is_read(progressive: bool, subsampling: int) -> None:
    gray = PilImage.new("RGB", (1000, 1000), (128, 128, 128))
    options = {"progressive": progressive, "subsampling": subsampling, "optimize": True}
    data = pillow(gray, "JPEG", quality=1, **options)
    assert np.allclose(read_image(data).pixels, 128 / 255)


def test_pillows_own_limit_is_told_apart_where_it_is_enforced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PilImage, "MAX_IMAGE_PIXELS", 10)
    insisting = {"tiff-palette", "tiff-cmyk"}
    if int(PIL.__version__.split(".")[0]) >= 13:
        insisting.add("webp")
    for kind, data in FILES.items():
        if kind in insisting:
            with pytest.raises(ImageError, match=r"a.dat: has more pixels than Pillow's own limit"):
                read_image(named(data, "a.dat"))
        else:
            assert read_image(data).pixels.size


def test_too_little_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: PilImage.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", full)
    with pytest.raises(ImageError, match="decoding the BMP file needs more memory than is avail"):
        read_image(FILES["bmp"])


def named(data: bytes, name: str) -> io.BytesIO:
    file = io.BytesIO(data)
    file.name = name
    return file


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_animations_and_pages_are_refused(format: str) -> None:
    frames = [PilImage.fromarray(samples((8, 8, 3), seed=n)) for n in range(3)]
    data = pillow(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="holds (3|several) images"):
        read_image(data)


def test_kinds_that_are_not_read_say_so() -> None:
    for kind, text in ((np.int16, "16-bit signed integers"), (np.uint32, "32-bit unsigned")):
        data = imagecodecs.tiff_encode(np.ones((3, 3), kind), photometric="minisblack")
        with pytest.raises(ImageError, match=f"its samples are {text}.*; convert them to 8 or 16"):
            read_image(bytes(data))
    many = bytes(imagecodecs.tiff_encode(samples((4, 4, 5)), photometric="rgb"))
    with pytest.raises(ImageError, match="has 5 channels"):
        read_image(many)
    # Pillow would read the first without its fifth channel and the second at 8 bits.
    ink = imagecodecs.tiff_encode(samples((4, 4, 5)), photometric="separated")
    with pytest.raises(ImageError, match="has 5 channels, of which not all"):
        read_image(bytes(ink))
    ink = imagecodecs.tiff_encode(samples((4, 4, 4), 16), photometric="separated")
    with pytest.raises(ImageError, match="4 times 16 bits and photometric 5"):
        read_image(bytes(ink))
    lab = pillow(PilImage.new("LAB", (3, 3)), "TIFF")
    with pytest.raises(ImageError, match="pixels are of kind LAB"):
        read_image(lab)


def test_image_checks_its_arrays() -> None:
    good = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(ImageError, match="pixels: got shape"):
        Image(good[..., :2])
    with pytest.raises(ImageError, match="pixels: got dtype float64"):
        Image(good.astype(np.float64))
    with pytest.raises(ImageError, match="alpha: got float32"):
        Image(good, alpha=np.zeros((3, 2), np.float32))
    with pytest.raises(ImageError, match="bits: got 12"):
        Image(good, bits=12)
