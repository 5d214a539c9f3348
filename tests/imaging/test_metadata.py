"""What a file says besides its pixels: kept where the format has a place for it, or named."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import IptcImagePlugin

from converse_jax.imaging import Image, Resolution, encode_image, read_image
from converse_jax.imaging._encode import dropped

from .images import exif, pillow, png, png_chunk, profile, samples

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" '
    b'exif:PixelXDimension="77"><tiff:ImageLength>88</tiff:ImageLength></rdf:Description></x:xmpmeta>'
)
IPTC = b"\x1c\x02\x78\x00\x05Quay!"
COLOR = {
    "gAMA": struct.pack(">I", 45455),
    "cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000),
    "cICP": bytes([9, 16, 0, 1]),
}


def full(**more: Any) -> Image:
    return Image(
        samples((5, 7, 3)).astype(np.float32) / np.float32(255),
        icc_profile=profile(b"RGB "),
        exif=exif(1),
        resolution=Resolution(300, 150),
        xmp=XMP.replace(b'Orientation="6"', b'Orientation="1"'),
        iptc=IPTC,
        text={"Title": "Harbour", "Comment": "scan 17"},
        color=COLOR,
        **more,
    )


LOST = {
    "png": ["IPTC"],
    "jpeg": ["text 'Title'", "gAMA", "cHRM", "cICP"],
    "tiff": ["text 'Title'", "text 'Comment'", "gAMA", "cHRM", "cICP"],
    "webp": ["IPTC", "resolution", "text 'Title'", "text 'Comment'", "gAMA", "cHRM", "cICP"],
    "bmp": [
        *("color profile", "EXIF", "XMP", "IPTC", "text 'Title'", "text 'Comment'"),
        *("gAMA", "cHRM", "cICP"),
    ],
}


@pytest.mark.parametrize("format", LOST)
@pytest.mark.parametrize("bits", [8, 16])
def test_kept_or_named(format: str, bits: int) -> None:
    if bits == 16 and format not in ("png", "tiff"):
        pytest.skip("of 8 bits")
    given = full(bits=bits)
    lost = dropped(given, format)
    assert lost == LOST[format]
    got = read_image(encode_image(given, format))
    assert got.notes == ()
    kept = {
        "color profile": got.icc_profile == given.icc_profile,
        "EXIF": got.exif is not None,
        "XMP": got.xmp is not None,
        "IPTC": got.iptc == IPTC,
        "resolution": got.resolution is not None
        and np.allclose(got.resolution[:2], (300, 150), atol=0.02),
        **{f"text {key!r}": got.text.get(key) == text for key, text in given.text.items()},
        **{kind: got.color.get(kind) == body for kind, body in COLOR.items()},
    }
    assert [what for what, there in kept.items() if not there] == [w for w in kept if w in lost]


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff", "webp"])
def test_sizes_and_resolution_become_those_of_the_image(format: str) -> None:
    block = PilImage.Exif()
    block[256], block[257], block[282], block[283], block[296] = 100, 50, 72.0, 72.0, 2
    block.get_ifd(0x8769).update({0xA002: 100, 0xA003: 50, 0x8827: 400})
    data = block.tobytes()
    got = read_image(encode_image(replace(full(), exif=data), format))
    assert got.exif is not None and got.xmp is not None
    found = PilImage.Exif()
    found.load(got.exif)
    inner = found.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003], inner[0x8827]) == (7, 5, 400)
    if format != "tiff":  # there these are tags of the file
        assert (found[256], found[257], found[282], found[283]) == (7, 5, 300, 150)
    assert b'exif:PixelXDimension="7"' in got.xmp and b"<tiff:ImageLength>5<" in got.xmp


def test_a_turned_image_is_upright_in_xmp_too() -> None:
    image = PilImage.fromarray(samples((4, 6, 3)))
    got = read_image(pillow(image, "JPEG", exif=exif(6), xmp=XMP, dpi=(300, 150)))
    assert got.pixels.shape == (6, 4, 3) and got.resolution == (150, 300, "inch")
    assert got.xmp is not None and b'tiff:Orientation="1"' in got.xmp


def test_other_programs_find_iptc_comment_and_resolution() -> None:
    with PilImage.open(io.BytesIO(encode_image(full(), "jpeg"))) as jpeg:
        assert IptcImagePlugin.getiptcinfo(jpeg) == {(2, 120): b"Quay!"}
        assert jpeg.info["comment"] == b"scan 17" and jpeg.info["dpi"] == (300, 150)
        assert jpeg.info["xmp"].startswith(b"<x:xmpmeta")
    with PilImage.open(io.BytesIO(encode_image(full(), "tiff"))) as tiff:
        assert IptcImagePlugin.getiptcinfo(tiff) == {(2, 120): b"Quay!"}
        assert tiff.info["dpi"] == (300, 150)
    with PilImage.open(io.BytesIO(encode_image(full(bits=16), "png"))) as opened:
        opened.load()
        assert opened.text["Title"] == "Harbour" and opened.info["gamma"] == 0.45455


def test_text_beyond_latin_1_and_long_keywords() -> None:
    text = {"Title": "Гавань 港", "k" * 100: "v"}
    got = read_image(encode_image(replace(full(), text=text), "png"))
    assert got.text == {"Title": "Гавань 港", "k" * 79: "v"}


def test_what_a_jpeg_cannot_hold_for_its_length_is_named() -> None:
    long = exif(1) + bytes(70_000)
    image = replace(full(), exif=long, xmp=b"<x:xmpmeta/>" + b" " * 70_000, text={}, color={})
    assert dropped(image, "jpeg") == [
        f"EXIF ({len(long)} bytes, too long)",
        f"XMP ({len(image.xmp or b'')} bytes, too long)",
    ]
    got = read_image(encode_image(image, "jpeg"))
    assert got.exif is None and got.xmp is None and got.iptc == IPTC
    assert read_image(encode_image(image, "png")).exif is not None


@pytest.mark.parametrize(
    ("color", "lost"),
    [({"sRGB": b"\0"}, []), ({"gAMA": COLOR["gAMA"]}, []), ({"gAMA": b"\0\1\x86\xa0"}, ["gAMA"])],
)
def test_what_everybody_assumes_is_no_loss(color: dict[str, bytes], lost: list[str]) -> None:
    assert dropped(replace(full(), text={}, color=color), "jpeg") == lost


def test_linear_light_is_said() -> None:
    rows = b"\0" + bytes(range(12))
    got = read_image(png(4, 1, 8, 2, rows, (b"gAMA", struct.pack(">I", 100000))))
    assert got.notes == ("its gAMA says linear light, where the networks know the values of sRGB",)


def test_a_damaged_chunk_that_no_pixel_needs_is_dropped_and_said() -> None:
    rows = b"\0" + bytes(range(12))
    good = png(4, 1, 8, 2, rows, (b"tEXt", b"Title\0Harbour"))
    bad = good.replace(b"Harbour", b"Harbout")
    got = read_image(bad)
    assert got.notes == ("its damaged tEXt is dropped",) and got.text == {}
    np.testing.assert_array_equal(got.pixels, read_image(good).pixels)
    profile_chunk = png(4, 1, 8, 2, rows, (b"iCCP", b"name\0\0not compressed"))
    assert read_image(profile_chunk).notes == ("its color profile is damaged and is dropped",)
    assert png_chunk(b"tEXt", b"Title\0Harbour") in good


@pytest.mark.parametrize("kind", ["gain map", "preview"])
def test_further_images_in_a_jpeg_are_said(kind: str) -> None:
    first, second = PilImage.new("RGB", (16, 8), (255, 0, 0)), PilImage.new("RGB", (4, 4))
    xmp = b'<x:xmpmeta hdrgm:Version="1.0"/>' if kind == "gain map" else XMP
    got = read_image(pillow(first, "MPO", save_all=True, append_images=[second], xmp=xmp))
    said = ["the further images in it (previews, a gain map, depth) are dropped"]
    if kind == "gain map":
        said.append("its HDR gain map is dropped, with the XMP that describes it")
    assert sorted(got.notes) == sorted(said)
    assert (got.xmp is None) == (kind == "gain map")


def test_resolutions_that_make_no_sense_are_none() -> None:
    image = PilImage.fromarray(samples((4, 6, 3)))
    assert read_image(pillow(image, "JPEG")).resolution is None
    assert read_image(pillow(image, "TIFF", dpi=(0, 0))).resolution is None
    centimeters = pillow(image, "TIFF", x_resolution=100.0, y_resolution=100.0, resolution_unit=3)
    assert read_image(centimeters).resolution == (254, 254, "inch")
    pixels_per_micron = {"x_resolution": 9.5, "y_resolution": 9.5, "resolution_unit": 1}
    got = read_image(pillow(image, "TIFF", **pixels_per_micron))
    assert got.resolution == (9.5, 9.5, "none")
    assert read_image(encode_image(got, "tiff")).resolution == (9.5, 9.5, "none")
