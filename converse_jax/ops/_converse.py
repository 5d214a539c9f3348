r"""The reverse convolution: the closed form of the paper's eq. 4, as a linear filter.

For a map Y, a kernel K, a stride s and lambda > 0, Converse2D is

    X* = argmin_X  || Y - (X (*) K) down s ||^2  +  lambda || X - X0 ||^2 .

Let S be the down-sampler and A = S K the blur and down-sampling as one matrix. The normal
equations, solved for the correction to X0 (push-through identity), read

    X* = X0 + A^T (A A^T + lambda I)^-1 (Y - A X0) .

In the phases X_ij of X (see `_otf`) A is the row of circulant matrices [K_ij], so A A^T is one
circulant matrix, sum_ij |K_ij|^2 in the Fourier domain. Nearest-neighbour interpolation makes every
phase of X0 equal to Y; X0 = 0 makes them 0. With b = 1 or 0 for these two,

    X*_ij = F^-1[ G_ij . F Y ],
    G_ij  = b + conj(K_ij) (1 - b sum_kl K_kl) / (sum_kl |K_kl|^2 + lambda) .

The whole operator is thus s*s linear filters of Y. It is the paper's eq. 6 exactly, without its
division by lambda.

Three methods evaluate these filters, all exactly:

    fft     one real FFT of Y and one real inverse FFT of each phase, in place of three complex FFTs
            of the large map (`_bank`)
    dft     the transforms as products with folded DFT matrices (`_dft`): faster than an FFT library
            for maps of up to several hundred pixels a side, whatever their factors
    direct  for kernels no larger than the stride, where A A^T is diagonal: no transform (`_direct`)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from converse_jax.ops import _dft, _direct
from converse_jax.ops._bank import over_maps, synthesize
from converse_jax.ops._checks import check_fit, check_map, check_operator, floating, regularisation
from converse_jax.ops._layout import materialised
from converse_jax.ops._method import Method, choose_method
from converse_jax.ops._otf import phase_otf
from converse_jax.ops._pad import PaddingMode, check_padding, crop_map, pad_map
from converse_jax.ops._partition import Backward, Fn, partitioned
from converse_jax.ops._parts import by_channels

InitialEstimate = Literal["nearest", "zero"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("spectrum",),
    meta_fields=("shape", "scale", "method"),
)
@dataclass(frozen=True)
class Transfer:
    """The operator for one (kernel, lambda, scale, size), ready to be applied: a pytree.

    Attributes:
      spectrum: the s*s filters. For the method "fft" their half spectra
        ``[..., C, s, s, H, W // 2 + 1]``, complex; for "dft" four real arrays
        ``[..., W // 2 + 1, s, H // 2 + 1, s, C]``, the E, D, S and T of `_dft`.
      shape: ``(H, W)`` of the padded map it applies to.
      scale: s.
      method: "fft" or "dft".
    """

    spectrum: Complex[Array, "*batch C s s H K"] | _dft.Filter
    shape: tuple[int, int]
    scale: int
    method: str


def converse2d(
    x: Float[Array, "*batch H W C"],
    kernel: Float[Array, "*kernels kh kw C"],
    lam: Float[Array, "*lams"] | float,
    *,
    scale: int = 1,
    padding: int = 0,
    padding_mode: PaddingMode = "circular",
    x0: InitialEstimate = "nearest",
    method: Method = "auto",
) -> Float[Array, "*batch sH sW C"]:
    """Reverse convolution: the X whose blurred and down-sampled version is the map x.

    ``X* = argmin_X ||x - (X (*) K) down s||^2 + lam ||X - X0||^2``, with circular convolution, for
    each feature map by itself.

    It is jitted, its options being static, and shards over examples and channels without
    communication under plain `jax.jit`. Reverse-mode gradients of every order exist; forward mode
    (`jax.jvp`, `jax.jacfwd`) does not. The spectrum is computed in float32, or in float64 where x
    is.

    Args:
      x: maps ``[..., H, W, C]``, any floating type, any leading axes or none.
      kernel: ``[..., kh, kw, C]``, one a channel, the element ``(kh // 2, kw // 2)`` at the
        origin. Leading axes broadcast against those of x: none for one kernel for all, one for a
        kernel an example. At most ``scale`` times the padded map in size.
      lam: the regularisation lambda > 0, a scalar or ``[..., C]``, leading axes as for kernel.
      scale: the stride s >= 1 that is undone.
      padding: pixels added to each side of x before, and ``scale * padding`` removed after.
      padding_mode: "circular" (wraps, repeatedly if wider than the map), "replicate", "reflect" or
        "constant" (zeros).
      x0: the estimate that lambda pulls towards: "nearest" (x, each pixel repeated s x s times) or
        "zero".
      method: how it is evaluated, always exactly: "fft"; "dft", as matrix products; "direct",
        without a transform, where the kernel has at most s taps a side; "auto", the fastest of them
        by our measurements on the default device.

    Returns:
      ``[..., scale * H, scale * W, C]`` in the type of x.

    Raises:
      TypeError: x or kernel is not an array of real floating-point numbers.
      ValueError: shapes that do not fit, or an option outside what is listed above.

    Source: Huang et al., "Reverse Convolution and Its Applications to Image Restoration", ICCV
    2025, eq. 4-7.
    """
    x, kernel, lam = floating("x", x), floating("kernel", kernel), regularisation(lam)
    check_map("x", x)
    padded = check_padding(padding, padding_mode, x.shape)
    check_operator(kernel, lam, padded, scale, x0)
    check_fit(x, kernel.shape[-1], {"kernel": kernel.shape[:-3], "lam": lam.shape[:-1]})
    method = choose_method(method, kernel.shape[-3:-1], padded, scale)
    return _converse2d(x, kernel, lam, scale, padding, padding_mode, x0, method)


def converse2d_transfer(
    kernel: Float[Array, "*kernels kh kw C"],
    lam: Float[Array, "*lams"] | float,
    shape: tuple[int, int],
    *,
    scale: int = 1,
    x0: InitialEstimate = "nearest",
    method: Literal["auto", "fft", "dft"] = "auto",
) -> Transfer:
    """Prepare `converse2d` once for maps of one size: ``converse2d = apply_transfer o this``.

    Args:
      kernel: as for `converse2d`.
      lam: as for `converse2d`.
      shape: ``(H, W)`` of the map *including its padding*, ``H + 2 * padding``.
      scale: as for `converse2d`.
      x0: as for `converse2d`.
      method: as for `converse2d`, but for "direct", which has nothing to prepare.

    Returns:
      A `Transfer` for `apply_transfer`.

    Raises:
      TypeError, ValueError: as `converse2d`.
    """
    kernel, lam = floating("kernel", kernel), regularisation(lam)
    shape = (int(shape[0]), int(shape[1]))
    check_operator(kernel, lam, shape, scale, x0)
    method = choose_method(method, None, shape, scale)
    return Transfer(_transfer_jit(kernel, lam, shape, scale, x0, method), shape, scale, method)


def apply_transfer(
    x: Float[Array, "*batch H W C"],
    transfer: Transfer,
    *,
    padding: int = 0,
    padding_mode: PaddingMode = "circular",
) -> Float[Array, "*batch sH sW C"]:
    """Apply a prepared operator, by the method it was prepared for.

    It is computed in the precision of the kernel that the transfer was prepared from.

    Args:
      x: maps ``[..., H, W, C]``.
      transfer: from `converse2d_transfer`, for maps of ``(H + 2 * padding, W + 2 * padding)``.
      padding: as for `converse2d`.
      padding_mode: as for `converse2d`.

    Returns:
      As `converse2d`.

    Raises:
      TypeError: x is not an array of real floating-point numbers.
      ValueError: x, with its padding, is not of the size or channels the transfer was made for.
    """
    x = floating("x", x)
    check_map("x", x)
    padded = check_padding(padding, padding_mode, x.shape)
    if padded != transfer.shape:
        raise ValueError(
            f"x of {x.shape[-3]}x{x.shape[-2]} with padding={padding} is {padded[0]}x{padded[1]}, "
            f"but transfer was prepared for {transfer.shape[0]}x{transfer.shape[1]}: call "
            f"converse2d_transfer with shape={padded}"
        )
    shape = jax.tree.leaves(transfer.spectrum)[0].shape
    channels = shape[-5] if transfer.method == "fft" else shape[-1]
    check_fit(x, channels, {"transfer": shape[:-5]})
    return _apply_transfer(x, transfer, padding, padding_mode)


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6, 7))
def _converse2d(
    x: Array, kernel: Array, lam: Array, scale: int, padding: int, mode: str, x0: str, method: str
) -> Array:
    lam = jnp.broadcast_to(lam, (*lam.shape[:-1], x.shape[-1]))
    shared = jnp.broadcast_shapes(kernel.shape[:-3], lam.shape[:-1])
    kernel = jnp.broadcast_to(kernel, (*shared, *kernel.shape[-3:]))
    lam = jnp.broadcast_to(lam, (*shared, lam.shape[-1]))
    solve = _SOLVERS[method](scale, padding, mode, x0)
    return _per_map(solve, x, kernel, lam, core_ndims=(3, 1))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _apply_transfer(x: Array, transfer: Transfer, padding: int, mode: str) -> Array:
    if isinstance(transfer.spectrum, tuple):
        return _per_map(_apply_dft(padding, mode), x, *transfer.spectrum, core_ndims=(5,) * 4)
    apply = _apply_fft(transfer.scale, padding, mode)
    return _per_map(apply, x, transfer.spectrum, core_ndims=(5,))


def closed_form(
    real: Float[Array, "*rest"],
    imag: Float[Array, "*rest"],
    lam: Float[Array, "*#rest"],
    x0: str,
    over_phases: Callable[[Array], Array],
) -> tuple[Float[Array, "*rest"], Float[Array, "*rest"]]:
    """``G_ij = b + conj(K_ij) (1 - b sum K) / (sum |K|^2 + lam)``, see the top of this file.

    Real and imaginary part of G from those of K; `over_phases` sums over i and j. It is written in
    real numbers: a complex division by a real number costs several times as much.
    """
    power = over_phases(real**2 + imag**2)
    gain = 1 / (power + lam)
    if x0 == "zero":
        return gain * real, -gain * imag
    rest_re = 1 - over_phases(real)
    rest_im = -over_phases(imag)
    return 1 + gain * (real * rest_re + imag * rest_im), gain * (real * rest_im - imag * rest_re)


def half_spectrum(
    kernel: Float[Array, "*batch kh kw C"],
    lam: Float[Array, "*batch C"],
    shape: tuple[int, int],
    scale: int,
    x0: str,
) -> Complex[Array, "*batch C s s H K"]:
    """The filters for the method "fft"."""
    re, im = phase_otf(kernel, shape, scale)
    sums = functools.partial(jnp.sum, axis=(-4, -3), keepdims=True)
    return jax.lax.complex(*closed_form(re, im, lam[..., None, None, None, None], x0, sums))


def quadrants(
    kernel: Float[Array, "m kh kw C"],
    lam: Float[Array, "m C"],
    shape: tuple[int, int],
    scale: int,
    x0: str,
) -> _dft.Filter:
    """The filters for the method "dft"."""
    plus_re, plus_im, minus_re, minus_im = _dft.quadrant_otf(kernel, shape, scale)
    lam = lam[:, None, None, None, None]
    plus = closed_form(plus_re, plus_im, lam, x0, _dft.over_phases)
    minus = closed_form(minus_re, minus_im, lam, x0, _dft.over_phases)
    return _dft.filter_of((*plus, *minus))


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _transfer_jit(
    kernel: Array, lam: Array, shape: tuple[int, int], scale: int, x0: str, method: str
) -> Array | _dft.Filter:
    dtype = _compute_dtype(kernel)
    channels = kernel.shape[-1]
    lam = jnp.broadcast_to(lam, (*lam.shape[:-1], channels)).astype(dtype)
    kernel = kernel.astype(dtype)
    if method == "fft":
        return half_spectrum(kernel, lam, shape, scale, x0)
    leading = jnp.broadcast_shapes(kernel.shape[:-3], lam.shape[:-1])
    kernel = jnp.broadcast_to(kernel, (*leading, *kernel.shape[-3:]))
    lam = jnp.broadcast_to(lam, (*leading, channels))
    parts = quadrants(
        kernel.reshape(-1, *kernel.shape[-3:]), lam.reshape(-1, channels), shape, scale, x0
    )
    even, mirror, down, across = (part.reshape(*leading, *part.shape[1:]) for part in parts)
    return even, mirror, down, across


@functools.cache
def _apply_fft(scale: int, padding: int, mode: str) -> Fn:
    def local(x: Array, spectrum: Array) -> tuple[Array]:
        y = x.astype(spectrum.real.dtype)
        return (_filter_maps(y, spectrum, scale, padding, mode).astype(x.dtype),)

    return partitioned(local, ("m n h w c", "m c p q u k"), ("m n i j c",))


@functools.cache
def _apply_dft(padding: int, mode: str) -> Fn:
    def whole(x: Array, *transfer: Array) -> Array:
        spectra = _dft.analyze(x.astype(transfer[0].dtype), 1, _dft.Padded(padding, mode))
        y = _dft.synthesize(_dft.mix(spectra, transfer), x.shape[2:4], _dft.Cropped(padding))
        return y.astype(x.dtype)

    def local(x: Array, *transfer: Array) -> tuple[Array]:
        return (by_channels(whole, x, *transfer, scale=transfer[0].shape[-2]),)

    return partitioned(local, ("m n h w c", *("m l q k p c",) * 4), ("m n i j c",))


@functools.cache
def _solve_fft(scale: int, padding: int, mode: str, x0: str) -> Fn:
    def local(x: Array, kernel: Array, lam: Array) -> tuple[Array]:
        dtype = _compute_dtype(x)
        shape = (x.shape[2] + 2 * padding, x.shape[3] + 2 * padding)
        kernel = _not_before(kernel.astype(dtype), x)
        spectrum = half_spectrum(kernel, lam.astype(dtype), shape, scale, x0)
        return (_filter_maps(x.astype(dtype), spectrum, scale, padding, mode).astype(x.dtype),)

    return partitioned(local, ("m n h w c", "m a b c", "m c"), ("m n i j c",))


@functools.cache
def _solve_dft(scale: int, padding: int, mode: str, x0: str) -> Fn:
    """The spectra of x are kept for the backward pass, not x: they take its place in memory."""
    padded, cropped = _dft.Padded(padding, mode), _dft.Cropped(padding)

    def filtered(spectra: _dft.Quadrants, kernel: Array, lam: Array, like: Array) -> Array:
        """The result from the spectra; `like` has its shape and type."""
        dtype = spectra[0].dtype
        size = (like.shape[2] // scale, like.shape[3] // scale)
        whole = (size[0] + 2 * padding, size[1] + 2 * padding)
        kernel = _not_before(kernel.astype(dtype), like)
        transfer = quadrants(kernel, lam.astype(dtype), whole, scale, x0)
        if like.shape[1] > 1 or scale > 1:
            # Else it would be computed again for each example.
            transfer = jax.tree.map(materialised, transfer)
        y = _dft.synthesize(_dft.mix(spectra, transfer), size, cropped)
        return y.astype(like.dtype)

    def forward(x: Array, kernel: Array, lam: Array) -> tuple[Array, ...]:
        spectra = _dft.analyze(x.astype(_compute_dtype(x)), 1, padded)
        m, n, height, width, channels = x.shape
        like = jnp.broadcast_to(x[:, :, :1, :1], (m, n, scale * height, scale * width, channels))
        return filtered(spectra, kernel, lam, like), *spectra

    def whole(x: Array, kernel: Array, lam: Array) -> Array:
        return forward(x, kernel, lam)[0]

    def local(x: Array, kernel: Array, lam: Array) -> tuple[Array]:
        return (by_channels(whole, x, kernel, lam, scale=scale),)

    def pullback(*args: Array) -> tuple[Array, ...]:
        *spectra, kernel, lam, cotangent = args
        _, pull = jax.vjp(
            lambda spectra, kernel, lam: filtered(spectra, kernel, lam, cotangent),
            tuple(spectra), kernel, lam,
        )  # fmt: skip
        spectra_bar, kernel_bar, lam_bar = pull(cotangent)
        size = (cotangent.shape[2] // scale, cotangent.shape[3] // scale)
        # Each of analysis and synthesis is the adjoint of the other, given the same matrices.
        x_bar = _dft.synthesize(spectra_bar, size, padded)
        return x_bar.astype(cotangent.dtype), kernel_bar, lam_bar

    inputs, spectra = ("m n h w c", "m a b c", "m c"), ("m n l q k p c",) * 4
    return partitioned(local, inputs, ("m n i j c",), Backward(spectra, forward, pullback))


@functools.cache
def _solve_direct(scale: int, padding: int, mode: str, x0: str) -> Fn:
    def local(x: Array, kernel: Array, lam: Array) -> tuple[Array]:
        dtype = _compute_dtype(x)
        kernel, lam = kernel.astype(dtype), lam.astype(dtype)
        y = _direct.solve(x.astype(dtype), kernel, lam, scale, padding, mode, x0)
        return (y.astype(x.dtype),)

    return partitioned(local, ("m n h w c", "m a b c", "m c"), ("m n i j c",))


_SOLVERS = {"fft": _solve_fft, "dft": _solve_dft, "direct": _solve_direct}


def _not_before(kernel: Array, x: Array) -> Array:
    """The kernel, computed from x: its transfer function is then made where it is used.

    XLA would otherwise make those of all layers of a network first, and keep them: most of its
    memory. `optimization_barrier` is dropped before instructions are ordered. The factor is
    exactly 0 even where x is not finite.
    """
    if x.size == 0:
        return kernel
    return kernel + 0 * (x.ravel()[0] > 0).astype(kernel.dtype)


def _filter_maps(x: Array, spectrum: Array, scale: int, padding: int, mode: str) -> Array:
    def filter_map(y: Array, transfer: Array) -> Array:
        return crop_map(synthesize(pad_map(y, padding, mode), transfer), scale * padding)

    return over_maps(filter_map)(x, spectrum)


def _compute_dtype(x: Array) -> Any:
    """float64 for float64, else float32: XLA's FFT has no half precision."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _per_map(fn: Fn, x: Array, *shared: Array, core_ndims: tuple[int, ...]) -> Array:
    """Bring arguments to ``[groups, examples, ...]``: the maps of a group have `shared` in common.

    All of `shared` have the same leading axes, followed by `core_ndims` axes of their own.
    """
    leading = shared[0].shape[: shared[0].ndim - core_ndims[0]]
    batch = jnp.broadcast_shapes(x.shape[:-3], leading)
    leading = (1,) * (len(batch) - len(leading)) + leading
    # Trailing batch axes along which nothing shared varies become the examples of a group.
    split = max((i + 1 for i, size in enumerate(leading) if size != 1), default=0)
    groups, examples = batch[:split], batch[split:]
    x = jnp.broadcast_to(x, (*batch, *x.shape[-3:]))
    x = x.reshape(math.prod(groups), math.prod(examples), *x.shape[-3:])
    grouped = []
    for array, ndim in zip(shared, core_ndims, strict=True):
        core = array.shape[array.ndim - ndim :]
        array = jnp.broadcast_to(array.reshape(*leading[:split], *core), (*groups, *core))
        grouped.append(array.reshape(math.prod(groups), *core))
    (result,) = fn(*_same_variance(x, *grouped))
    return result.reshape(*batch, *result.shape[2:])


def _same_variance(*arrays: Array) -> tuple[Array, ...]:
    """Inside `jax.shard_map`, mark a replicated kernel as varying before its spectrum is taken.

    The transpose of this cast is the sum over devices: made here, it moves a kernel's gradient,
    made later it would move a whole spectrum.
    """
    axes = frozenset[str]().union(*map(_varying_axes, arrays))
    return tuple(
        jax.lax.pcast(a, tuple(missing), to="varying") if missing else a
        for a, missing in ((a, axes - _varying_axes(a)) for a in arrays)
    )


def _varying_axes(x: Array) -> frozenset[str]:
    """Mesh axes over which x differs inside `shard_map`; JAX moved the attribute in 0.10."""
    kind = jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)
    return getattr(kind, "vma", frozenset()) if manual is None else manual.varying
