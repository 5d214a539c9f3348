"""Flax NNX layers. Linen users: `nnx.bridge.to_linen(Converse2D, 64, name="converse")`."""

from converse_jax.nn._block import Block, ConvBlock, ConverseBlock, ConvTransposeBlock
from converse_jax.nn._converse import (
    Converse1D,
    Converse2D,
    Converse3D,
    KernelInit,
    kernel_initializer,
    lam_from_logit,
    softmax_normal,
)
from converse_jax.nn._depthwise import DepthwiseConv, DepthwiseConvTranspose
from converse_jax.nn._gelu import gelu
from converse_jax.nn._operator import Operator, TransferState, prepare, shard_spatially, use_method

__all__ = [
    "Block",
    "ConvBlock",
    "ConvTransposeBlock",
    "Converse1D",
    "Converse2D",
    "Converse3D",
    "ConverseBlock",
    "DepthwiseConv",
    "DepthwiseConvTranspose",
    "KernelInit",
    "Operator",
    "TransferState",
    "gelu",
    "kernel_initializer",
    "lam_from_logit",
    "prepare",
    "shard_spatially",
    "softmax_normal",
    "use_method",
]
