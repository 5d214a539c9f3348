"""The bare limit: the time of the transforms and products that a row cannot do without.

Each is a jitted program of its own, timed alone, times the number of its occurrences.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Literal, NamedTuple

import jax.numpy as jnp

from benchmarks import ours
from benchmarks.measure import Program, median_ms, race
from benchmarks.suite import Operator, Row, Training

_FEATURES = 64


class Piece(NamedTuple):
    """`rfft2` or `irfft2` of real maps `(maps, height, width)`, `product` `(pixels, in, out)`."""

    kind: Literal["rfft2", "irfft2", "product"]
    shape: tuple[int, int, int]


def pieces(row: Row) -> Counter[Piece]:
    """What a row cannot do without.

    The operator: a transform of the map and an inverse one for each phase of the result; its
    gradient: a transform of the map and of each phase of the cotangent, and an inverse one.
    Networks: those of the blocks, of the layers that enlarge and of the data modules. Training
    takes each product three times, twice of these in the backward pass, each transform twice.
    """
    n = row.size
    if isinstance(row, Operator):
        phases = row.scale**2
        counts = (1 + phases, 1) if row.what == "gradient" else (1, phases)
        return _pair(row.batch * row.channels, row.padded, *counts)
    if isinstance(row, Training):
        forward = _block(n, n + 8, row.blocks, batch=row.batch)
        return Counter({p: m * (3 if p.kind == "product" else 2) for p, m in forward.items()})
    if row.network == "ConverseDnCNN":
        return _block(n, n + 8, row.blocks)
    if row.network == "ConverseUSRNet":
        blocks = _block(n, n + 4, row.blocks * row.iterations)
        return blocks + _pair(_FEATURES, n, row.iterations, row.iterations)
    found = _block(n, n + 8, row.blocks + 1)
    for side in (2 * n, 4 * n):
        found += _block(side, side + 8, 1) + _pair(_FEATURES, side // 2 + 4, 1, 4)
    return found


def _block(side: int, padded: int, count: int, *, batch: int = 1) -> Counter[Piece]:
    pixels, wide = batch * side * side, 2 * _FEATURES
    shapes = (pixels, _FEATURES, wide), (pixels, wide, _FEATURES)
    products = Counter({Piece("product", shape): 2 * count for shape in shapes})
    return products + _pair(wide * batch, padded, count, count)


def _pair(maps: int, side: int, forward: int, inverse: int) -> Counter[Piece]:
    shape = (maps, side, side)
    return Counter({Piece("rfft2", shape): forward, Piece("irfft2", shape): inverse})


def bare_ms(found: Counter[Piece], *, quick: bool = False) -> float:
    """Milliseconds that pieces take one after the other."""
    seconds = 0.2 if quick else 1.0
    total = 0.0
    for piece, count in found.items():
        program = _program(piece)
        program()
        total += count * median_ms(race({"": program}, seconds=seconds, max_rounds=20)[""])
    return total


def _program(piece: Piece) -> Program:
    if piece.kind == "product":
        args = jnp.ones(piece.shape[:2]), jnp.ones(piece.shape[1:])
        return ours.compiled(jnp.matmul, *args)[0]
    maps = jnp.ones(piece.shape)
    if piece.kind == "rfft2":
        return ours.compiled(jnp.fft.rfft2, maps)[0]
    # A half spectrum alone does not tell whether the result's width is even or odd.
    inverse = partial(jnp.fft.irfft2, s=piece.shape[1:])
    return ours.compiled(inverse, jnp.fft.rfft2(maps))[0]
