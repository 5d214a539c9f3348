"""The mathematics: pure functions of arrays, channels last, with any leading batch axes."""

from converse_jax.ops._blur import blur_downsample, blur_downsample_adjoint
from converse_jax.ops._converse import Transfer, apply_transfer, converse2d, converse2d_transfer
from converse_jax.ops._nd import converse1d, converse3d
from converse_jax.ops._options import InitialEstimate, Method, PaddingMode

__all__ = [
    "InitialEstimate",
    "Method",
    "PaddingMode",
    "Transfer",
    "apply_transfer",
    "blur_downsample",
    "blur_downsample_adjoint",
    "converse1d",
    "converse2d",
    "converse2d_transfer",
    "converse3d",
]
