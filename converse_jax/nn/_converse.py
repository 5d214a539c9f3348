"""Converse2D as a Flax layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.nn._operator import Operator
from converse_jax.ops import InitialEstimate, Method, PaddingMode

Initializer = Callable[..., Array]


def softmax_normal(key: Array, shape: tuple[int, int, int], dtype: Any = jnp.float32) -> Array:
    """Kernels ``[kh, kw, C]``: standard normal taps through a softmax, so that each sums to 1.

    The paper's eq. 8. The softmax is applied once, here: trained kernels are free.
    """
    taps = jax.random.normal(key, shape, dtype)
    return jax.nn.softmax(taps.reshape(-1, shape[-1]), axis=0).reshape(shape)


def lam_from_logit(logit: Float[Array, "*C"], eps: float) -> Float[Array, "*C"]:
    """``lambda = sigmoid(b - 9) + eps``, the paper's eq. 9."""
    return jax.nn.sigmoid(logit - 9) + eps


class Converse2D(Operator):
    """Reverse convolution with a learned kernel and lambda for each channel.

    ``y = converse2d(x, kernel, lam)`` with ``lam = sigmoid(lam_logit - 9) + eps``.

    Parameters: `kernel` ``[kh, kw, C]``, `lam_logit` ``[C]``.

    Source: the paper's section 4. Its released code differs in one default: eps is 1e-3 in the
    up-sampling layers of Converse-SRResNet.
    """

    def __init__(
        self,
        num_features: int,
        kernel_size: int | tuple[int, int] = 5,
        *,
        scale: int = 1,
        padding: int | None = None,
        padding_mode: PaddingMode = "circular",
        eps: float = 1e-5,
        x0: InitialEstimate = "nearest",
        kernel_init: Initializer = softmax_normal,
        kernel_metadata: dict[str, Any] | None = None,
        lam_metadata: dict[str, Any] | None = None,
        method: Method = "auto",
        plain: bool = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the layer.

        Args:
          num_features: channels C.
          kernel_size: taps on each side, or ``(kh, kw)``.
          scale, padding_mode, x0, method, plain: as for `converse2d`.
          padding: pixels on each side; None means ``max(kh, kw) - 1``.
          eps: the smallest lambda, > 0.
          kernel_init: initializer of the kernel, ``(key, shape, dtype) -> array``.
          kernel_metadata, lam_metadata: of the `nnx.Param` of each, e.g. its sharding.
          dtype: type of the result; None takes the common type of input and parameters. The
            spectrum is computed in float32 (float64 for float64) in any case.
          param_dtype: type of the parameters.
          precision: accepted as by other layers, without effect: no product here may lose digits.
          rngs: random streams; `params` is drawn from.

        Raises:
          ValueError: an impossible size, padding or eps.
          TypeError: a `kernel_size` that is not a number or a pair of numbers.
        """
        kh, kw = _pair(kernel_size)
        if isinstance(padding, str):
            raise ValueError(
                f"padding: got {padding!r}; expected pixels, and the kind of border as "
                f"padding_mode={padding.lower()!r}"
            )
        if eps <= 0:
            raise ValueError(f"eps: got {eps}; expected > 0, as lambda may come that close to 0")
        super().__init__(method=method, plain=plain)
        self.num_features = num_features
        self.scale = scale
        self.padding = max(kh, kw) - 1 if padding is None else padding
        self.padding_mode = padding_mode
        self.eps = eps
        self.x0 = x0
        self.dtype = dtype
        kernel = kernel_init(rngs.params(), (kh, kw, num_features), param_dtype)
        self.kernel = nnx.Param(kernel, **(kernel_metadata or {}))
        self.lam_logit = nnx.Param(jnp.zeros(num_features, param_dtype), **(lam_metadata or {}))

    @property
    def lam(self) -> Float[Array, " C"]:
        """The regularization of each channel, ``sigmoid(lam_logit - 9) + eps``."""
        return lam_from_logit(self.lam_logit[...], self.eps)

    def __call__(self, x: Float[Array, "*batch H W C"]) -> Float[Array, "*batch sH sW C"]:
        """Apply the operator to maps ``[..., H, W, C]``; raises as `converse2d`."""
        kernel = self.kernel[...]
        x = x.astype(jnp.result_type(x, kernel) if self.dtype is None else self.dtype)
        return self.operate(
            x,
            kernel,
            self.lam,
            scale=self.scale,
            padding=self.padding,
            padding_mode=self.padding_mode,
            x0=self.x0,
        )


def _pair(kernel_size: Any) -> tuple[int, int]:
    pair = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"kernel_size: got {kernel_size!r}; expected k or (kh, kw)")
    if min(pair) < 1:
        raise ValueError(f"kernel_size: got {kernel_size}; expected at least 1")
    return pair[0], pair[1]
