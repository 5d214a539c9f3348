"""Networks in tiles: when, in which, and that nobody sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from converse_jax import _programs, _tiling
from converse_jax._tiling import Tiling, folder_tile, tile_sides
from converse_jax.imaging import Image, circular_blur, gaussian_kernel
from converse_jax.nn import Converse2D
from converse_jax.restore import RestoreError, Restorer, apply_to_image, checked_sides
from converse_jax.tiles import Beyond
from tests.test_restore import Deblur, Enlarge, Mix, card, image, told


class Cells(nnx.Module):
    """The mean of each cell of 2x2 pixels."""

    def __init__(self) -> None:
        self.gain = nnx.Param(jnp.float32(1))

    def __call__(self, x: Array) -> Array:
        *batch, height, width, channels = x.shape
        cells = x.reshape(*batch, height // 2, 2, width // 2, 2, channels)
        means = cells.mean((-4, -2), keepdims=True)
        return self.gain[...] * jnp.broadcast_to(means, cells.shape).reshape(x.shape)


def photograph(*shape: int) -> np.ndarray:
    """Something smooth with edges."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = np.sin(rows / 7) + np.cos((rows + 2 * columns) / 13) + (columns // 23 % 2)
    return np.asarray(0.5 + 0.15 * waves[..., None] * np.ones(shape[2]), np.float32)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(a - b, dtype=np.float64).mean()))


@pytest.mark.parametrize("shape", [(70, 83, 1), (9, 100, 3)])
def test_what_is_done_to_each_pixel_is_done_in_tiles(shape: tuple[int, ...]) -> None:
    x, tiles = image(*shape), {"tile": 32, "overlap": 8}
    larger = Restorer(Enlarge(2, gain=3), card("sr", shape[-1], 2))
    np.testing.assert_allclose(larger(x, **tiles), larger(x), rtol=1e-5)
    # A gray network on a color image, or a color one on a gray; a level; a blend.
    for channels in (1, 3):
        options = {"sigma": 0.2, "strength": 0.5, "self_ensemble": True}
        restorer = told(channels)
        np.testing.assert_allclose(
            restorer(x, **options, **tiles), restorer(x, **options), atol=1e-6
        )


def test_tiles_begin_with_a_cell_of_the_network() -> None:
    x = image(60, 82, 1)
    restorer = Restorer(Cells(), card(config={"downscale": 2}))
    np.testing.assert_allclose(restorer(x, tile=22, overlap=5), restorer(x, tile=0), atol=1e-6)
    # Were it not said, they would not.
    other = Restorer(Cells(), card())(x, tile=22, overlap=5)
    assert np.abs(other - restorer(x)).max() > 0.1


def test_the_ensemble_turns_each_tile_back() -> None:
    x = image(60, 82, 1)
    restorer = Restorer(Mix(), card())
    whole = restorer(x, self_ensemble=True)
    tiles = restorer(x, self_ensemble=True, tile=32, overlap=16)
    assert np.abs(tiles - whole)[1:-1, 1:-1].max() < 0.01
    assert np.abs(restorer(x) - whole)[1:-1, 1:-1].max() > 0.1


@pytest.mark.parametrize("extend_borders", [True, False])
def test_deblurred_in_tiles(extend_borders: bool) -> None:
    kernel = gaussian_kernel(7, 1.2)
    x = np.asarray(circular_blur(photograph(200, 250, 1), kernel), np.float32)
    restorer = Restorer(Deblur(lam=1e-3), card("deblur", 1, needs_kernel=True))
    options: dict[str, Any] = {"kernel": kernel, "extend_borders": extend_borders}
    whole = restorer(x, **options)
    tiles = restorer(x, **options, tile=96, overlap=48)
    assert tiles.shape == whole.shape and psnr(tiles, whole) > 60
    # Nothing is seen of the tiles where they meet either.
    assert np.abs(tiles - whole).max() < 0.01


