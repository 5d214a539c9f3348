"""Flax NNX layers. Linen users: ``nnx.bridge.to_linen(Converse2D, 64, name="converse")``."""

from converse_jax.nn._block import Block, ConverseBlock
from converse_jax.nn._converse import Converse2D, regularisation, softmax_normal
from converse_jax.nn._gelu import gelu
from converse_jax.nn._operate import operate, shard_maps
from converse_jax.nn._prepare import (
    PreparedModel,
    call_prepared,
    collect_transfers,
    prepare,
)

__all__ = [
    "Block",
    "Converse2D",
    "ConverseBlock",
    "PreparedModel",
    "call_prepared",
    "collect_transfers",
    "gelu",
    "operate",
    "prepare",
    "regularisation",
    "shard_maps",
    "softmax_normal",
]
