"""Writing image files: round trips, what a format cannot hold, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from converse_jax.imaging import (
    Image,
    ImageError,
    encode_image,
    read_image,
    write_image,
)
from converse_jax.imaging import _files as files

from .images import exif, profile

pytestmark = pytest.mark.filterwarnings("error")


def image(
    channels: int = 3, *, alpha: bool = False, bits: int = 8, size: tuple[int, int] = (6, 5)
) -> Image:
    """Random levels of that depth, with metadata."""
    rng, peak = np.random.default_rng(0), 2**bits - 1
    levels = rng.integers(0, peak + 1, (*size, channels + 1)) / peak
    unit = levels.astype(np.float32)
    return Image(
        pixels=unit[..., :channels],
        alpha=unit[..., channels] if alpha else None,
        bits=bits,
        icc_profile=profile(b"GRAY" if channels == 1 else b"RGB "),
        exif=exif(1),
    )


def equal(got: Image, want: Image) -> None:
    np.testing.assert_array_equal(got.pixels, want.pixels)
    assert (got.alpha is None) == (want.alpha is None)
    if want.alpha is not None:
        np.testing.assert_array_equal(got.alpha, want.alpha)
    assert got.bits == want.bits


@pytest.mark.parametrize("size", [(6, 5), (1, 1), (3, 500), (2, 2)])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_png_and_tiff_hold_everything(
    tmp_path: Path, suffix: str, channels: int, alpha: bool, bits: int, size: tuple[int, int]
) -> None:
    want = image(channels, alpha=alpha, bits=bits, size=size)
    path = tmp_path / ("x" + suffix)
    write_image(path, want)
    got = read_image(path)
    equal(got, want)
    assert got.icc_profile == want.icc_profile
    block = PilImage.Exif()
    assert got.exif is not None
    block.load(got.exif)
    assert block[271] == "Nobody" and block.get_ifd(0x8769)[0x8827] == 400
    if suffix == ".png":
        assert got.exif == want.exif


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_other_programs_read_what_we_write(format: str, bits: int) -> None:
    """Pillow and tifffile, which know nothing of our writer, see the samples and metadata."""
    import io

    want = image(3, alpha=True, bits=bits, size=(20, 30))
    data = encode_image(want, format)
    with PilImage.open(io.BytesIO(data)) as opened:
        opened.load()
        assert opened.mode == "RGBA" and opened.size == (30, 20)
        assert opened.info["icc_profile"] == want.icc_profile
        assert opened.getexif()[271] == "Nobody"
        high = np.asarray(opened) / 255
    np.testing.assert_allclose(high[..., :3], want.pixels, atol=1 / 255)
    if format == "tiff":
        import imagecodecs

        samples = imagecodecs.tiff_decode(data)
        assert samples.dtype == (np.uint16 if bits == 16 else np.uint8)
        np.testing.assert_array_equal(samples[..., 3], np.round(want.alpha * (2**bits - 1)))


def test_webp_is_lossless(tmp_path: Path) -> None:
    for alpha in (False, True):
        want = image(3, alpha=alpha)
        write_image(tmp_path / "x.webp", want, overwrite=True)
        got = read_image(tmp_path / "x.webp")
        equal(got, want)
        assert got.icc_profile == want.icc_profile and got.exif == want.exif
    gray = read_image(encode_image(image(1, alpha=True), "webp"))
    np.testing.assert_array_equal(gray.pixels, np.repeat(image(1).pixels, 3, axis=-1))
    assert gray.alpha is not None


@pytest.mark.parametrize("channels", [1, 3])
def test_bmp(channels: int) -> None:
    want = image(channels)
    equal(read_image(encode_image(want, "bmp")), want)


def test_jpeg_is_fine_and_not_subsampled() -> None:
    # Red and blue columns of one pixel: subsampled chroma would mix them to purple.
    colors = np.zeros((16, 16, 3), np.float32)
    colors[:, ::2, 0] = colors[:, 1::2, 2] = 1
    want = Image(colors, icc_profile=profile(b"RGB "), exif=exif(1))
    got = read_image(encode_image(want, "jpeg"))
    assert np.abs(got.pixels - colors).max() < 0.15
    assert got.icc_profile == want.icc_profile and got.exif == want.exif
    gray = image(1, size=(9, 17))
    assert read_image(encode_image(gray, "jpeg")).pixels.shape == (9, 17, 1)


def test_values_are_clipped_and_rounded() -> None:
    row = np.array([[[-0.5], [0.4999 / 255], [0.5001 / 255], [1.5]]], np.float32)
    got = read_image(encode_image(Image(row), "png"))
    np.testing.assert_allclose(got.pixels.ravel() * 255, [0, 0, 1, 255], atol=1e-4)


def test_a_profile_of_other_channels_is_not_written() -> None:
    gray = Image(np.zeros((2, 2, 1), np.float32), icc_profile=profile(b"RGB "))
    for format in ("png", "jpeg", "tiff"):
        assert b"RGB " + bytes(range(200)) not in encode_image(gray, format)
        assert read_image(encode_image(gray, format)).icc_profile is None


@pytest.mark.parametrize("format", ["jpeg", "bmp"])
def test_alpha_is_never_lost(format: str) -> None:
    with pytest.raises(ImageError, match=f"{format.upper()} holds no alpha channel.*write PNG"):
        encode_image(image(alpha=True), format)


@pytest.mark.parametrize("format", ["jpeg", "bmp", "webp"])
def test_16_bits_are_never_lost(format: str) -> None:
    with pytest.raises(ImageError, match=f"{format.upper()} holds 8 bits.*write PNG or TIFF"):
        encode_image(image(bits=16), format)


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="format: got 'gif'; expected one of"):
        encode_image(image(), "gif")
    with pytest.raises(ImageError, match=r"x.gif: the extension '.gif' is not one of .png .jpg"):
        write_image(tmp_path / "x.gif", image())
    with pytest.raises(ImageError, match="x: the extension ''"):
        write_image(tmp_path / "x", image())
    with pytest.raises(ImageError, match="is a folder"):
        write_image(tmp_path, image(), format="png")
    with pytest.raises(ImageError, match="there is no folder .*none; create it first"):
        write_image(tmp_path / "none" / "x.png", image())
    with pytest.raises(ImageError, match="hold NaN or infinity"):
        encode_image(Image(np.full((2, 2, 1), np.nan, np.float32)), "png")
    with pytest.raises(
        ImageError, match="x.webp: format: WEBP holds at most 16383 pixels a side.*20000x1"
    ):
        write_image(tmp_path / "x.webp", image(size=(1, 20000)))
    assert list(tmp_path.iterdir()) == []


def test_format_may_differ_from_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    write_image(path, image(), format="png")
    assert path.read_bytes().startswith(b"\x89PNG")
    equal(read_image(path), image())


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"precious")
    with pytest.raises(ImageError, match="x.png: exists already; .* overwrite=True"):
        write_image(path, image())
    assert path.read_bytes() == b"precious"
    write_image(path, image(), overwrite=True)
    equal(read_image(path), image())
    dangling = tmp_path / "y.png"
    dangling.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(ImageError, match="exists already"):
        write_image(dangling, image())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.png", "y.png"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "x.png"

    def encode_while_another_writes(*_: object, **__: object) -> bytes:
        path.write_bytes(b"precious")
        return b"ours"

    def no_links(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(files, "encode_pages", encode_while_another_writes)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(ImageError, match="exists already"):
        write_image(path, image())
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_writes_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    write_image(tmp_path / "x.png", image())
    equal(read_image(tmp_path / "x.png"), image())
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "x.png"
    if overwrite:
        path.write_bytes(b"precious")
    with pytest.raises(ImageError, match=r"x.png: cannot be written \(No space left on device\)"):
        write_image(path, image(), overwrite=overwrite)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"precious"] * overwrite


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", image())
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    write_image(path, image())
    equal(read_image(path), image())
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / ("n" * 300 + ".png"), image())