class Layer(nnx.Module):
    """One reverse convolution, which pads in one way."""

    def __init__(self, padding_mode: Any) -> None:
        self.layer = Converse2D(1, 3, padding_mode=padding_mode, lam_init=0.05, rngs=nnx.Rngs(0))

    def __call__(self, x: Array) -> Array:
        return self.layer(x)


def test_what_tiles_see_beyond_the_image() -> None:
    def of(model: nnx.Module, task: str = "denoise") -> tuple[str, bool]:
        tiling = Tiling.of(model, card(task))
        return tiling.padding_mode, tiling.outside

    assert of(Deblur(), "deblur") == ("circular", True)
    assert of(Layer("replicate")) == ("replicate", False)
    assert of(Layer("circular")) == ("reflect", True)
    assert of(Mix()) == ("reflect", False)


def test_an_image_smaller_than_a_tile() -> None:
    x = photograph(45, 35, 1)
    restorer = Restorer(Layer("replicate"), card())
    whole = restorer(x, tile=0)
    errors = {}
    for mode in get_args(Beyond):
        restorer._tiling = Tiling(restorer.card, mode)
        errors[mode] = np.square(restorer(x, tile=64, overlap=16) - whole).mean()
    assert min(errors, key=lambda mode: errors[mode]) == "replicate"


def test_the_ends_of_an_image_are_not_mixed_up() -> None:
    # One end is dark and the other bright: as neighbors they ring.
    x = np.asarray(np.linspace(0, 1, 90)[:, None, None] * np.ones((1, 50, 1)), np.float32)
    restorer = Restorer(Layer("circular"), card())
    whole, tiles = restorer(x, tile=0), restorer(x, tile=128, overlap=16)
    np.testing.assert_allclose(tiles[16:-16, 16:-16], whole[16:-16, 16:-16], atol=3e-2)
    ends = np.r_[:4, -4:0]
    assert np.abs(tiles - x)[ends].max() < 0.5 * np.abs(whole - x)[ends].max()


def test_large_images_are_restored_in_tiles_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tiling, "WHOLE_PIXELS", 100 * 150)
    monkeypatch.setattr(_tiling, "TILE", 64)
    restorer = Restorer(Enlarge(), card(overlap=8))
    shapes = programs_built(monkeypatch, restorer)
    calls: list[tuple[int, int]] = []
    restorer(image(100, 150, 1), on_tile=lambda *call: calls.append(call))
    assert shapes == [(100, 150, 1)] and not calls
    restorer(image(101, 150, 1), on_tile=lambda *call: calls.append(call))
    assert shapes[1:] == [(64, 64, 1)]
    assert calls == [(n, 6) for n in range(7)]
    restorer(image(101, 150, 1), tile=0)
    assert shapes[2:] == [(101, 150, 1)]


def programs_built(monkeypatch: pytest.MonkeyPatch, restorer: Restorer) -> list[tuple[int, ...]]:
    """The shapes of images for which the network is compiled from now on."""
    shapes: list[tuple[int, ...]] = []
    prepared = restorer._programs._prepared

    def counted(x: Any, *others: Any) -> Any:
        shapes.append(x.shape)
        return prepared(x, *others)

    monkeypatch.setattr(restorer._programs, "_prepared", counted)
    return shapes


def test_an_image_that_does_not_fit_is_restored_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel = photograph(300, 600, 1), gaussian_kernel(7, 1.2)
    restorer = Restorer(Deblur(), card("deblur", needs_kernel=True, overlap=32))
    whole = restorer(x, kernel=kernel)
    restorer.free()
    shapes = programs_built(monkeypatch, restorer)
    monkeypatch.setattr(_programs, "available_memory", lambda: 2_000_000)
    tiles = restorer(x, kernel=kernel)
    assert psnr(tiles, whole) > 60
    side = shapes[-1][0]
    assert [shape[:2] for shape in shapes[1:]] == [(s, s) for s in (512, 256, 128) if s >= side]
    # Neither the image nor the tiles that did not fit are compiled again.
    built = len(shapes)
    np.testing.assert_array_equal(restorer(x, kernel=kernel), tiles)
    assert len(shapes) == built


