"""Every JAX transform of the operator: gradients, vmap, scan, remat, export, recompilation."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from converse_jax import blur_downsample, converse2d
from tests.ops.cases import SOME, Case


def problem(*batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(*batch, 7, 6, 3))
    return x, rng.normal(size=(3, 4, 3)), rng.uniform(0.1, 1, size=3)


def loss(x: jax.Array, kernel: jax.Array, lam: jax.Array, **options: int | str) -> jax.Array:
    y = converse2d(x, kernel, lam, **options)
    return jnp.sum(jnp.sin(y) * jnp.cos(jnp.arange(y.size).reshape(y.shape)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", SOME, ids=str)
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
@pytest.mark.parametrize("mode", ["circular", "replicate", "reflect", "constant"])
@pytest.mark.parametrize("scale", [1, 2])
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


def test_export() -> None:
    x, kernel, lam = (a.astype(np.float32) for a in problem())
    # On CPU alone the program fixes a layout in memory, a custom call that has to be allowed.
    checks = [jax.export.DisabledSafetyCheck.custom_call("LayoutConstraint")]
    exported = jax.export.export(jax.jit(converse2d), disabled_checks=checks)(x, kernel, lam)
    np.testing.assert_array_equal(exported.call(x, kernel, lam), converse2d(x, kernel, lam))


def test_forward_mode_says_that_it_is_not_there() -> None:
    x, kernel, lam = problem()
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: converse2d(x, kernel, lam), (x,), (x,))


def test_traced_once_for_equal_shapes() -> None:
    chex.clear_trace_counter()
    x, kernel, lam = problem(2)
    traced = jax.jit(chex.assert_max_traces(converse2d, n=1))
    for _ in range(3):
        traced(x, kernel, lam).block_until_ready()
