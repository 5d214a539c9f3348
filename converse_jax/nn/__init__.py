"""Flax NNX layers. Linen users: ``nnx.bridge.to_linen(Converse2D, 64, name="converse")``."""

from converse_jax.nn._block import Block, ConverseBlock
from converse_jax.nn._converse import Converse2D, regularisation, softmax_normal
from converse_jax.nn._gelu import gelu

__all__ = ["Block", "Converse2D", "ConverseBlock", "gelu", "regularisation", "softmax_normal"]
