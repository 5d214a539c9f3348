"""Every JAX transform of the operator: gradients, vmap, scan, remat, export, recompilation."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.jet import jet
from jax.test_util import check_grads

from converse_jax import apply_transfer, blur_downsample, converse2d, converse2d_transfer
from converse_jax.ops import _function, _method
from converse_jax.ops._options import Options
from converse_jax.ops._otf import wave
from tests.ops.cases import SOME, Case, sparse


def problem(*batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(*batch, 7, 6, 3))
    return x, rng.normal(size=(3, 4, 3)), rng.uniform(0.1, 1, size=3)


def loss(x: jax.Array, kernel: jax.Array, lam: jax.Array, **options: int | str) -> jax.Array:
    y = converse2d(x, kernel, lam, **options)
    return jnp.sum(jnp.sin(y) * jnp.cos(jnp.arange(y.size).reshape(y.shape)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", sparse(3, SOME), ids=str)
def test_gradients_equal_finite_differences(case: Case) -> None:
    # Finite differences of the inverse are hopeless where lambda hardly regularizes.
    case = dataclasses.replace(case, lam=max(case.lam, 1e-2))
    x, kernel, lam = case.arrays(2)

    def of_log(x: jax.Array, kernel: jax.Array, log_lam: jax.Array) -> jax.Array:
        return converse2d(x, kernel, jnp.exp(log_lam), **case.options)

    check_grads(
        jax.jit(of_log),
        (x, kernel, np.log(lam)),
        order=1,
        modes=["rev"],
        eps=1e-5,
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "mode",
    [
        "circular",
        *(
            pytest.param(mode, marks=pytest.mark.slow)
            for mode in ("replicate", "reflect", "constant")
        ),
    ],
)
@pytest.mark.parametrize("scale", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_second_derivatives_equal_finite_differences(scale: int, mode: str) -> None:
    arrays = problem()
    directions = [np.random.default_rng(1 + i).normal(size=a.shape) for i, a in enumerate(arrays)]

    @jax.jit
    def slope(*arrays: jax.Array) -> jax.Array:
        gradients = jax.grad(
            lambda *a: loss(*a, scale=scale, padding=2, padding_mode=mode), (0, 1, 2)
        )(*arrays)
        return sum(jnp.vdot(g, d) for g, d in zip(gradients, directions, strict=True))

    def moved(step: float) -> jax.Array:
        return slope(*(a + step * d for a, d in zip(arrays, directions, strict=True)))

    curvature = jax.jit(jax.grad(slope, (0, 1, 2)))(*arrays)
    analytic = sum(jnp.vdot(c, d) for c, d in zip(curvature, directions, strict=True))
    np.testing.assert_allclose(analytic, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_blur_is_differentiable() -> None:
    x, kernel, _ = problem(2)
    check_grads(
        jax.jit(lambda x, k: blur_downsample(x[:, :6], k, scale=2)), (x, kernel), 1, ["rev"]
    )


@pytest.mark.usefixtures("x64")
def test_vmap() -> None:
    x, kernel, lam = problem(4)
    kernels = np.stack([kernel, -kernel, 2 * kernel, kernel[::-1]])
    batched = converse2d(x, kernel, lam, padding=1)
    chex.assert_trees_all_close(
        jax.vmap(lambda x: converse2d(x, kernel, lam, padding=1))(x), batched, rtol=1e-12
    )
    chex.assert_trees_all_close(
        jax.vmap(lambda x: converse2d(x, kernel, lam, padding=1), in_axes=-2, out_axes=-2)(
            np.moveaxis(x, 0, -2)
        ),
        np.moveaxis(batched, 0, -2),
        rtol=1e-12,
    )
    chex.assert_trees_all_close(
        jax.vmap(lambda x, k: converse2d(x, k, lam))(x, kernels),
        converse2d(x, kernels, lam),
        rtol=1e-12,
    )
    chex.assert_trees_all_close(
        jax.vmap(lambda k: converse2d(x[0], k, lam))(kernels),
        converse2d(np.broadcast_to(x[0], x.shape), kernels, lam),
        rtol=1e-12,
    )
    chex.assert_trees_all_close(
        jax.vmap(jax.vmap(lambda x, k: converse2d(x, k, lam), (0, None)), (None, 0))(x, kernels)[
            1, 2
        ],
        converse2d(x[2], kernels[1], lam),
        rtol=1e-12,
    )


@pytest.mark.usefixtures("x64")
def test_gradient_and_vmap_commute() -> None:
    x, kernel, lam = problem(4)
    each = jax.vmap(jax.grad(loss, (0, 1, 2)), (0, None, None))(x, kernel, lam)
    one_by_one = [jax.grad(loss, (0, 1, 2))(x[i], kernel, lam) for i in range(4)]
    chex.assert_trees_all_close(each, jax.tree.map(lambda *a: jnp.stack(a), *one_by_one))
    total = jax.grad(lambda *a: jnp.sum(jax.vmap(loss, (0, None, None))(*a)), (0, 1, 2))
    summed = total(x, kernel, lam)
    chex.assert_trees_all_close(summed, (each[0], each[1].sum(0), each[2].sum(0)))


@pytest.mark.usefixtures("x64")
def test_scan_and_remat() -> None:
    x, kernel, lam = problem()
    scanned, _ = jax.lax.scan(
        lambda carry, _: (converse2d(carry, kernel, lam), None), jnp.asarray(x), None, length=2
    )
    twice = converse2d(converse2d(x, kernel, lam), kernel, lam)
    np.testing.assert_allclose(scanned, twice, rtol=1e-12)
    chex.assert_trees_all_close(
        jax.grad(jax.checkpoint(loss), (0, 1, 2))(x, kernel, lam),
        jax.grad(loss, (0, 1, 2))(x, kernel, lam),
    )


@pytest.mark.parametrize("method", ["auto", "fft", "dft", "direct"])
@pytest.mark.parametrize("scale", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_export_with_any_batch_for_every_platform(method: str, scale: int) -> None:
    kernel, lam = np.ones((scale, scale, 4), np.float32) / 3, np.full(4, 0.01, np.float32)
    run = jax.jit(lambda x: converse2d(x, kernel, lam, scale=scale, padding=1, method=method))
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, 9, 8, 4), jnp.float32)
    exported = jax.export.export(run, platforms=("cpu", "cuda", "tpu"))(shape)
    for size in (1, 3):
        x = np.random.default_rng(0).normal(size=(size, 9, 8, 4)).astype(np.float32)
        np.testing.assert_allclose(exported.call(x), run(x), atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(run(x) ** 2)))
    assert jax.export.export(gradient)(shape).out_avals[0].shape[0] == batch


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked", "lenient")
@pytest.mark.parametrize("mode", ["circular", "replicate", "constant"])
def test_export_with_maps_of_any_size(mode: str) -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32)
    run = jax.jit(lambda x: converse2d(x, kernel, 0.1, scale=2, padding=1, padding_mode=mode))
    sizes = jax.export.symbolic_shape("b, h, w", constraints=["h >= 3", "w >= 3"])
    exported = jax.export.export(run, platforms=("cpu", "cuda", "tpu"))(
        jax.ShapeDtypeStruct((*sizes, 4), jnp.float32)
    )
    for shape in ((1, 3, 8, 4), (2, 9, 12, 4)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(exported.call(x), run(x), atol=1e-4)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("size", [1, 2, 7, 8, 97, 1024])
def test_waves_of_unknown_size_are_as_exact_as_single_precision_is(size: int) -> None:
    numerator = np.arange(-2 * size, 2 * size)
    for sine in (False, True):
        ours = wave(jnp.asarray(numerator), size, sine=sine, xp=jnp)
        exact = wave(numerator, size, sine=sine, xp=np)
        np.testing.assert_allclose(ours, exact, atol=1e-7)


LINEAR = {
    "fft": lambda x, k, lam: converse2d(x, k, lam, scale=2, padding=1, method="fft"),
    "dft": lambda x, k, lam: converse2d(x, k, lam, scale=2, padding=1, method="dft"),
    "direct": lambda x, k, lam: converse2d(x, k[:2, :2], lam, scale=2, padding=1, method="direct"),
    "prepared": lambda x, k, lam: apply_transfer(
        x, converse2d_transfer(k, lam, (9, 8), scale=2), padding=1
    ),
    "blur": lambda x, k, lam: blur_downsample(x[:, :6], k, scale=2),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "dft")) for name in LINEAR],
)
def test_forward_mode_and_transposition(name: str) -> None:
    fn = LINEAR[name]
    x, kernel, lam = map(jnp.asarray, problem(2))
    v, dk = x[::-1] + 1, kernel[::-1] - 0.3
    # Linear in x: its derivative is itself, its transpose the reverse-mode derivative.
    of_x = lambda x: fn(x, kernel, lam)  # noqa: E731
    result, tangent = jax.jvp(of_x, (x,), (v,))
    np.testing.assert_allclose(tangent, of_x(v), atol=1e-12)
    y = jnp.cos(result)
    (transposed,) = jax.linear_transpose(of_x, x)(y)
    np.testing.assert_allclose(jnp.vdot(transposed, v), jnp.vdot(y, of_x(v)), rtol=1e-10)
    np.testing.assert_allclose(transposed, jax.vjp(of_x, x)[1](y)[0], atol=1e-12)
    # Of a transpose, too.
    again = jax.linear_transpose(lambda y: jax.linear_transpose(of_x, x)(y)[0], y)(v)[0]
    np.testing.assert_allclose(again, of_x(v), atol=1e-12)

    of_kernel = lambda k: fn(x, k, lam)  # noqa: E731
    step = 1e-6
    difference = (of_kernel(kernel + step * dk) - of_kernel(kernel - step * dk)) / (2 * step)
    result, along = jax.linearize(of_kernel, kernel)
    np.testing.assert_allclose(along(dk), difference, atol=1e-6 * float(jnp.abs(difference).max()))
    np.testing.assert_allclose(jax.jvp(of_kernel, (kernel,), (dk,))[1], along(dk), atol=1e-11)
    pulled = jax.vjp(of_kernel, kernel)[1](y)[0]
    np.testing.assert_allclose(jnp.vdot(pulled, dk), jnp.vdot(y, along(dk)), rtol=1e-9)

    of_both = lambda x, k: jnp.sum(jnp.sin(fn(x, k, lam)))  # noqa: E731
    hessian = jax.jit(jax.hessian(of_both, 1))(x, kernel)
    expected = jax.jit(jax.jacrev(jax.jacrev(of_both, 1), 1))(x, kernel)
    np.testing.assert_allclose(hessian, expected, atol=1e-9 * float(jnp.abs(expected).max()))
    # Forward over reverse and reverse over forward, in all arguments together.
    directions = (v, dk)
    forward = jax.jit(lambda *at: jax.jvp(jax.grad(of_both, (0, 1)), at, directions)[1])
    slope = lambda x, k: jax.jvp(of_both, (x, k), directions)[1]  # noqa: E731
    reverse = jax.jit(jax.grad(slope, (0, 1)))
    chex.assert_trees_all_close(forward(x, kernel), reverse(x, kernel), atol=1e-9)
    # And under vmap.
    batched = jax.vmap(lambda v: jax.jvp(of_x, (x,), (v,))[1])(jnp.stack([v, 2 * v]))
    np.testing.assert_allclose(batched[1], 2 * tangent, atol=1e-11)
    each = jax.vmap(lambda y: jax.linear_transpose(of_x, x)(y)[0])(jnp.stack([y, 2 * y]))
    np.testing.assert_allclose(each[1], 2 * transposed, atol=1e-11)


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "lenient")  # of jet's own rules
@pytest.mark.parametrize("method", ["fft", "dft"])
def test_derivatives_of_higher_order_along_a_curve(method: str) -> None:
    x, kernel, lam = map(jnp.asarray, problem())
    dx, dk = x[::-1], kernel[::-1]
    of_both = lambda x, k: jnp.sin(converse2d(x, k, lam, method=method))  # noqa: E731
    series = ([dx, -x], [dk, kernel])
    value, (first, second) = jet(of_both, (x, kernel), series)
    curve = lambda t: of_both(x + t * dx - t**2 / 2 * x, kernel + t * dk + t**2 / 2 * kernel)  # noqa: E731
    np.testing.assert_allclose(value, curve(0.0), atol=1e-12)
    np.testing.assert_allclose(first, jax.jacfwd(curve)(0.0), atol=1e-9)
    np.testing.assert_allclose(second, jax.jacfwd(jax.jacfwd(curve))(0.0), rtol=1e-7, atol=1e-9)


def test_a_derivative_in_x_is_one_more_application() -> None:
    x, kernel, lam = (a.astype(np.float32) for a in problem(2))
    of_x = lambda x: converse2d(x, kernel, lam, method="fft")  # noqa: E731
    text = jax.jit(lambda x, v: jax.jvp(of_x, (x,), (v,))).lower(x, x).compile().as_text()
    assert text.count(" fft(") == 4
    alone = jax.jit(lambda x, v: jax.jvp(of_x, (x,), (v,))[1]).lower(x, x).compile().as_text()
    assert alone.count(" fft(") == 2


def test_empty_batches() -> None:
    x, kernel, lam = (a.astype(np.float32) for a in problem(0))
    for method in ("fft", "dft"):
        of_all = lambda *a, m=method: jnp.sum(converse2d(*a, method=m))  # noqa: E731
        empty, zeros, zero = jax.grad(of_all, (0, 1, 2))(x, kernel, lam)
        assert empty.shape == x.shape
        assert not np.any(zeros)
        assert not np.any(zero)
        assert (
            jax.vmap(lambda x, m=method: converse2d(x, kernel, lam, method=m))(x).shape == x.shape
        )


@pytest.mark.slow
def test_without_jit() -> None:
    x, kernel, lam = (a.astype(np.float32) for a in problem())
    expected = jax.grad(loss)(x, kernel, lam)
    with jax.disable_jit():
        chex.assert_trees_all_close(jax.grad(loss)(x, kernel, lam), expected, atol=1e-5)


def test_constants_at_compile_time() -> None:
    x, kernel, lam = (a.astype(np.float32) for a in problem())

    @jax.jit
    def constant() -> jax.Array:
        with jax.ensure_compile_time_eval():
            return converse2d(jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(lam))

    np.testing.assert_allclose(constant(), converse2d(x, kernel, lam), atol=1e-6)


def test_traced_once_for_equal_shapes() -> None:
    chex.clear_trace_counter()
    x, kernel, lam = problem(2)
    traced = jax.jit(chex.assert_max_traces(converse2d, n=1))
    for _ in range(3):
        traced(x, kernel, lam).block_until_ready()


def test_programs_that_meet_ever_new_sizes_keep_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_function, "MAX_MADE", 3)
    solver = _method.solve("fft", Options(1, 0, "circular", "zero"))
    for side in range(3, 10):
        x, kernel = jnp.ones((side, side, 1)), jnp.ones((1, 1, 1))
        solve = functools.partial(converse2d, kernel=kernel, lam=1.0, x0="zero", method="fft")
        np.testing.assert_allclose(jax.grad(lambda x, f=solve: f(x).sum())(x), 0.5 * x, rtol=1e-5)
        assert len(solver._made) <= 3
