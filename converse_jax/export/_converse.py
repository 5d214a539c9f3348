r"""The reverse convolution in ONNX: the method "dft" of `ops._dft`, whose matrices the graph makes.

Nothing in the file depends on the size of the image: cosines and sines of the transform, with
padding and cropping inside them, are made of the sizes when it runs. The map is folded about its
middle as in `ops._dft`, which halves the products. From the four *quadrants* of its spectrum come

    X(k, l) = (cc - ss) - i (sc + cs) ,    X(k, -l) = (cc + ss) + i (cs - sc) ,

each is multiplied by the transfer function there, and the way back is the same. A runtime passes
over the map once for each operation that is written here, so there are as few as can be: for a
stride of 1 and X0 = Y the filter is `G = (conj(K) + lam) / (|K|^2 + lam)`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from converse_jax.export._graph import Graph, Maps


class Axis(NamedTuple):
    """The matrices of one axis: into the spectrum, out of it, and from the kernel's taps."""

    analysis_cos: str
    analysis_sin: str
    synthesis_cos: str
    synthesis_sin: str
    taps_cos: str
    taps_sin: str


def converse(
    graph: Graph,
    x: Maps,
    kernel: str,
    lam: np.ndarray,
    *,
    taps: tuple[int, int],
    scale: int,
    padding: int,
    padding_mode: str,
    x0: str,
) -> Maps:
    """`converse2d` of maps with kernels `[m, kh, kw, C]`, m = 1 or one for each image.

    The solution is linear in Y and X0 together: with X0 = Z it is that of Y for "zero" plus that of
    Z for "prior", `lam Z / (|K|^2 + lam)`, which there is for a stride of 1.
    """
    height, width = (graph.integer("Mul", size, scale) for size in (x.height, x.width))
    maps = graph.reshape(x.pixels, -1, x.height, x.width, x.channels)
    if max(taps) <= min(scale, 2) and x0 != "prior":
        factor = phase_factors(graph, kernel, lam, taps=taps, scale=scale, x0=x0)
        spread = graph.reshape(maps, -1, x.height, 1, x.width, 1, x.channels)
        y = graph.op("Mul", spread, factor)
    else:
        axes = [
            _axis(graph, size, padding, padding_mode, n, scale)
            for size, n in zip((x.height, x.width), taps, strict=True)
        ]
        inputs = [maps, kernel, graph.constant(lam, np.float32), *axes[0], *axes[1]]
        (y,) = graph.call(
            f"Converse2D_x{scale}_{x0}",
            inputs,
            1,
            lambda inside, *values: [_operator(inside, *values, scale=scale, x0=x0)],
        )
    return Maps(graph.reshape(y, -1, x.channels), height, width, x.channels)


