"""Files of several images: pages, stacks, reduced copies, raw files."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile

from converse_jax.imaging import ImageError, encode_pages, read_image, read_pages

from .images import samples

STACK = samples((3, 8, 10))


def written(array: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def one_directory(array: np.ndarray, **options: object) -> bytes:
    """A stack of which only the first page has a directory, as for more than 4 GiB."""
    data = bytearray(written(array, truncate=True, **options))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == 1
    return bytes(data)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["pages", "shaped", "imagej", "imagej pages"])
def test_every_image_of_a_stack(kind: str, order: str, dtype: type) -> None:
    stack = samples((3, 8, 10), 16).astype(dtype)
    options = {"byteorder": order, "photometric": "minisblack"}
    if kind == "pages":
        data = written(stack, metadata=None, **options)
    else:
        make = written if kind == "imagej pages" else one_directory
        data = make(stack, imagej="imagej" in kind, **options)
    pages = read_pages(data, white_level=65535)
    assert len(pages) == 3
    for page, want in zip(pages, stack, strict=True):
        np.testing.assert_allclose(page.pixels[..., 0], want / 65535, rtol=1e-6)
    with pytest.raises(ImageError, match="holds 3 images .* export each as a file"):
        read_image(data)


def test_pages_are_read_when_asked_for() -> None:
    pages = read_pages(written(STACK, photometric="minisblack", compression="deflate"))
    np.testing.assert_allclose(pages[-1].pixels[..., 0], STACK[2] / 255, rtol=1e-6)
    assert len(pages[1:]) == 2
    np.testing.assert_allclose(pages[1:][0].pixels[..., 0], STACK[1] / 255, rtol=1e-6)
    with pytest.raises(IndexError):
        pages[3]


@pytest.mark.parametrize("imagej", [True, False])
def test_what_is_written_is_a_stack_for_other_programs(imagej: bool) -> None:
    stack = samples((3, 8, 11), 16)
    pages = read_pages(one_directory(stack, imagej=imagej, photometric="minisblack"))
    data = encode_pages(iter(pages), "tiff")
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), stack)
    for number, want in enumerate(stack):
        np.testing.assert_array_equal(imagecodecs.tiff_decode(data, index=number), want)
    again = read_pages(data)
    assert len(again) == 3
    np.testing.assert_array_equal(again[1].pixels, pages[1].pixels)


def test_pages_of_other_sizes_and_kinds() -> None:
    out = io.BytesIO()
    color = samples((5, 6, 3))
    with tifffile.TiffWriter(out) as file:
        file.write(STACK[0], photometric="minisblack", metadata=None)
        file.write(color, photometric="rgb", metadata=None)
    gray, rgb = read_pages(out.getvalue())
    assert gray.pixels.shape == (8, 10, 1)
    np.testing.assert_allclose(rgb.pixels, color / 255, rtol=1e-6)


def test_a_stack_in_another_layout_is_refused_by_name() -> None:
    data = one_directory(STACK, imagej=True, photometric="minisblack")
    with pytest.raises(ImageError, match="says that it holds 3 images .* export them as pages"):
        read_pages(data[: len(data) - 100])


def test_reduced_copies_and_masks_are_left_out_and_said() -> None:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(STACK[0], photometric="minisblack", metadata=None, subifds=1)
        file.write(STACK[0, ::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
        file.write(STACK[0, ::4, ::4], photometric="minisblack", subfiletype=1, metadata=None)
        file.write(STACK[1], photometric="minisblack", subfiletype=1, metadata=None)
    data = bytearray(out.getvalue())
    kind = struct.pack("<HHII", 254, 4, 1, 1)
    struct.pack_into("<I", data, data.rindex(kind) + 8, 4)  # a mask
    image = read_image(bytes(data))
    np.testing.assert_allclose(image.pixels[..., 0], STACK[0] / 255, rtol=1e-6)
    assert image.notes == (
        "2 reduced or further images (thumbnails, levels of a pyramid) in it are left out",
        "1 transparency masks in it are left out",
    )


@pytest.mark.parametrize("raw", [True, False])
def test_the_thumbnail_of_a_raw_file_is_not_taken_for_it(raw: bool) -> None:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(STACK[0], photometric="minisblack", subfiletype=1, metadata=None, subifds=1)
        kind = "cfa" if raw else "minisblack"
        cfa = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, bytes([0, 1, 1, 2]), True)]
        file.write(STACK[1], photometric=kind, metadata=None, extratags=cfa if raw else ())
    text = "a camera's raw file.*export a 16-bit TIFF" if raw else "begins with a thumbnail"
    with pytest.raises(ImageError, match=text):
        read_pages(out.getvalue())


@pytest.mark.parametrize(
    ("head", "name", "text"),
    [
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(50), "a.tif", "raw file.*export a 16-bit TIFF"),
        (b"II*\0\x08\0\0\0" + bytes(50), "a.NEF", "raw file"),
        (b"FUJIFILMCCD-RAW 0201", "a.raf", "raw file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a.cr3", "raw file"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.jpg", "HEIC.*export a PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a.heic", "HEIC"),
        (b"SIMPLE  =                    T", "a.fits", "FITS.*TIFF of floats"),
        (b"8BPS\0\1", "a.psd", "Photoshop"),
        (b"v/1\x01\x02\0\0\0", "a.exr", "OpenEXR"),
    ],
)
def test_known_kinds_that_are_not_read_are_named(head: bytes, name: str, text: str) -> None:
    file = io.BytesIO(head)
    file.name = name
    with pytest.raises(ImageError, match=f"{name}: is an? .*{text}"):
        read_image(file)


def test_a_loop_of_directories_ends() -> None:
    data = bytearray(written(STACK, photometric="minisblack", metadata=None))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    with pytest.raises(ImageError, match="its directories form a loop"):
        read_pages(bytes(data))


@pytest.mark.parametrize(("compression", "name"), [(34712, "JPEG 2000"), (50002, "JPEG XL")])
def test_compressions_that_are_not_read_are_named(compression: int, name: str) -> None:
    data = bytearray(written(STACK[0], photometric="minisblack", metadata=None))
    place = data.index(struct.pack("<HHI", 259, 3, 1))
    struct.pack_into("<H", data, place + 8, compression)
    with pytest.raises(ImageError, match=f"compressed by {name}, which is not read; export it"):
        read_image(bytes(data))


def test_ome_xml_is_dropped_and_said() -> None:
    data = written(STACK, photometric="minisblack", ome=True, metadata={"axes": "ZYX"})
    pages = read_pages(data)
    assert len(pages) == 3 and pages.notes == ("its OME-XML is dropped",)
    assert b"<OME" not in encode_pages(iter(pages), "tiff")


def test_several_images_go_to_a_tiff_only() -> None:
    pages = read_pages(written(STACK, photometric="minisblack"))
    with pytest.raises(ImageError, match="format: PNG holds one image; write TIFF"):
        encode_pages(iter(pages), "png")
    for format in ("png", "tiff"):
        with pytest.raises(ImageError, match="images: got none"):
            encode_pages([], format)
