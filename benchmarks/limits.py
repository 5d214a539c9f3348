"""The bare limit: how long the transforms and products take that a network is made of.

Each piece is a jitted program of its own, timed alone, and counted as often as it occurs. The
transforms are real FFTs of the padded maps: a program that evaluates the operator in a cheaper way
(as matrix products, or with no transform) may take less than this.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

from benchmarks.suite import Inference, Operator, Training
from benchmarks.timing import Program, time_alone

_FEATURES = 64


class Piece(NamedTuple):
    """`rfft2` or `irfft2` of real maps `(maps, height, width)`, `product` `(pixels, in, out)`."""

    kind: Literal["rfft2", "irfft2", "product"]
    shape: tuple[int, int, int]


Pieces = Mapping[Piece, int]


def operator_pieces(row: Operator) -> Pieces:
    """One transform of the map, and one inverse transform of each phase of the result.

    For the gradient: of the map, of each phase of the cotangent, and one inverse; its result itself
    is not asked for.
    """
    maps = (row.batch * row.channels, row.padded, row.padded)
    phases = row.scale**2
    if row.what == "gradient":
        return {Piece("rfft2", maps): 1 + phases, Piece("irfft2", maps): 1}
    return {Piece("rfft2", maps): 1, Piece("irfft2", maps): phases}


def inference_pieces(row: Inference) -> Pieces:
    """Those of the blocks, of the layers that enlarge and of the data modules."""
    pieces: Counter[Piece] = Counter()
    n = row.size
    if row.network == "ConverseDnCNN":
        pieces += _block(n, n + 8, row.blocks)
    elif row.network == "ConverseSRResNet":
        pieces += _block(n, n + 8, row.blocks + 1)
        for side in (2 * n, 4 * n):
            pieces += _block(side, side + 8, 1)
            maps = (_FEATURES, side // 2 + 4, side // 2 + 4)
            pieces += Counter({Piece("rfft2", maps): 1, Piece("irfft2", maps): 4})
    else:
        pieces += _block(n, n + 4, row.blocks * row.iterations)
        maps = (_FEATURES, n, n)
        pieces += Counter(
            {Piece("rfft2", maps): row.iterations, Piece("irfft2", maps): row.iterations}
        )
    return pieces


def training_pieces(row: Training) -> Pieces:
    """Of every product three, two of them in the backward pass; of every transform two."""
    forward = _block(row.size, row.size + 8, row.blocks, batch=row.batch)
    return {p: n * (3 if p.kind == "product" else 2) for p, n in forward.items()}


def _block(side: int, padded: int, count: int, *, batch: int = 1) -> Counter[Piece]:
    maps = (2 * _FEATURES * batch, padded, padded)
    pixels = batch * side * side
    return Counter(
        {
            Piece("rfft2", maps): count,
            Piece("irfft2", maps): count,
            Piece("product", (pixels, _FEATURES, 2 * _FEATURES)): 2 * count,
            Piece("product", (pixels, 2 * _FEATURES, _FEATURES)): 2 * count,
        }
    )


def bare_ms(pieces: Pieces, *, quick: bool = False) -> float:
    """Milliseconds that the pieces take one after the other."""
    seconds = 0.2 if quick else 1.0
    return sum(n * time_alone(_program(piece), seconds=seconds) for piece, n in pieces.items())


@functools.cache
def copy_mb_per_ms() -> float:
    """Bandwidth of memory: 64 MB are read, 1 is added, and they are written in their place.

    Not to fresh memory: on a CPU its page faults would be half of the time.
    """
    import jax
    import jax.numpy as jnp

    x = jnp.zeros(2**24, jnp.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy() -> None:
        nonlocal x
        x = jax.block_until_ready(add(x))

    return 2 * x.nbytes / 1e6 / time_alone(copy)


def moved_mb(row: Operator) -> float:
    """MB that must be read and written: map and result; for the gradient the cotangent as well."""
    maps = row.batch * row.channels * row.size**2 * 4 / 1e6
    enlarged = maps * row.scale**2
    return maps + enlarged + (maps if row.what == "gradient" else 0)


def _program(piece: Piece) -> Program:
    import jax
    import jax.numpy as jnp

    key = jax.random.key(0)
    x = jax.random.normal(key, piece.shape[:2] if piece.kind == "product" else piece.shape)
    if piece.kind == "rfft2":
        rfft2 = jax.jit(jnp.fft.rfft2)
        return lambda: jax.block_until_ready(rfft2(x))
    if piece.kind == "irfft2":
        # The result's width, as of a half spectrum it could be one of two.
        irfft2 = jax.jit(lambda y: jnp.fft.irfft2(y, piece.shape[1:]))
        y = jax.block_until_ready(jnp.fft.rfft2(x))
        return lambda: jax.block_until_ready(irfft2(y))
    product = jax.jit(jnp.matmul)
    w = jax.random.normal(key, piece.shape[1:])
    return lambda: jax.block_until_ready(product(x, w))
