"""The reverse convolution of signals and volumes as Flax layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.nn._converse import (
    Initializer,
    initial_logit,
    kernel_shape,
    lam_from_logit,
    softmax_normal,
)
from converse_jax.ops import InitialEstimate, PaddingMode, converse1d, converse3d
from converse_jax.ops._checks import check_choice, integer


class _ConverseND(nnx.Module):
    spatial: ClassVar[int]
    operator: ClassVar[Callable[..., Array]]

    def __init__(
        self,
        num_features: int,
        kernel_size: int | tuple[int, ...] = 5,
        *,
        scale: int = 1,
        padding: int | None = None,
        padding_mode: PaddingMode = "circular",
        eps: float = 1e-5,
        x0: InitialEstimate = "nearest",
        kernel_init: Initializer = softmax_normal,
        lam_init: float | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the layer; arguments as for `Converse2D`, `kernel_size` for each spatial axis."""
        shape = kernel_shape(kernel_size, self.spatial)
        check_choice("padding_mode", padding_mode, PaddingMode)
        check_choice("x0", x0, InitialEstimate)
        self.num_features = num_features
        self.scale = integer("scale", scale, 1)
        self.padding = max(shape) - 1 if padding is None else integer("padding", padding, 0)
        self.padding_mode = padding_mode
        self.eps = eps
        self.x0 = x0
        self.dtype = dtype
        kernel = kernel_init(rngs.params(), (*shape, num_features), param_dtype)
        self.kernel = nnx.Param(kernel)
        logit = initial_logit(lam_init, eps)
        self.lam_logit = nnx.Param(jnp.full(num_features, logit, param_dtype))

    @property
    def lam(self) -> Float[Array, " C"]:
        """The regularization of each channel, `sigmoid(lam_logit - 9) + eps`."""
        return lam_from_logit(self.lam_logit[...], self.eps)

    def __call__(self, x: Array) -> Array:
        """Apply the operator to maps, channels last; raises as the operator does."""
        kernel = self.kernel[...]
        x = x.astype(jnp.result_type(x, kernel) if self.dtype is None else self.dtype)
        return type(self).operator(
            x,
            kernel,
            self.lam,
            scale=self.scale,
            padding=self.padding,
            padding_mode=self.padding_mode,
            x0=self.x0,
        )


class Converse1D(_ConverseND):
    """`converse1d` with a learned kernel `[k, C]` and lambda `[C]`: see `Converse2D`."""

    spatial = 1
    operator = staticmethod(converse1d)


class Converse3D(_ConverseND):
    """`converse3d` with a learned kernel `[kd, kh, kw, C]` and lambda `[C]`."""

    spatial = 3
    operator = staticmethod(converse3d)
