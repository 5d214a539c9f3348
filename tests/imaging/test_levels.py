"""Which value of a file is white."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from converse_jax.imaging import Image, ImageError, encode_image, read_image
from converse_jax.imaging._levels import white_level

from .images import samples


def tiff(array: np.ndarray, **options: object) -> bytes:
    return bytes(imagecodecs.tiff_encode(array, photometric="minisblack", **options))


def ramp(peak: float, dtype: type = np.uint16) -> np.ndarray:
    return np.linspace(0, peak, 24).reshape(4, 6).astype(dtype)


@pytest.mark.parametrize(
    ("peak", "white"),
    [(200, 255), (255, 255), (256, 1023), (1023, 1023), (3000, 4095), (4096, 16383), (16384, None)],
)
def test_the_depth_is_guessed_from_the_largest_value(peak: int, white: float | None) -> None:
    s = ramp(peak)
    got = read_image(tiff(s))
    assert got.bits == 16 and got.white == white
    np.testing.assert_allclose(got.pixels[..., 0], s / (white or 65535), rtol=1e-6)
    assert (white is None) == (got.notes == ())
    if white is not None:
        guess = f"values up to {peak} of 65535, so white is taken to be {white} (--white-level N)"
        assert got.notes == (guess,)
    # What is written has the values that were read.
    again = imagecodecs.tiff_decode(encode_image(got, "tiff"))
    np.testing.assert_array_equal(again, s)
    np.testing.assert_array_equal(imagecodecs.png_decode(encode_image(got, "png")), s)


def test_the_files_own_white_is_taken_unless_it_cannot_be() -> None:
    image = Image(np.full((2, 2, 1), 0.25, np.float32), bits=16, white=4095)
    got = read_image(encode_image(image, "tiff"))  # the values alone would be taken for 10 bits
    assert got.white == 4095 and got.notes == ("white is 4095, as the file says",)
    np.testing.assert_allclose(got.pixels, 0.25, atol=1e-4)
    too_small = white_level(np.array([5000], np.uint16), 16, tagged=4095)
    assert too_small[0] == 16383


def test_the_users_white_comes_first() -> None:
    got = read_image(tiff(ramp(3000)), white_level=3000)
    assert got.white == 3000 and got.pixels.max() == 1 and got.notes == ()
    assert read_image(tiff(ramp(100, np.uint8)), white_level=100).pixels.max() == 1
    with pytest.raises(ImageError, match="white_level: got 2000, but it has values up to 3000"):
        read_image(tiff(ramp(3000)), white_level=2000)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ImageError, match="white_level: got .*; expected a positive number"):
            read_image(tiff(ramp(3000)), white_level=wrong)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_samples(bits: int) -> None:
    s = samples((5, 8), 16) >> (16 - bits)
    got = read_image(packed(s, bits))
    assert got.white == 2**bits - 1 and got.bits == 16
    np.testing.assert_allclose(got.pixels[..., 0], s / (2**bits - 1), rtol=1e-6)
    assert got.notes == (f"{bits} bits a sample: written with values up to {2**bits - 1} in 16",)


def packed(s: np.ndarray, bits: int) -> bytes:
    """A TIFF of one strip whose rows are packed bits."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    strip = b"".join(
        np.packbits([int(c) for v in row for c in f"{v:0{bits}b}"]).tobytes() for row in s
    )
    tags = ImageFileDirectory_v2()
    values = {256: s.shape[1], 257: s.shape[0], 258: (bits,), 259: 1, 262: 1, 277: 1}
    for tag, value in (values | {278: s.shape[0], 279: len(strip), 273: 0}).items():
        tags[tag] = value
    return b"II*\0\x08\0\0\0" + tags.tobytes(8) + strip


@pytest.mark.parametrize(
    ("peak", "white"), [(1.0, None), (1.8, None), (200.0, 255), (4000.0, 4095), (9e4, 9e4)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_floats(peak: float, white: float | None, dtype: type) -> None:
    if dtype is np.float16 and peak > 65504:
        pytest.skip("beyond float16")
    s = ramp(peak, dtype)
    got = read_image(tiff(s))
    assert got.bits == 32 and got.white == white
    np.testing.assert_allclose(got.pixels[..., 0], s.astype(np.float64) / (white or 1), rtol=1e-6)
    again = imagecodecs.tiff_decode(encode_image(got, "tiff"))
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, s, rtol=1e-6)


def test_floats_outside_the_unit_are_kept_and_said() -> None:
    s = np.array([[-0.5, 0.5], [1.0, 1.9]], np.float32)
    got = read_image(tiff(s))
    np.testing.assert_array_equal(got.pixels[..., 0], s)
    assert got.notes == ("values from -0.5 to 1.9, where the networks know 0 to 1",)
    np.testing.assert_array_equal(imagecodecs.tiff_decode(encode_image(got, "tiff")), s)
    with pytest.raises(ImageError, match="PNG holds 16 bits, and the image has floats; write TIFF"):
        encode_image(got, "png")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_none_are_refused(value: float) -> None:
    s = ramp(1, np.float32)
    s[1, 2] = value
    with pytest.raises(ImageError, match="holds 1 samples that are NaN or infinite; give them"):
        read_image(tiff(s))


def test_alpha_shows_that_the_numbers_are_filled() -> None:
    s = np.stack([ramp(3000), np.full((4, 6), 65535, np.uint16)], axis=-1)
    got = read_image(bytes(imagecodecs.png_encode(s)))
    assert got.white is None and got.notes == ()
    np.testing.assert_array_equal(got.alpha, 1)
    scaled = read_image(bytes(imagecodecs.png_encode(s)), white_level=4095)
    np.testing.assert_allclose(scaled.pixels[..., 0], s[..., 0] / 4095, rtol=1e-6)
    again = read_image(encode_image(scaled, "tiff"))
    np.testing.assert_allclose(again.pixels, scaled.pixels, atol=1e-4)
    np.testing.assert_array_equal(again.alpha, 1)
