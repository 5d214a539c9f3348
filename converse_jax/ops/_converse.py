"""Public operator: validate arguments, reshape to [groups, examples, H, W, C], run a method.

The equation and its derivation are in `_closed_form`, its evaluations in `_fft`, `_dft`, `_direct`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from converse_jax.ops._checks import (
    check_call,
    check_estimate,
    check_fit,
    check_lam,
    check_map,
    check_operator,
    check_padding,
    compute_dtype,
    floating,
    integer,
)
from converse_jax.ops._groups import broadcast_leading, over_groups, per_channel
from converse_jax.ops._method import (
    KERNEL,
    METHODS,
    apply,
    choose_method,
    solve,
    transfer_labels,
)
from converse_jax.ops._options import (
    InitialEstimate,
    Maps,
    Method,
    Options,
    PaddingMode,
    PreparedEstimate,
)
from converse_jax.ops._partition import over_explicit_axes


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("filters",),
    meta_fields=("shape", "scale", "x0", "method"),
)
@dataclass(frozen=True)
class Transfer:
    """The operator for one (kernel, lambda, scale, size), ready to be applied: a pytree.

    Attributes:
        filters: the s*s filters. Of "fft" their half spectra `[..., C, s, s, H, W // 2 + 1]`,
            complex; of "dft" four real arrays `[..., W // 2 + 1, s, H // 2 + 1, s, C]`, the E, D, S
            and T of `_dft`; of "direct" the taps `[..., kh, kw, C]` and `1 / (sum k^2 + lambda)`.
            For x0 = "array" those of "fft" and "dft" are followed by the filters of the adjoint of
            the blur.
        shape: `(H, W)` of the padded map it applies to.
        scale, x0, method: as for `converse2d_transfer`; the method is not "auto".
    """

    filters: tuple[Any, ...]  # JAX also builds pytrees of what stands for arrays
    shape: tuple[int, int]
    scale: int
    x0: PreparedEstimate
    method: str


def converse2d(
    x: Float[ArrayLike, "*batch H W C"],
    kernel: Float[ArrayLike, "*kernels kh kw C"],
    lam: Float[ArrayLike, "*lams"] | float,
    *,
    scale: int = 1,
    padding: int = 0,
    padding_mode: PaddingMode = "circular",
    x0: InitialEstimate | Float[ArrayLike, "*estimates sH sW C"] = "nearest",
    method: Method = "auto",
) -> Float[Array, "*broadcast sH sW C"]:
    """Reverse convolution: the X whose blurred and down-sampled version is the map x.

    `X* = argmin_X ||x - (X (*) K) down s||^2 + lam ||X - X0||^2`, with circular convolution, for
    each feature map by itself.

    With X0 the current estimate of an image, this is the data step of half-quadratic splitting, as
    in plug-and-play restoration and unfolded networks, lambda being the penalty parameter.

    It is jitted, its options being static, and shards over examples and channels without
    communication, whatever the axes of the mesh are. Every transformation of JAX applies. The
    spectrum is computed in float32, or in float64 if x is float64.

    Args:
        x: maps `[..., H, W, C]`, any floating type, any leading axes or none.
        kernel: `[..., kh, kw, C]`, one per channel, the element `(kh // 2, kw // 2)` at the
            origin. Leading axes broadcast against those of x: none for a single kernel, one for a
            kernel per example. At most `scale` times the padded map in size.
        lam: the regularization lambda > 0, a scalar or `[..., C]`, leading axes as for kernel.
        scale: the stride s >= 1 that is undone.
        padding: pixels added to each side of x before, and `scale * padding` removed after.
        padding_mode: "circular" (wraps, repeatedly if wider than the map), "replicate", "reflect"
            or "constant" (zeros).
        x0: the estimate that lambda pulls towards: "nearest" (x, each pixel repeated s x s times),
            "zero", or an array `[..., scale * H, scale * W, C]`, whose leading axes broadcast
            against those of x. It is continued by padding as x is, a cell of s x s pixels taking
            the place of a pixel: "nearest" as an array gives the result of "nearest".
        method: how it is evaluated, always exactly: "fft"; "dft", as matrix products; "direct",
            without a transform, where the kernel has at most s taps a side; "auto", the fastest by
            our measurements on the default device. Name one if you compile for another device.

    Returns:
        `[..., scale * H, scale * W, C]` in the type of x.

    Raises:
        TypeError: x, kernel or x0 is not an array of real floating-point numbers.
        ValueError: shapes that do not fit, or an option outside what is listed above.

    Source: Huang et al., "Reverse Convolution and Its Applications to Image Restoration", ICCV
    2025, eq. 4-7.
    """
    maps, kernel, lam, options = check_call(
        x, kernel, lam, scale=scale, padding=padding, padding_mode=padding_mode, x0=x0
    )
    padded = options.padded(*np.shape(x)[-3:-1])
    chosen = choose_method(method, kernel.shape[-3:-1], padded, options.scale)
    return _converse2d(maps, kernel, lam, options, chosen)


def converse2d_transfer(
    kernel: Float[ArrayLike, "*kernels kh kw C"],
    lam: Float[ArrayLike, "*lams"] | float,
    shape: tuple[int, int],
    *,
    scale: int = 1,
    x0: PreparedEstimate = "nearest",
    method: Method = "auto",
) -> Transfer:
    """Prepare `converse2d` once for maps of one size: `converse2d = apply_transfer o this`.

    Args:
        kernel, lam, scale, method: as for `converse2d`.
        shape: `(H, W)` of the map *including its padding*, `H + 2 * padding`.
        x0: "nearest" or "zero", as for `converse2d`, or "array", which `apply_transfer` is given.

    Returns:
        A `Transfer` for `apply_transfer`.

    Raises:
        TypeError, ValueError: as `converse2d`.
    """
    kernel, lam = floating("kernel", kernel), check_lam(lam)
    scale = integer("scale", scale, 1)
    shape = (int(shape[0]), int(shape[1]))
    check_operator(kernel, lam, shape, scale, x0)
    chosen = choose_method(method, kernel.shape[-3:-1], shape, scale)
    filters = _transfer(kernel, lam, shape, Options(scale, x0=x0), chosen)
    return Transfer(filters, shape, scale, x0, chosen)


def apply_transfer(
    x: Float[ArrayLike, "*batch H W C"],
    transfer: Transfer,
    *,
    padding: int = 0,
    padding_mode: PaddingMode = "circular",
    x0: Float[ArrayLike, "*estimates sH sW C"] | None = None,
) -> Float[Array, "*broadcast sH sW C"]:
    """Apply a prepared operator, by the method it was prepared for.

    It is computed in the precision of the kernel that the transfer was prepared from.

    Args:
        x: maps `[..., H, W, C]`.
        transfer: from `converse2d_transfer`, for maps of `(H + 2 * padding, W + 2 * padding)`.
        padding, padding_mode: as for `converse2d`.
        x0: the array, as for `converse2d`, if the transfer was prepared with x0="array".

    Returns:
        As `converse2d`.

    Raises:
        TypeError: x or x0 is not an array of real floating-point numbers.
        ValueError: x, with its padding, is not of the size or channels the transfer was made for;
            x0 is missing or not of the size of the result, or was not prepared for.
    """
    x = floating("x", x)
    check_map("x", x)
    padding = integer("padding", padding, 0)
    padded = check_padding(padding, padding_mode, x.shape[-3:-1])
    if padded != transfer.shape:
        raise ValueError(
            f"x: got {padded[0]}x{padded[1]} with padding={padding}; expected the "
            f"{transfer.shape[0]}x{transfer.shape[1]} that transfer was prepared for"
        )
    if (x0 is None) == (transfer.x0 == "array"):
        got, expected = ("none", "an array") if x0 is None else ("an array", "none")
        raise ValueError(
            f"x0: got {got}; expected {expected}, as transfer was prepared with x0={transfer.x0!r}"
        )
    given = () if x0 is None else check_estimate(floating("x0", x0), x, transfer.scale)[1]
    labels = METHODS[transfer.method].TRANSFER[0].split()
    filters = transfer.filters[0].shape
    leading = {"transfer": filters[: len(filters) - len(labels) + 1]}
    if given:
        leading["x0"] = given[0].shape[:-3]
    check_fit("x", x, filters[labels.index("c") - len(labels)], leading)
    options = Options(transfer.scale, padding, padding_mode, transfer.x0)
    return _apply_transfer((x, *given) if given else x, transfer, options)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _converse2d(
    maps: Maps, kernel: Array, lam: Array | np.ndarray, options: Options, method: str
) -> Array:
    return over_groups(solve(method, options), maps, (kernel, per_channel(lam, kernel)), KERNEL)


@functools.partial(jax.jit, static_argnums=(2,))
def _apply_transfer(maps: Maps, transfer: Transfer, options: Options) -> Array:
    labels = transfer_labels(transfer.method, transfer.x0)
    return over_groups(apply(transfer.method, options), maps, transfer.filters, labels)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _transfer(
    kernel: Array, lam: Array | np.ndarray, shape: tuple[int, int], options: Options, method: str
) -> tuple[Array, ...]:
    dtype = compute_dtype(kernel)

    def local(kernel: Array, lam: Array) -> tuple[Array, ...]:
        kernel, lam = broadcast_leading((kernel, lam), KERNEL)
        leading = kernel.shape[:-3]
        kernel, lam = kernel.reshape(-1, *kernel.shape[-3:]), lam.reshape(-1, lam.shape[-1])
        filters = METHODS[method].transfer(kernel, lam, shape, options)
        return tuple(part.reshape(*leading, *part.shape[1:]) for part in filters)

    results = tuple(label.removeprefix("m ") for label in transfer_labels(method, options.x0))
    arrays = (kernel.astype(dtype), per_channel(lam, kernel).astype(dtype))
    return over_explicit_axes(local, arrays, ("a b c", "c"), results)
