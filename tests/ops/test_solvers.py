"""Solvers of other libraries, which differentiate, linearize and transpose what they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from converse_jax import blur_downsample, converse2d

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 2))
KERNEL = RNG.normal(size=(3, 3, 2))
LAM = 0.1


def observe(x: jax.Array) -> jax.Array:
    return blur_downsample(x, KERNEL, scale=2)


def truth() -> jax.Array:
    return converse2d(observe(jnp.asarray(X)), KERNEL, LAM, scale=2, x0="zero")


@pytest.mark.usefixtures("x64")
def test_conjugate_gradients() -> None:
    transpose = jax.linear_transpose(observe, jnp.asarray(X))

    def normal(x: jax.Array) -> jax.Array:
        return transpose(observe(x))[0] + LAM * x

    (right,) = transpose(observe(jnp.asarray(X)))
    found, _ = jax.scipy.sparse.linalg.cg(normal, right, tol=1e-12, maxiter=200)
    np.testing.assert_allclose(found, truth(), atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_lbfgs_of_optax() -> None:
    y = observe(jnp.asarray(X))

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum((observe(x) - y) ** 2) + LAM * jnp.sum(x**2)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple, _: None) -> tuple:
        x, state = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=loss)
        return (optax.apply_updates(x, updates), state), None

    x = jnp.zeros_like(X)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (x, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, length=40))((x, solver.init(x)))
    np.testing.assert_allclose(x, truth(), atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_gauss_newton_finds_a_kernel() -> None:
    """The kernel that made a result, by solving with J^T J through jvp and vjp."""
    y = jnp.asarray(X)
    target = converse2d(y, KERNEL, LAM)

    def residual(kernel: jax.Array) -> jax.Array:
        return converse2d(y, kernel, LAM) - target

    @jax.jit
    def step(kernel: jax.Array) -> jax.Array:
        value, along = jax.linearize(residual, kernel)
        back = jax.linear_transpose(along, kernel)
        normal = lambda v: back(along(v))[0] + 1e-12 * v  # noqa: E731
        move, _ = jax.scipy.sparse.linalg.cg(normal, back(value)[0], tol=1e-12, maxiter=100)
        return kernel - move

    kernel = jnp.asarray(KERNEL + 0.02 * RNG.normal(size=KERNEL.shape))
    for _ in range(6):
        kernel = step(kernel)
    np.testing.assert_allclose(kernel, KERNEL, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_lineax() -> None:
    lineax = pytest.importorskip("lineax")
    x = jnp.asarray(X)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        forward = lineax.FunctionLinearOperator(observe, jax.eval_shape(lambda: x))
        normal = forward.T @ forward + LAM * lineax.IdentityLinearOperator(forward.in_structure())
        normal = lineax.TaggedLinearOperator(normal, lineax.positive_semidefinite_tag)
        solution = lineax.linear_solve(
            normal, forward.T.mv(observe(x)), lineax.CG(rtol=1e-12, atol=1e-12)
        )
    np.testing.assert_allclose(solution.value, truth(), atol=1e-9)