def full_above(side: int) -> Callable[..., Any]:
    """A device whose memory is full with images of more than this side."""

    def program(state: Any, transfers: Any, x: np.ndarray, *_: Any) -> np.ndarray:
        if max(x.shape) > side:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return x

    return lambda *_: _programs._Program(program, None)


def test_tiles_are_halved_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    x, restorer = image(300, 400, 1), Restorer(Enlarge(), card(overlap=8))
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(restorer._programs, "_program", full_above(100))
    got = restorer(x, tile=256, on_tile=lambda *call: calls.append(call))
    np.testing.assert_allclose(got, x, atol=1e-6)
    # Tiles of 256 and 128 were tried before those of 64.
    assert calls == [(0, 4), (0, 12), *((n, 42) for n in range(43))]
    monkeypatch.setattr(restorer._programs, "_program", full_above(10))
    with pytest.raises(
        RestoreError, match=r"400x300 pixels .* \(in tiles of 64: the device's is full\); cut"
    ):
        restorer(x)


def test_transparency_is_restored_in_tiles_too() -> None:
    x = Image(image(70, 80, 1), alpha=image(70, 80))
    restorer = Restorer(Enlarge(2), card("sr", 1, 2))
    whole = apply_to_image(restorer, x, tile=0)
    got = apply_to_image(restorer, x, tile=32, overlap=8)
    assert got.alpha is not None and whole.alpha is not None
    np.testing.assert_allclose(got.alpha, whole.alpha, atol=1e-6)


@pytest.mark.parametrize(
    ("tile", "overlap", "text"),
    [
        (
            7,
            None,
            r"tile: got 7; expected at least 32 \(twice the overlap of 16\), a multiple of 2",
        ),
        (33, None, "tile: got 33; expected .* a multiple of 2"),
        (64, 40, r"tile: got 64; expected at least 80 \(twice the overlap of 40\)"),
        (None, -1, "overlap: got -1; expected at least 0"),
        (0, 8, r"overlap: whole images \(tile 0\) have none; leave it out"),
        (-64, 0, "tile: got -64; expected at least 1"),
    ],
)
def test_refused_tiles(tile: int | None, overlap: int | None, text: str) -> None:
    restorer = Restorer(Cells(), card(overlap=16, config={"downscale": 2}))
    with pytest.raises(RestoreError, match=text):
        restorer(image(8, 8, 1), tile=tile, overlap=overlap)
    with pytest.raises(RestoreError, match=text):
        checked_sides(restorer.card, tile, overlap)


def test_sides_to_try() -> None:
    small, large, huge = (100, 100), (300, 400), (4000, 3000)
    assert tile_sides(card(), huge, None, None) == [512, 256, 128]
    assert tile_sides(card(overlap=8), huge, None, None) == [512, 256, 128, 64]
    assert tile_sides(card(overlap=8), large, None, None) == [0, 256, 128, 64]
    assert tile_sides(card(), small, None, None) == [0]
    assert tile_sides(card(), small, 128, None) == [128]
    assert tile_sides(card(), huge, None, 300) == [600]
    cells = card(overlap=8, config={"downscale": 3})
    assert tile_sides(cells, huge, None, None) == [513, 255, 126]


def test_a_folder_of_many_sizes_has_one_tile() -> None:
    cells = card(overlap=8, config={"downscale": 3})
    sizes = [(100, 80), (80, 100), (90, 90)]
    assert folder_tile([card()], sizes[:2], None) is None
    assert folder_tile([card()], sizes, None) == 256
    assert folder_tile([card()], [*sizes, (193, 10)], None) == 512
    assert folder_tile([card(), cells], sizes, None) == 258
    assert folder_tile([card()], sizes, 300) == 600
