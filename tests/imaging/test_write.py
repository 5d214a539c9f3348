"""Writing picture files: round trips, what a format cannot hold, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converse_jax.imaging import (
    Picture,
    PictureError,
    encode_picture,
    read_picture,
    write_picture,
)
from converse_jax.imaging import _files as files

from .pictures import exif, profile

pytestmark = pytest.mark.filterwarnings("error")


def picture(
    channels: int = 3, *, alpha: bool = False, bits: int = 8, size: tuple[int, int] = (6, 5)
) -> Picture:
    """Random levels of that depth, with metadata."""
    rng, peak = np.random.default_rng(0), 2**bits - 1
    levels = rng.integers(0, peak + 1, (*size, channels + 1)) / peak
    unit = levels.astype(np.float32)
    return Picture(
        pixels=unit[..., :channels],
        alpha=unit[..., channels] if alpha else None,
        bits=bits,
        icc_profile=profile(b"GRAY" if channels == 1 else b"RGB "),
        exif=exif(1),
    )


def equal(got: Picture, want: Picture) -> None:
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
    want = picture(channels, alpha=alpha, bits=bits, size=size)
    path = tmp_path / ("x" + suffix)
    write_picture(path, want)
    got = read_picture(path)
    equal(got, want)
    assert got.icc_profile == want.icc_profile
    block = Image.Exif()
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

    want = picture(3, alpha=True, bits=bits, size=(20, 30))
    data = encode_picture(want, format)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.mode == "RGBA" and image.size == (30, 20)
        assert image.info["icc_profile"] == want.icc_profile
        assert image.getexif()[271] == "Nobody"
        high = np.asarray(image) / 255
    np.testing.assert_allclose(high[..., :3], want.pixels, atol=1 / 255)
    if format == "tiff":
        import imagecodecs

        samples = imagecodecs.tiff_decode(data)
        assert samples.dtype == (np.uint16 if bits == 16 else np.uint8)
        np.testing.assert_array_equal(samples[..., 3], np.round(want.alpha * (2**bits - 1)))


def test_webp_is_lossless(tmp_path: Path) -> None:
    for alpha in (False, True):
        want = picture(3, alpha=alpha)
        write_picture(tmp_path / "x.webp", want, overwrite=True)
        got = read_picture(tmp_path / "x.webp")
        equal(got, want)
        assert got.icc_profile == want.icc_profile and got.exif == want.exif
    gray = read_picture(encode_picture(picture(1, alpha=True), "webp"))
    np.testing.assert_array_equal(gray.pixels, np.repeat(picture(1).pixels, 3, axis=-1))
    assert gray.alpha is not None


@pytest.mark.parametrize("channels", [1, 3])
def test_bmp(channels: int) -> None:
    want = picture(channels)
    equal(read_picture(encode_picture(want, "bmp")), want)


def test_jpeg_is_fine_and_not_subsampled() -> None:
    # Red and blue columns of one pixel: subsampled chroma would mix them to purple.
    colours = np.zeros((16, 16, 3), np.float32)
    colours[:, ::2, 0] = colours[:, 1::2, 2] = 1
    want = Picture(colours, icc_profile=profile(b"RGB "), exif=exif(1))
    got = read_picture(encode_picture(want, "jpeg"))
    assert np.abs(got.pixels - colours).max() < 0.15
    assert got.icc_profile == want.icc_profile and got.exif == want.exif
    gray = picture(1, size=(9, 17))
    assert read_picture(encode_picture(gray, "jpeg")).pixels.shape == (9, 17, 1)


def test_values_are_clipped_and_rounded() -> None:
    row = np.array([[[-0.5], [0.4999 / 255], [0.5001 / 255], [1.5]]], np.float32)
    got = read_picture(encode_picture(Picture(row), "png"))
    np.testing.assert_allclose(got.pixels.ravel() * 255, [0, 0, 1, 255], atol=1e-4)


def test_a_profile_of_other_channels_is_not_written() -> None:
    gray = Picture(np.zeros((2, 2, 1), np.float32), icc_profile=profile(b"RGB "))
    for format in ("png", "jpeg", "tiff"):
        assert b"RGB " + bytes(range(200)) not in encode_picture(gray, format)
        assert read_picture(encode_picture(gray, format)).icc_profile is None


@pytest.mark.parametrize("format", ["jpeg", "bmp"])
def test_alpha_is_never_lost(format: str) -> None:
    with pytest.raises(PictureError, match=f"{format.upper()} holds no alpha channel.*write PNG"):
        encode_picture(picture(alpha=True), format)


@pytest.mark.parametrize("format", ["jpeg", "bmp", "webp"])
def test_16_bits_are_never_lost(format: str) -> None:
    with pytest.raises(PictureError, match=f"{format.upper()} holds 8 bits.*write PNG or TIFF"):
        encode_picture(picture(bits=16), format)


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="format: got 'gif'; choose one of"):
        encode_picture(picture(), "gif")
    with pytest.raises(PictureError, match=r"x.gif: the extension '.gif' is not one of .png .jpg"):
        write_picture(tmp_path / "x.gif", picture())
    with pytest.raises(PictureError, match="x: the extension ''"):
        write_picture(tmp_path / "x", picture())
    with pytest.raises(PictureError, match="is a folder"):
        write_picture(tmp_path, picture(), format="png")
    with pytest.raises(PictureError, match="there is no folder .*none; create it first"):
        write_picture(tmp_path / "none" / "x.png", picture())
    with pytest.raises(PictureError, match="hold NaN or infinity"):
        encode_picture(Picture(np.full((2, 2, 1), np.nan, np.float32)), "png")
    with pytest.raises(PictureError, match="x.webp: format: WEBP does not take .* 20000x1 pixels"):
        write_picture(tmp_path / "x.webp", picture(size=(1, 20000)))
    assert list(tmp_path.iterdir()) == []


def test_format_may_differ_from_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    write_picture(path, picture(), format="png")
    assert path.read_bytes().startswith(b"\x89PNG")
    equal(read_picture(path), picture())


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"precious")
    with pytest.raises(PictureError, match="x.png: exists already; .* overwrite=True"):
        write_picture(path, picture())
    assert path.read_bytes() == b"precious"
    write_picture(path, picture(), overwrite=True)
    equal(read_picture(path), picture())
    dangling = tmp_path / "y.png"
    dangling.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(PictureError, match="exists already"):
        write_picture(dangling, picture())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.png", "y.png"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "x.png"

    def encode_while_another_writes(*_: object) -> bytes:
        path.write_bytes(b"precious")
        return b"ours"

    def no_links(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(files, "encode_picture", encode_while_another_writes)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(PictureError, match="exists already"):
        write_picture(path, picture())
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_writes_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    write_picture(tmp_path / "x.png", picture())
    equal(read_picture(tmp_path / "x.png"), picture())
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
    with pytest.raises(PictureError, match=r"x.png: cannot be written \(No space left on device\)"):
        write_picture(path, picture(), overwrite=overwrite)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"precious"] * overwrite


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.png", picture())
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    write_picture(path, picture())
    equal(read_picture(path), picture())
    with pytest.raises(PictureError, match="cannot be written"):
        write_picture(tmp_path / ("n" * 300 + ".png"), picture())
