"""When a network restores an image in tiles, and in which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from flax import nnx

from converse_jax._borders import extend_periodically
from converse_jax._programs import check_memory
from converse_jax.tiles import Beyond, check_tiles, in_tiles
from converse_jax.weights import ModelCard

TILE = 512
"""Side of the tiles in pixels. At equal overlap larger ones agree better with the whole image."""

SMALL_TILE = 256
"""The same for a folder whose images all fit into one."""

LEAST_TILE = 64
"""Where memory runs out, tiles are halved down to this side, or twice the overlap."""

WHOLE_PIXELS = 2**22
"""Images with more pixels are restored in tiles even if they would fit into memory."""

OVERLAP = 64
"""Pixels that neighboring tiles share if the card does not say (`measure_overlap`)."""

# A folder of more sizes goes through tiles of one size. Two are a camera held upright and not.
_WHOLE_SIZES = 2

# The outermost part of a deblurring network's overlap, on each side of a tile, becomes a smooth
# continuation. The rings around an edge where a tile meets its own other end reach much farther
# than what is lost: with an overlap of 64 pixels and tiles of 256, 39 dB against the whole image
# become about 57, and with 96 pixels 46 become 61.
_CONTINUED_PART = 6


def tile_sides(
    card: ModelCard, size: Sequence[int], tile: int | None, overlap: int | None
) -> list[int]:
    """Sides of the tiles to try on an image of `(height, width)`, in order; 0 is the whole image.

    Raises:
        ValueError: a tile or an overlap that the network cannot use.
    """
    if tile == 0:
        if overlap is not None:
            raise ValueError("overlap: whole images (tile 0) have none; leave it out")
        return [0]
    align, shared = align_of(card), overlap_of(card, overlap)
    side = _side(card, TILE, overlap) if tile is None else tile
    check_tiles(side, shared, align)
    sides = [side]
    while (side := side // 2 // align * align) >= max(LEAST_TILE, 2 * shared):
        sides.append(side)
    if tile is None and size[0] * size[1] <= WHOLE_PIXELS:
        return [0, *(side for side in sides if side < max(size))]
    return sides


def folder_tile(
    cards: Sequence[ModelCard], sizes: Collection[Sequence[int]], overlap: int | None
) -> int | None:
    """One side of the tiles for images of so many sizes that each would be compiled, or None.

    Args:
        cards: of the networks.
        sizes: of the images, different ones.
        overlap: as given.
    """
    if len(sizes) <= _WHOLE_SIZES:
        return None
    least = SMALL_TILE if max(map(max, sizes)) <= SMALL_TILE - OVERLAP else TILE
    return max(_side(card, least, overlap) for card in cards)


def overlap_of(card: ModelCard, overlap: int | None = None) -> int:
    """The overlap of a network's tiles: as given, as its card says, or the default."""
    if overlap is None:
        overlap = card.overlap
    return OVERLAP if overlap is None else overlap


@dataclass(frozen=True)
class Tiling:
    """How a network's tiles lie.

    Attributes:
        card: its card.
        padding_mode: what tiles see beyond an image.
        outside: whether they begin outside of it.
    """

    card: ModelCard
    padding_mode: Beyond = "reflect"
    outside: bool = False

    @classmethod
    def of(cls, model: nnx.Module, card: ModelCard) -> Tiling:
        """The tiling of a network, whose layers say how they pad.

        For deblurring an image is periodic, or has been made so. Other networks that treat it as
        periodic mix up its ends: outside of it tiles see its reflection, which restores the pixels
        at its borders better than they are in the whole image.
        """
        if card.task == "deblur":
            return cls(card, "circular", outside=True)
        modes = {getattr(layer, "padding_mode", None) for _, layer in nnx.iter_modules(model)}
        if "replicate" in modes:
            return cls(card, "replicate")
        return cls(card, outside="circular" in modes)

    def __call__(
        self,
        restore: Callable[[np.ndarray], np.ndarray],
        image: np.ndarray,
        *,
        side: int,
        overlap: int | None,
        kernel: np.ndarray | None,
        on_tile: Callable[[int, int], None] | None,
    ) -> np.ndarray:
        """Restore an image in tiles; of those of a deblurring network the borders are extended.

        Raises:
            MemoryError: the result or a tile needs more than is available.
        """
        check_memory(4 * self.card.scale**2 * image.size)
        align, overlap = align_of(self.card), overlap_of(self.card, overlap)
        lost = 0
        if self.card.task == "deblur":
            lost = overlap // _CONTINUED_PART // align * align

        def restore_tile(tile: np.ndarray) -> np.ndarray:
            if lost == 0:
                return restore(tile)
            restored = restore(
                extend_periodically(tile, ((lost, lost), (lost, lost)), kernel=kernel)
            )
            cut = slice(self.card.scale * lost, -self.card.scale * lost)
            return restored[cut, cut]

        return in_tiles(
            restore_tile,
            image,
            tile=side - 2 * lost,
            overlap=overlap - 2 * lost,
            scale=self.card.scale,
            align=align,
            padding_mode=self.padding_mode,
            outside=-(-overlap // 2) - lost if self.outside else 0,
            on_tile=on_tile,
        )


def _side(card: ModelCard, least: int, overlap: int | None) -> int:
    """The smallest side of at least so many pixels that the network can use."""
    align = align_of(card)
    return align * -(-max(least, 2 * overlap_of(card, overlap)) // align)


def align_of(card: ModelCard) -> int:
    """Side of the cells of pixels that the network sees as one: tiles begin with a cell."""
    return int(card.config.get("downscale", 1))
