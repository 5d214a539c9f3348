"""The bare limit: how long the transforms and products take that a network is made of.

Each piece is a jitted program of its own, timed alone, and counted as often as it occurs.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.suite import Operator, Row, Training
from benchmarks.timing import Program, time_alone

_FEATURES = 64


class Piece(NamedTuple):
    """`rfft2` or `irfft2` of real maps `(maps, height, width)`, `product` `(pixels, in, out)`."""

    kind: Literal["rfft2", "irfft2", "product"]
    shape: tuple[int, int, int]


def pieces(row: Row) -> Counter[Piece]:
    """What a row cannot do without.

    The operator: a transform of the map, and an inverse one of each phase of the result; for the
    gradient one of the map, one of each phase of the cotangent, and one inverse. Networks: those of
    the blocks, of the layers that enlarge and of the data modules.
    Training: three of every product, two of them in the backward pass, and two of every transform.
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
    widen = Piece("product", (batch * side * side, _FEATURES, 2 * _FEATURES))
    narrow = Piece("product", (batch * side * side, 2 * _FEATURES, _FEATURES))
    products = Counter({widen: 2 * count, narrow: 2 * count})
    return products + _pair(2 * _FEATURES * batch, padded, count, count)


def _pair(maps: int, side: int, forward: int, inverse: int) -> Counter[Piece]:
    shape = (maps, side, side)
    return Counter({Piece("rfft2", shape): forward, Piece("irfft2", shape): inverse})


def bare_ms(found: Counter[Piece], *, quick: bool = False) -> float:
    """Milliseconds that pieces take one after the other."""
    seconds = 0.2 if quick else 1.0
    return sum(n * time_alone(_program(piece), seconds=seconds) for piece, n in found.items())


def _program(piece: Piece) -> Program:
    args = [jnp.ones(piece.shape)]
    function: Any = jnp.fft.rfft2
    if piece.kind == "irfft2":
        # The result's width, as of a half spectrum it could be one of two.
        args = [jnp.fft.rfft2(args[0])]
        function = partial(jnp.fft.irfft2, s=piece.shape[1:])
    elif piece.kind == "product":
        function, args = jnp.matmul, [jnp.ones(piece.shape[:2]), jnp.ones(piece.shape[1:])]
    jitted = jax.jit(function)
    return lambda: jax.block_until_ready(jitted(*args))
