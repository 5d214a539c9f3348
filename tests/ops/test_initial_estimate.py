"""X0 as an array: any estimate, pulled towards and corrected, besides "nearest" and "zero"."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from converse_jax import apply_transfer, blur_downsample, converse2d, converse2d_transfer
from tests import oracles
from tests.ops.cases import SOME, Case, sparse
from tests.ops.test_compiled import assert_close, compiled_text, reduced_sizes, transforms
from tests.ops.test_converse import relative

METHODS = {"fft": 3, "dft": 3, "direct": 2}
"""Taps on each side of a kernel for every method, at a scale of 2."""


CANCELS, CANCELED = "1x1x4x2-s1-p4-constant-zero-0.01", 3e-6
"""The one case whose result is a 20th of its estimate, and the digits that this leaves."""


def problem(*batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, x0 = rng.normal(size=(*batch, 7, 6, 3)), rng.normal(size=(*batch, 14, 12, 3))
    return x, rng.normal(size=(3, 3, 3)), rng.uniform(0.1, 1, size=3), x0


def operator(method: str):
    """The operator at a scale of 2, of x, kernel, lam and x0."""
    taps = METHODS[method]

    def of_arrays(x, kernel, lam, x0):
        kernel = kernel[..., :taps, :taps, :]
        return converse2d(x, kernel, lam, scale=2, padding=1, x0=x0, method=method)

    return of_arrays


def options(case: Case) -> dict[str, int | str]:
    return {name: value for name, value in case.options.items() if name != "x0"}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", sparse(6), ids=str)
def test_every_method_equals_the_least_squares_solution(case: Case) -> None:
    x, kernel, lam = case.arrays()
    nearest = x.repeat(case.scale, 0).repeat(case.scale, 1)
    known = [
        (case.estimate(), oracles.converse2d(x, kernel, lam, **options(case), x0=case.estimate())),
        (nearest, oracles.converse2d(x, kernel, lam, **options(case), x0="nearest")),
    ]
    for method in case.methods:
        for x0, expected in known:
            y = converse2d(x, kernel, lam, **options(case), x0=x0, method=method)
            assert relative(y, expected) < 1e-10, method


@pytest.mark.parametrize("case", sparse(15), ids=str)
def test_float32_keeps_six_digits(case: Case) -> None:
    x, kernel, lam = case.arrays()
    x0 = case.estimate()
    expected = oracles.converse2d(x, kernel, lam, **options(case), x0=x0)
    arrays = [a.astype(np.float32) for a in (x, kernel, lam)]
    for method in case.methods:
        y = converse2d(*arrays, **options(case), x0=x0.astype(np.float32), method=method)
        assert y.dtype == jnp.float32
        assert relative(y, expected) < (CANCELED if str(case) == CANCELS else 2e-6), method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lam", [1e-30, 1e-6, 1e6])
def test_an_estimate_that_explains_the_map_is_the_result(method: str, lam: float) -> None:
    kernel = np.random.default_rng(1).normal(size=(METHODS[method],) * 2 + (3,)).astype(np.float32)
    kernel[1, 1] += 9  # no zero in its spectrum
    x0 = problem()[-1].astype(np.float32)
    x = blur_downsample(x0, kernel, scale=2)
    result = converse2d(x, kernel, lam, scale=2, x0=x0, method=method)
    np.testing.assert_allclose(result, x0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", SOME[::2], ids=str)
def test_gradients_equal_finite_differences(case: Case) -> None:
    case = dataclasses.replace(case, lam=max(case.lam, 1e-2))
    x, kernel, lam = case.arrays(2)

    def of_log(x: jax.Array, kernel: jax.Array, log_lam: jax.Array, x0: jax.Array) -> jax.Array:
        return converse2d(x, kernel, jnp.exp(log_lam), **options(case), x0=x0)

    args = (x, kernel, np.log(lam), case.estimate(2))
    check_grads(jax.jit(of_log), args, order=1, eps=1e-5, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "method", ["dft", *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS if m != "dft")]
)
def test_derivatives_of_every_method(method: str) -> None:
    fn = operator(method)
    x, kernel, lam, x0 = map(jnp.asarray, problem(2))
    check_grads(jax.jit(fn), (x, kernel, lam, x0), order=1, rtol=1e-5, atol=1e-5)
    # Linear in both maps together: its derivative is itself, its transpose that in reverse mode.
    of_maps = lambda maps: fn(maps[0], kernel, lam, maps[1])  # noqa: E731
    other = (jnp.cos(x), jnp.sin(x0))
    result, tangent = jax.jvp(of_maps, ((x, x0),), (other,))
    np.testing.assert_allclose(tangent, of_maps(other), atol=1e-12)
    (transposed,) = jax.linear_transpose(of_maps, (x, x0))(result)
    products = jax.tree.map(jnp.vdot, transposed, other)
    np.testing.assert_allclose(sum(products), jnp.vdot(result, tangent), rtol=1e-12)
    chex.assert_trees_all_close(transposed, jax.vjp(of_maps, (x, x0))[1](result)[0], atol=1e-12)
    # In each of them, with the other one 0 or held.
    (of_x0,) = jax.linear_transpose(lambda a: of_maps((0 * x, a)), x0)(result)
    np.testing.assert_allclose(of_x0, transposed[1], atol=1e-12)
    along = jax.jvp(lambda a: of_maps((x, a)), (x0,), (other[1],))[1]
    np.testing.assert_allclose(along, of_maps((0 * x, other[1])), atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", METHODS)
def test_vmap_over_any_argument(method: str) -> None:
    fn = jax.jit(operator(method))
    x, kernel, lam, x0 = problem(3)
    scales = np.arange(1.0, 4)
    many = (x, scales[:, None, None, None] * kernel, scales[:, None] * lam, x0)
    one = tuple(a[0] for a in many)
    for mapped in ((0,), (1, 2), (3,), (0, 1, 2, 3)):
        args = [many[i] if i in mapped else one[i] for i in range(4)]
        axes = [0 if i in mapped else None for i in range(4)]
        each = [fn(*(many[i][j] if i in mapped else one[i] for i in range(4))) for j in range(3)]
        np.testing.assert_allclose(jax.vmap(fn, axes)(*args), np.stack(each), atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_leading_axes_broadcast() -> None:
    x, kernel, lam, x0 = problem(2, 3)
    fn = operator("dft")
    expected = np.array([[fn(x[i, j], kernel, lam, x0[i, j]) for j in range(3)] for i in range(2)])
    np.testing.assert_allclose(fn(x, kernel, lam, x0), expected, atol=1e-12)
    for maps, estimates in ((x[0, 0], x0), (x, x0[0, 0]), (x[:, :1], x0[0])):
        both = np.broadcast_to(maps, x.shape), np.broadcast_to(estimates, x0.shape)
        full = fn(both[0], kernel, lam, both[1])
        np.testing.assert_allclose(fn(maps, kernel, lam, estimates), full, atol=1e-12)
    kernels = np.stack([kernel, -kernel])[:, None]
    full = fn(np.broadcast_to(x[0, 0], x.shape), kernels, lam, x0)
    np.testing.assert_allclose(fn(x[0, 0], kernels, lam, x0), full, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_result_has_the_type_of_x(method: str) -> None:
    fn = operator(method)
    x, kernel, lam, x0 = (a.astype(np.float32) for a in problem())
    half = jnp.asarray(x, jnp.bfloat16)
    exact = fn(half.astype(jnp.float32), kernel, lam, x0)
    result = fn(half, kernel, lam, x0)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result, exact.astype(jnp.bfloat16))
    gradient = jax.grad(lambda a: jnp.sum(fn(half, kernel, lam, a) ** 2))(x0)
    assert gradient.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", sparse(3, SOME), ids=str)
def test_prepared_is_the_same(case: Case) -> None:
    x, kernel, lam = case.arrays(2)
    x0 = case.estimate(2)
    padded = tuple(n + 2 * case.padding for n in case.shape)
    for method in case.methods:
        expected = converse2d(x, kernel, lam, **options(case), x0=x0, method=method)
        transfer = converse2d_transfer(
            kernel, lam, padded, scale=case.scale, x0="array", method=method
        )
        border = {"padding": case.padding, "padding_mode": case.padding_mode}
        y = apply_transfer(x, transfer, **border, x0=x0)
        np.testing.assert_allclose(y, expected, atol=1e-11)


def test_transforms_of_the_maps_alone() -> None:
    x, kernel, lam, x0 = (a.astype(np.float32) for a in problem(2))
    fn = operator("fft")
    assert transforms(compiled_text(fn, x, kernel, lam, x0)) == {"RFFT": 2, "IRFFT": 1}
    gradient = jax.grad(lambda *a: jnp.sum(jnp.sin(fn(*a))), (0, 1, 2, 3))
    counts = transforms(compiled_text(gradient, x, kernel, lam, x0))
    assert set(counts) == {"RFFT", "IRFFT"}
    assert counts["RFFT"] <= 3
    assert counts["IRFFT"] <= 3
    assert transforms(compiled_text(operator("dft"), x, kernel, lam, x0)) == {}


@pytest.mark.parametrize("method", ["fft", pytest.param("dft", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", ["Explicit", *(pytest.param(k, marks=pytest.mark.slow) for k in ("Auto", "Manual"))]
)
def test_sharded(kind: str, method: str) -> None:
    args = tuple(a.astype(np.float32) for a in problem(8))
    fn = operator(method)
    axis_type = AxisType.Explicit if kind == "Explicit" else AxisType.Auto
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    specs = (P("data"), P(), P(), P("data"))
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=P("data"))

    def gradients(fn):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(fn(*a))), (0, 1, 2, 3))

    sharded = [
        jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(args, specs, strict=True)
    ]
    for transform, summed in ((lambda f: f, 0), (gradients, args[1].size)):
        with jax.set_mesh(mesh):
            run = jax.jit(transform(mapped if kind == "Manual" else fn))
            compiled = run.lower(*sharded).compile()
            results = compiled(*sharded)
        text = compiled.as_text()
        assert "all-gather" not in text
        assert "all-to-all" not in text
        assert max(reduced_sizes(text), default=0) <= summed
        assert_close(results, transform(fn)(*args))


@pytest.mark.usefixtures("unchecked", "lenient")
def test_export_with_maps_of_any_size() -> None:
    _, kernel, lam, _ = (a.astype(np.float32) for a in problem())
    run = jax.jit(lambda x, x0: operator("dft")(x, kernel, lam, x0))
    b, h, w = jax.export.symbolic_shape("b, h, w", constraints=["h >= 3", "w >= 3"])
    shapes = [jax.ShapeDtypeStruct((b, s * h, s * w, 3), jnp.float32) for s in (1, 2)]
    exported = jax.export.export(run, platforms=("cpu", "cuda", "tpu"))(*shapes)
    x, _, _, x0 = (a.astype(np.float32) for a in problem(2))
    np.testing.assert_allclose(exported.call(x, x0), run(x, x0), atol=1e-5)
