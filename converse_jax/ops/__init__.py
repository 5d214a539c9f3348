"""The mathematics: pure functions of arrays, channels last, with any leading batch axes."""

from converse_jax.ops._blur import blur_downsample, blur_downsample_adjoint
from converse_jax.ops._converse import (
    InitialEstimate,
    Transfer,
    apply_transfer,
    converse2d,
    converse2d_transfer,
)
from converse_jax.ops._layout import after, sharded_materialised
from converse_jax.ops._method import compiled_for, is_direct, is_fused
from converse_jax.ops._pad import PaddingMode

__all__ = [
    "InitialEstimate",
    "PaddingMode",
    "Transfer",
    "after",
    "apply_transfer",
    "blur_downsample",
    "blur_downsample_adjoint",
    "compiled_for",
    "converse2d",
    "converse2d_transfer",
    "is_direct",
    "is_fused",
    "sharded_materialised",
]