def phase_factors(
    graph: Graph, kernel: str, lam: np.ndarray, *, taps: tuple[int, int], scale: int, x0: str
) -> str:
    """Numbers `[m, 1, s, 1, s, C]` by which kernels of at most 2 taps multiply: see `ops._direct`.

    A pixel of the result is one of the map times `b + k_ij (1 - b sum k) / (sum k^2 + lam)`.
    """
    sums = graph.integers(1, 2)
    power = graph.op("ReduceSum", graph.op("Mul", kernel, kernel), sums, keepdims=1)
    gain = graph.op("Reciprocal", graph.op("Add", power, graph.constant(lam, np.float32)))
    if x0 == "nearest":
        total = graph.op("ReduceSum", kernel, sums, keepdims=1)
        gain = graph.op("Mul", gain, graph.op("Sub", graph.real(1), total))
    factor = graph.op("Mul", kernel, gain)
    # Phase i holds tap (n // 2 - i) mod s, if there is one: taps in the order of their phases.
    for axis, n in enumerate(taps, start=1):
        order = [(n // 2 - i) % scale for i in range(scale)]
        if max(order) >= n:  # phases without a tap take the zero that is put behind the last
            pads = [0] * 8
            pads[4 + axis] = 1
            factor = graph.op("Pad", factor, graph.integers(*pads))
        factor = graph.op("Gather", factor, graph.integers(*(min(a, n) for a in order)), axis=axis)
    if x0 == "nearest":
        factor = graph.op("Add", factor, graph.real(1))
    return graph.op("Unsqueeze", factor, graph.integers(1, 3))


def _axis(graph: Graph, size: str, padding: int, mode: str, taps: int, scale: int) -> Axis:
    def matrices() -> list[str]:
        name = f"Matrices_{mode}{padding}"
        return graph.call(name, [size], 4, lambda g, n: _matrices(g, n, padding, mode))

    def of_taps() -> list[str]:
        name = f"Taps{taps}_x{scale}"
        padded = graph.integer("Add", size, 2 * padding)
        return graph.call(name, [padded], 2, lambda g, n: _taps(g, n, taps, scale))

    return Axis(
        *graph.shared(("matrices", size, mode, padding), matrices),
        *graph.shared(("taps", size, padding, taps, scale), of_taps),
    )


def _matrices(g: Graph, size: str, padding: int, mode: str) -> list[str]:
    """Analysis `[K, half]` and synthesis `[half, K]`, cosines and sines: `ops._dft_matrices`."""
    zero, one = g.constant(0, np.int64), g.constant(1, np.int64)
    whole, half = g.integer("Add", size, 2 * padding), _half(g, size)
    k = g.op("Unsqueeze", g.op("Range", zero, _frequencies(g, whole), one), g.integers(1))
    n = g.op("Unsqueeze", g.op("Range", zero, whole, one), g.integers(0))
    # Angles from the middle of the map: pi k (2 n - N + 1) / N.
    middle = g.op("Add", g.op("Sub", g.integer("Mul", n, 2), whole), one)
    waves = _waves(g, g.op("Mul", k, middle), g.integer("Mul", whole, 2))

    near = g.op("Unsqueeze", g.op("Range", zero, half, one), g.integers(1))
    copies = g.op("Cast", g.op("Equal", near, _source(g, n, size, padding, mode)), to=_FLOAT)
    # The middle pixel of an odd axis is counted twice in the even part.
    middle = g.op("Equal", g.integer("Add", g.integer("Mul", near, 2), 1), size)
    once = g.op("Where", middle, g.real(0.5), g.real(1))
    copies = g.op("Transpose", g.op("Mul", copies, once), perm=[1, 0])

    # All frequencies but these stand for their mirror image as well.
    alone = g.op("Or", g.op("Equal", k, zero), g.op("Equal", g.integer("Mul", k, 2), whole))
    weight = g.op("Where", alone, g.real(1), g.real(2))
    weight = g.op("Div", weight, g.op("Cast", whole, to=_FLOAT))
    first = g.integers(padding)
    last = g.op("Add", first, g.vector(half))

    def synthesis(wave: str) -> str:
        cropped = g.op("Slice", wave, first, last, g.integers(1))
        return g.op("Transpose", g.op("Mul", cropped, weight), perm=[1, 0])

    return [*(g.op("MatMul", wave, copies) for wave in waves), *map(synthesis, waves)]


def _source(g: Graph, n: str, size: str, padding: int, mode: str) -> str:
    """The pixel of the map that each pixel of the padded one repeats."""
    i = g.integer("Sub", n, padding)
    last = g.integer("Sub", size, 1)
    if mode == "circular":
        return g.op("Mod", i, size)
    if mode == "replicate":
        return g.op("Min", g.op("Max", i, g.constant(0, np.int64)), last)
    if mode == "reflect":
        return g.op("Sub", last, g.op("Abs", g.op("Sub", last, g.op("Abs", i))))
    return i  # "constant": no pixel of the map, outside of it


def _taps(g: Graph, whole: str, taps: int, scale: int) -> list[str]:
    """Cosines and sines `[K s, taps]` of the phases of a centered kernel: `ops._otf.phase_dft`."""
    offset = np.arange(taps) - taps // 2
    phase = -offset % scale
    shift = (offset + phase) // scale
    seen = phase == np.arange(scale)[:, None]
    frequencies = _frequencies(g, whole)
    k = g.op("Range", g.constant(0, np.int64), frequencies, g.constant(1, np.int64))
    numerator = g.op("Mul", g.reshape(k, -1, 1, 1), g.constant(shift, np.int64))
    return [
        g.reshape(g.op("Mul", wave, g.constant(seen, np.float32)), -1, taps)
        for wave in _waves(g, numerator, whole)
    ]


def _waves(g: Graph, numerator: str, size: str) -> tuple[str, str]:
    """Cosine and sine of `2 pi numerator / size`: `ops._otf.wave`, for an unknown size.

    Errors of a kernel's spectrum are amplified where it is small, 1 / lambda times. Angles are so
    brought into [-pi/4, pi/4] in integers: single precision is relative to their size. Double
    precision would do as well, but not every ONNX Runtime has its cosine (1.20 has not).
    """
    turn = g.integer("Mul", g.op("Mod", numerator, size), 4)
    quarters = g.op("Div", g.op("Add", g.integer("Mul", turn, 2), size), g.integer("Mul", size, 2))
    rest = g.op("Cast", g.op("Sub", turn, g.op("Mul", quarters, size)), to=_FLOAT)
    unit = g.op("Div", g.real(math.pi / 2), g.op("Cast", size, to=_FLOAT))
    angle = g.op("Mul", rest, unit)
    cos, sin = g.op("Cos", angle), g.op("Sin", angle)

    def of_quarters(quarters: str) -> str:
        quarters = g.integer("Mod", quarters, 4)
        odd = g.op("Equal", g.integer("Mod", quarters, 2), g.constant(1, np.int64))
        value = g.op("Where", odd, g.op("Neg", sin), cos)
        back = g.op("GreaterOrEqual", quarters, g.constant(2, np.int64))
        return g.op("Where", back, g.op("Neg", value), value)

    # sin a = cos(a - pi/2), three quarters further
    return of_quarters(quarters), of_quarters(g.integer("Add", quarters, 3))


def _half(g: Graph, size: str) -> str:
    return g.integer("Div", g.integer("Add", size, 1), 2)


def _frequencies(g: Graph, whole: str) -> str:
    return g.integer("Add", g.integer("Div", whole, 2), 1)


_FLOAT, _INTEGER = TensorProto.FLOAT, TensorProto.INT64


def _operator(g: Graph, x: str, kernel: str, lam: str, *matrices: str, scale: int, x0: str) -> str:
    """Maps `[N, s H, s W, C]` from maps `[N, H, W, C]`: the body of the function."""
    rows, cols = Axis(*matrices[:6]), Axis(*matrices[6:])
    spectra = _analyze(g, x, rows, cols)
    filters = _filters(g, kernel, lam, rows, cols, scale, x0)
    if scale > 1:  # [N, K, 1, L, 1, C]: every phase is another filter of the map
        axes = g.integers(2, 4)
        spectra = [(g.op("Unsqueeze", a, axes), g.op("Unsqueeze", b, axes)) for a, b in spectra]
    filtered = [_complex_product(g, *z, *f) for z, f in zip(spectra, filters, strict=True)]
    return _synthesize(g, filtered, x, rows, cols, scale)


def _complex_product(g: Graph, a: str, b: str, c: str, d: str) -> tuple[str, str]:
    real = g.op("Sub", g.op("Mul", a, c), g.op("Mul", b, d))
    return real, g.op("Add", g.op("Mul", a, d), g.op("Mul", b, c))


def _plus_minus(g: Graph, cc: str, cs: str, sc: str, ss: str) -> list[tuple[str, str]]:
    """The complex spectrum at (k, l) and (k, -l) from its quadrants."""
    return [
        (g.op("Sub", cc, ss), g.op("Neg", g.op("Add", sc, cs))),
        (g.op("Add", cc, ss), g.op("Sub", cs, sc)),
    ]


def _analyze(g: Graph, x: str, rows: Axis, cols: Axis) -> list[tuple[str, str]]:
    """The spectrum at (k, l) and (k, -l), each real and imaginary part `[N, K, L, C]`."""
    keep = g.op("Slice", g.op("Shape", x), g.integers(2), g.integers(4))
    flat = g.op("Concat", g.integers(0, 0, -1), axis=0)
    quadrants = []
    for part, matrix in zip(_fold(g, x, 1), (rows.analysis_cos, rows.analysis_sin), strict=True):
        half = g.op("MatMul", matrix, g.op("Reshape", part, flat))  # [N, K, W C]
        half = g.op("Reshape", half, g.op("Concat", g.integers(0, 0), keep, axis=0))
        even, odd = _fold(g, half, 2)
        quadrants += [
            g.op("MatMul", cols.analysis_cos, even),
            g.op("MatMul", cols.analysis_sin, odd),
        ]
    return _plus_minus(g, *quadrants)


def _synthesize(
    g: Graph, spectra: list[tuple[str, str]], x: str, rows: Axis, cols: Axis, scale: int
) -> str:
    """Maps from twice their spectra; x is the map that they have the size of, but for s."""
    (plus_re, plus_im), (minus_re, minus_im) = spectra
    # Twice the quadrants: the half is taken below, from matrices.
    cc, ss = g.op("Add", plus_re, minus_re), g.op("Sub", minus_re, plus_re)
    cs = g.op("Sub", minus_im, plus_im)
    sc = g.op("Neg", g.op("Add", plus_im, minus_im))
    halved = [
        g.op("Mul", matrix, g.real(0.5)) for matrix in (cols.synthesis_cos, cols.synthesis_sin)
    ]
    height, width = g.size(x, 1), g.size(x, 2)

    def along_columns(even: str, odd: str) -> str:
        """`[N, K i, W, j C]`."""
        parts = []
        for quadrant, matrix in zip((even, odd), halved, strict=True):
            if scale > 1:
                shape = g.op("Shape", quadrant)  # [N, K, i, L, j, C]
                n = g.op("Slice", shape, g.integers(0), g.integers(1))
                frequencies = g.op("Slice", shape, g.integers(3), g.integers(4))
                channels = g.op("Slice", shape, g.integers(5), g.integers(6))
                phases = g.op("Mul", channels, g.integers(scale))
                whole = g.op("Concat", n, g.integers(-1), frequencies, phases, axis=0)
                quadrant = g.op("Reshape", quadrant, whole)
            parts.append(g.op("MatMul", matrix, quadrant))
        even, odd = parts
        return _unfold(g, even, odd, width, 2)

    frequencies = g.op("Slice", g.op("Shape", rows.analysis_cos), g.integers(0), g.integers(1))
    flat = g.op("Concat", g.integers(0), frequencies, g.integers(-1), axis=0)
    parts = [
        g.op("MatMul", matrix, g.op("Reshape", half, flat))  # [N, half, i W j C]
        for matrix, half in (
            (rows.synthesis_cos, along_columns(cc, cs)),
            (rows.synthesis_sin, along_columns(sc, ss)),
        )
    ]
    even, odd = parts
    y = _unfold(g, even, odd, height, 1)
    channels = g.size(x, 3)
    return g.reshape(
        y, 0, g.integer("Mul", height, scale), g.integer("Mul", width, scale), channels
    )


def _filters(
    g: Graph, kernel: str, lam: str, rows: Axis, cols: Axis, scale: int, x0: str
) -> list[tuple[str, str]]:
    """The closed form at (k, l) and (k, -l): `[m, K, L, C]`, or `[m, K, i, L, j, C]` for s > 1."""
    keep = g.op("Slice", g.op("Shape", kernel), g.integers(2), g.integers(4))
    flat = g.reshape(kernel, 0, 0, -1)
    quadrants = []
    for matrix in (rows.taps_cos, rows.taps_sin):
        half = g.op("MatMul", matrix, flat)
        half = g.op("Reshape", half, g.op("Concat", g.integers(0, 0), keep, axis=0))
        quadrants += [g.op("MatMul", m, half) for m in (cols.taps_cos, cols.taps_sin)]
    otf = _plus_minus(g, *quadrants)
    if scale > 1:
        k, l = (  # noqa: E741
            g.op("Slice", g.op("Shape", axis.analysis_cos), g.integers(0), g.integers(1))
            for axis in (rows, cols)
        )
        s = g.integers(scale)
        shape = g.op("Concat", g.integers(0), k, s, l, s, g.integers(-1), axis=0)
        otf = [(g.op("Reshape", re, shape), g.op("Reshape", im, shape)) for re, im in otf]
    return [_closed_form(g, re, im, lam, scale, x0) for re, im in otf]


def _closed_form(g: Graph, re: str, im: str, lam: str, scale: int, x0: str) -> tuple[str, str]:
    """`G = b + conj(K) (1 - b sum K) / (sum |K|^2 + lam)` of `ops._closed_form`."""

    def over_phases(a: str) -> str:
        return a if scale == 1 else g.op("ReduceSum", a, g.integers(2, 4), keepdims=1)

    squares = [over_phases(g.op("Mul", a, a)) for a in (re, im)]
    gain = g.op("Reciprocal", g.op("Sum", *squares, lam))
    if x0 == "prior":
        return g.op("Mul", lam, gain), g.real(0)
    conjugate = g.op("Neg", g.op("Mul", im, gain))
    if x0 != "nearest":
        return g.op("Mul", re, gain), conjugate
    if scale == 1:
        return g.op("Mul", g.op("Add", re, lam), gain), conjugate
    rest_re = g.op("Mul", gain, g.op("Sub", g.real(1), over_phases(re)))
    rest_im = g.op("Neg", g.op("Mul", gain, over_phases(im)))
    real, imag = _complex_product(g, re, g.op("Neg", im), rest_re, rest_im)
    return g.op("Add", real, g.real(1)), imag


def _fold(g: Graph, x: str, axis: int) -> tuple[str, str]:
    """Even and odd part about the middle of an axis."""
    axes, half = g.integers(axis), g.vector(_half(g, g.size(x, axis)))
    near = g.op("Slice", x, g.integers(0), half, axes)
    # Backwards from the last one; counted from the end, so that 1 pixel is no special case.
    stop = g.op("Sub", g.integers(-1), half)
    far = g.op("Slice", x, g.integers(-1), stop, axes, g.integers(-1))
    return g.op("Add", near, far), g.op("Sub", near, far)


def _unfold(g: Graph, even: str, odd: str, size: str, axis: int) -> str:
    """A map of this size from its even and odd part."""
    half = g.integer("Div", size, 2)
    far = g.op("Sub", even, odd)
    # From n // 2 - 1 back to 0: an odd axis has its middle pixel in the near half. The end is
    # counted from the end; a start of -1, of an axis of 1 pixel, must lead to none.
    none = g.op("Cast", g.op("Equal", half, g.constant(0, np.int64)), to=_INTEGER)
    stop = g.op("Sub", g.op("Sub", none, _half(g, size)), g.constant(1, np.int64))
    last = g.vector(g.integer("Sub", half, 1))
    back = g.op("Slice", far, last, g.vector(stop), g.integers(axis), g.integers(-1))
    return g.op("Concat", g.op("Add", even, odd), back, axis=axis)
