"""The exact evaluations of the operator, and which of them is the fastest where."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jaxtyping import Array

from converse_jax.ops import _dft, _direct, _fft
from converse_jax.ops._checks import check_choice, compute_dtype
from converse_jax.ops._function import Function
from converse_jax.ops._memory import depends_on, row_major
from converse_jax.ops._options import Maps, Method, Options

METHODS: dict[str, ModuleType] = {"fft": _fft, "dft": _dft, "direct": _direct}
"""Each has `TRANSFER`, `transfer(kernel, lam, shape, options)` and `apply(x, filters, options, x0)`
for groups of maps: the operator is `apply o transfer`."""

KERNEL = ("m a b c", "m c")
"""Labels (see `Function`) of kernel and lambda."""


class _Limits(NamedTuple):
    """Up to how many pixels on the longer padded side the products are taken.

    Attributes:
        smooth: where no prime factor of a side is larger than `factor`.
        rough: where one is.
        factor: what FFTs of this backend take in their stride.
    """

    smooth: int
    rough: int
    factor: int = 11


# The products grow with the third power of the side, the transforms with little more than the
# second, and with the largest prime factor of the side (`python -m benchmarks.methods`).
_LIMITS = {
    "cpu": _Limits(448, 720),  # two cores
    # One H100: at 72 pixels a training step is equal; from 104 (8 * 13) to 200 the gradient takes
    # 16 to 21 % less time by FFT. Large factors were not measured.
    "gpu": _Limits(95, 256, factor=17),
    # Not measured, but several TPUs gather the whole batch for an FFT, and not for a product.
    "tpu": _Limits(2048, 2048),
}
_LIMITS_ELSEWHERE = _Limits(256, 256)  # a guess


def choose_method(method: str, kernel: tuple[int, ...], padded: tuple[int, ...], scale: int) -> str:
    """Resolve "auto" for the default device and a kernel of `(kh, kw)`, or check the method.

    Raises:
        ValueError: an unknown method, or "direct" where it does not hold.
    """
    check_choice("method", method, Method)
    small = max(kernel) <= scale
    if method == "direct" and not small:
        raise ValueError(
            f"method: got 'direct' for a kernel of {kernel[0]}x{kernel[1]}; expected a kernel of "
            f"at most scale={scale} taps on each side, or method='auto'"
        )
    if method != "auto":
        return method
    if small:
        return "direct"
    if any(map(is_symbolic_dim, padded)):  # of which XLA takes no FFT
        return "dft"
    limits = _LIMITS.get(jax.default_backend(), _LIMITS_ELSEWHERE)
    smooth = all(_has_no_factor_above(limits.factor, size) for size in padded)
    return "dft" if max(padded) <= (limits.smooth if smooth else limits.rough) else "fft"


def _has_no_factor_above(largest: int, size: int) -> bool:
    for factor in range(2, largest + 1):
        while size % factor == 0:
            size //= factor
    return size == 1


@functools.cache
def solve(method: str, options: Options) -> Function:
    """The operator on groups of maps, from kernel and lambda."""
    module = METHODS[method]
    if module is _dft and options.x0 != "array":
        return _dft.Solver(options)  # with residuals of its own

    def fn(maps: Maps, kernel: Array, lam: Array) -> Array:
        x, *_ = jax.tree.leaves(maps)
        dtype = compute_dtype(x)
        kernel, lam = kernel.astype(dtype), lam.astype(dtype)
        if module is not _direct:  # filters as large as maps
            kernel = depends_on(kernel, x)
        filters = module.transfer(kernel, lam, options.padded(*x.shape[2:4]), options)
        if module is _dft:  # else computed again for each example
            filters = tuple(map(row_major, filters))
        return _apply(module, maps, filters, options, dtype)

    return Function(fn, linear=(0,), labels=((_maps(options), *KERNEL), "m n i j c"))


@functools.cache
def apply(method: str, options: Options) -> Function:
    """The operator on groups of maps, from the filters that `transfer` of the method returned."""
    module = METHODS[method]

    def fn(maps: Maps, *filters: Array) -> Array:
        dtype = jnp.finfo(filters[0].dtype).dtype  # of the real part
        return _apply(module, maps, filters, options, dtype)

    labels = (_maps(options), *transfer_labels(method, options.x0))
    return Function(fn, linear=(0,), labels=(labels, "m n i j c"))


def transfer_labels(method: str, x0: str) -> tuple[str, ...]:
    """Labels of what `transfer` of a method returns."""
    module = METHODS[method]
    return module.TRANSFER_OF_ARRAY if x0 == "array" else module.TRANSFER


def _maps(options: Options) -> str | tuple[str, str]:
    return ("m n h w c", "m n i j c") if options.x0 == "array" else "m n h w c"


def _apply(
    module: ModuleType, maps: Maps, filters: tuple[Array, ...], options: Options, dtype: Any
) -> Array:
    x, *x0 = jax.tree.leaves(maps)
    given = (a.astype(dtype) for a in x0)
    return module.apply(x.astype(dtype), filters, options, *given).astype(x.dtype)
