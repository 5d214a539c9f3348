"""The reverse convolution of maps, signals and volumes as Flax layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.nn._operator import Operator
from converse_jax.ops import InitialEstimate, Method, PaddingMode, converse1d, converse3d
from converse_jax.ops._checks import check_choice, integer

Initializer = Callable[..., Array]
KernelInit = Literal["softmax", "normal", "uniform"]


def softmax_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Kernels `[kh, kw, C]`: standard normal taps through a softmax, so that each sums to 1.

    The paper's eq. 8. The softmax is applied once, here: trained kernels are free.
    """
    taps = jax.random.normal(key, shape, dtype)
    return jax.nn.softmax(taps.reshape(-1, shape[-1]), axis=0).reshape(shape)


def kernel_initializer(name: KernelInit) -> Initializer:
    """An initializer of the paper's table 1, by name.

    "softmax" is `softmax_normal`, "normal" the standard normal distribution, "uniform" the uniform
    one on [0, 1); the paper does not say on which interval.

    Raises:
        ValueError: another name.
    """
    check_choice("kernel_init", name, KernelInit)
    initializers: dict[str, Initializer] = {
        "softmax": softmax_normal,
        "normal": nnx.initializers.normal(1.0),
        "uniform": nnx.initializers.uniform(1.0),
    }
    return initializers[name]


def lam_from_logit(logit: Float[Array | np.ndarray, "*C"], eps: float) -> Float[Array, "*C"]:
    """`lambda = sigmoid(b - 9) + eps`, the paper's eq. 9."""
    return jax.nn.sigmoid(logit - 9) + eps


class _Converse(Operator):
    """What the layers share, whatever the number of spatial axes."""

    methods: ClassVar[Any] = Method

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
        kernel_metadata: dict[str, Any] | None = None,
        lam_metadata: dict[str, Any] | None = None,
        method: Method = "auto",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Make the layer.

        Args:
            num_features: channels C.
            kernel_size: taps on each side, or on each spatial axis, e.g. `(kh, kw)`.
            scale, padding_mode, x0, method: as for `converse2d`; signals and volumes know the
                method "fft" alone.
            padding: pixels on each side; None means one less than the kernel's longest side.
            eps: the smallest lambda, > 0.
            kernel_init: initializer of the kernel, `(key, shape, dtype) -> array`.
            lam_init: the initial lambda; None is the paper's, `sigmoid(-9) + eps`.
            kernel_metadata, lam_metadata: of the `nnx.Param` of each, e.g. its sharding.
            dtype: type of the result; None takes the common type of input and parameters. The
                spectrum is computed in float32 (float64 for float64) in any case.
            param_dtype: type of the parameters.
            precision: accepted as by other layers, without effect: no product here may lose digits.
            rngs: random streams; `params` is drawn from.

        Raises:
            ValueError: an impossible size, padding, eps or initial lambda, or an unknown option.
            TypeError: a `kernel_size` that is not a number or one for each spatial axis.
        """
        shape = kernel_shape(kernel_size, self.spatial)
        if isinstance(padding, str):
            raise ValueError(
                f"padding: got {padding!r}; expected pixels, and the kind of border as "
                f"padding_mode={padding.lower()!r}"
            )
        check_choice("padding_mode", padding_mode, PaddingMode)
        check_choice("x0", x0, InitialEstimate)
        check_choice("method", method, self.methods)
        super().__init__(method=method)
        self.num_features = num_features
        self.scale = integer("scale", scale, 1)
        self.padding = max(shape) - 1 if padding is None else integer("padding", padding, 0)
        self.padding_mode = padding_mode
        self.eps = eps
        self.x0 = x0
        self.dtype = dtype
        kernel = kernel_init(rngs.params(), (*shape, num_features), param_dtype)
        self.kernel = nnx.Param(kernel, **(kernel_metadata or {}))
        logits = jnp.full(num_features, initial_logit(lam_init, eps), param_dtype)
        self.lam_logit = nnx.Param(logits, **(lam_metadata or {}))

    @property
    def lam(self) -> Float[Array, " C"]:
        """The regularization of each channel, `sigmoid(lam_logit - 9) + eps`."""
        return lam_from_logit(self.lam_logit[...], self.eps)

    def __call__(self, x: Float[Array, "*maps C"]) -> Float[Array, "*larger C"]:
        """Apply the operator to maps, channels last; raises as the operator does."""
        kernel, logit = self.kernel[...], self.lam_logit[...]
        x = x.astype(jnp.result_type(x, kernel) if self.dtype is None else self.dtype)
        return self.operate(
            x,
            kernel,
            lam_from_logit(logit, self.eps),
            scale=self.scale,
            padding=self.padding,
            padding_mode=self.padding_mode,
            x0=self.x0,
            source=(kernel, logit),
        )


class Converse2D(_Converse):
    """Reverse convolution with a learned kernel and lambda for each channel.

    `y = converse2d(x, kernel, lam)` with `lam = sigmoid(lam_logit - 9) + eps`, from maps
    `[..., H, W, C]` to `[..., sH, sW, C]`.

    Parameters: `kernel` `[kh, kw, C]`, `lam_logit` `[C]`.

    Source: the paper's section 4. Its released code differs in one default: eps is 1e-3 in the
    up-sampling layers of Converse-SRResNet.
    """

    spatial = 2


class _ByFFT(_Converse):
    methods = Literal["auto", "fft"]
    operator: ClassVar[Callable[..., Array]]

    def operate(self, x: Array, *args: Any, source: Any = None, **options: Any) -> Array:
        """The operator; nothing is prepared."""
        return self._sharded(lambda x: type(self).operator(x, *args, **options), x)


class Converse1D(_ByFFT):
    """`converse1d` with a learned kernel `[k, C]` and lambda `[C]`: see `Converse2D`."""

    spatial = 1
    operator = staticmethod(converse1d)


class Converse3D(_ByFFT):
    """`converse3d` with a learned kernel `[kd, kh, kw, C]` and lambda `[C]`: see `Converse2D`."""

    spatial = 3
    operator = staticmethod(converse3d)


def kernel_shape(kernel_size: Any, spatial: int) -> tuple[int, ...]:
    """Taps on each spatial axis, from one number or a tuple."""
    shape = (kernel_size,) * spatial if isinstance(kernel_size, int | np.integer) else kernel_size
    if not isinstance(shape, tuple | list) or len(shape) != spatial:
        expected = {1: "k or (k,)", 2: "k or (kh, kw)", 3: "k or (kd, kh, kw)"}[spatial]
        raise TypeError(f"kernel_size: got {kernel_size!r}; expected {expected}")
    if min(shape) < 1:
        raise ValueError(f"kernel_size: got {kernel_size}; expected at least 1")
    return tuple(map(int, shape))


def initial_logit(lam_init: float | None, eps: float) -> float:
    """The `lam_logit` of which `lam_from_logit` makes the initial lambda; None: the paper's, 0."""
    if eps <= 0:
        raise ValueError(f"eps: got {eps}; expected > 0, as lambda may come that close to 0")
    if lam_init is None:
        return 0.0
    if not eps < lam_init < 1 + eps:
        raise ValueError(f"lam_init: got {lam_init}; expected eps={eps} < lam_init < 1 + eps")
    return math.log((lam_init - eps) / (1 + eps - lam_init)) + 9
