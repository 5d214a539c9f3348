"""Functions of images in overlapping tiles."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from converse_jax.tiles import check_tiles, in_tiles, measure_overlap, tile_starts


def image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 40, 3), (16, 16, 1), (17, 33, 3), (70, 41, 2)])
@pytest.mark.parametrize(("overlap", "align"), [(0, 1), (3, 1), (6, 2), (8, 4)])
@pytest.mark.parametrize("scale", [1, 3])
def test_blended_tiles_are_the_whole(
    shape: tuple[int, ...], overlap: int, align: int, scale: int
) -> None:
    x = image(*shape)
    seen: list[tuple[int, ...]] = []
    calls: list[tuple[int, int]] = []

    def fn(part: np.ndarray) -> np.ndarray:
        seen.append(part.shape)
        return part[..., :1].repeat(scale, 0).repeat(scale, 1)

    got = in_tiles(
        fn,
        x,
        tile=16,
        overlap=overlap,
        scale=scale,
        align=align,
        on_tile=lambda done, total: calls.append((done, total)),
    )
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, x[..., :1].repeat(scale, 0).repeat(scale, 1), atol=1e-6)
    assert set(seen) == {(16, 16, shape[-1])}
    assert calls == [(n, len(seen)) for n in range(len(seen) + 1)]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 24, 25, 33, 100, 101])
@pytest.mark.parametrize(("overlap", "align"), [(0, 1), (5, 1), (8, 1), (6, 2), (8, 4), (5, 4)])
@pytest.mark.parametrize("outside", [0, 3])
def test_tiles_cover_an_axis_with_their_overlap(
    length: int, overlap: int, align: int, outside: int
) -> None:
    starts = np.array(tile_starts(length, 16, overlap, align, outside=outside))
    assert (starts % align == 0).all()
    assert (16 - np.diff(starts) >= overlap).all()
    before, behind = -starts[0], starts[-1] + 16 - length
    assert min(before, behind) >= (outside if len(starts) > 1 else 0)
    if len(starts) > 1:  # none begins further outside than it must
        assert max(before, behind) < outside + align
    else:
        assert abs(before - behind) <= 2 * align
    assert len(starts) <= 1 + -(-max(length + 2 * outside - 16, 0) // (16 - overlap - align + 1))


def test_where_tiles_disagree_the_change_is_smooth() -> None:
    levels = iter(range(100))
    got = in_tiles(lambda x: 0 * x + next(levels), image(16, 28, 1), tile=16, overlap=4)[8, :, 0]
    np.testing.assert_array_equal(got[:12], 0)
    np.testing.assert_array_equal(got[16:], 1)
    np.testing.assert_allclose(got[12:16], np.sin(np.pi / 8 * (np.arange(4) + 0.5)) ** 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("padding_mode", "pad"), [("circular", "wrap"), ("replicate", "edge"), ("reflect", "reflect")]
)
def test_a_small_image_is_continued_on_all_sides(padding_mode: Any, pad: Any) -> None:
    want = np.pad(image(2, 3, 1), ((3, 3), (2, 3), (0, 0)), pad)

    def fn(part: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(part, want)
        return part

    in_tiles(fn, image(2, 3, 1), tile=8, overlap=2, padding_mode=padding_mode)


@pytest.mark.parametrize("height", [8, 50])  # one tile, several
def test_the_ends_of_a_periodic_image_are_neighbors(height: int) -> None:
    def fn(part: np.ndarray) -> np.ndarray:
        return np.roll(part, -2, 0) + np.roll(part, 2, 0)

    x = image(height, 41, 1)
    whole, ends = fn(x), np.r_[:2, -2:0]
    periodic = in_tiles(fn, x, tile=16, overlap=8, padding_mode="circular", outside=4)
    np.testing.assert_allclose(periodic[ends], whole[ends], atol=1e-6)
    flush = in_tiles(fn, x, tile=16, overlap=8)
    assert np.abs(flush[ends] - whole[ends]).max() > 0.1


def test_memory_does_not_grow_beyond_the_result() -> None:
    x = image(600, 700, 3)
    tracemalloc.start()
    in_tiles(lambda part: part, x, tile=32, overlap=8)
    assert tracemalloc.get_traced_memory()[1] < x.nbytes + 400_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("tile", "overlap", "align", "text"),
    [
        (0, 0, 1, "tile: got 0; expected at least 1"),
        (
            15,
            4,
            2,
            r"tile: got 15; expected at least 8 \(twice the overlap of 4\), a multiple of 2",
        ),
        (16, 9, 1, r"tile: got 16; expected at least 18 \(twice the overlap of 9\)"),
        (16, -1, 1, "overlap: got -1; expected at least 0"),
    ],
)
def test_refused_tiles(tile: int, overlap: int, align: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_tiles(tile, overlap, align)
    with pytest.raises(ValueError, match=text):
        in_tiles(lambda x: x, image(4, 4, 1), tile=tile, overlap=overlap, align=align)
    with pytest.raises(ValueError, match="padding_mode: got 'wrap'; expected circular, replicate"):
        in_tiles(lambda x: x, image(4, 4, 1), tile=4, overlap=0, padding_mode="wrap")


@pytest.mark.parametrize(("psnr", "want"), [(20, 8), (60, 16), (61, 24), (90, None)])
def test_the_smallest_overlap_that_agrees(psnr: float, want: int | None) -> None:
    asked = []

    def restore(x: np.ndarray, *, tile: int, overlap: int = 0, gain: float) -> np.ndarray:
        asked.append((tile, overlap))
        errors = {0: 0, 8: 1e-2, 16: 1e-3, 24: 1e-4, 32: 1e-4}
        result = gain * x + np.float64(errors[overlap])
        result[:16] *= 1 + overlap  # the borders are not compared
        return result

    x = image(40, 48, 1)
    overlaps = (8, 16, 24, 32)
    found = measure_overlap(restore, x, tile=4, psnr=psnr - 0.01, overlaps=overlaps, gain=2)
    assert found == want
    assert asked[0] == (0, 0) and {tile for tile, _ in asked[1:]} == {4}
