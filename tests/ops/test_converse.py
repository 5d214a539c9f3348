"""The operator against the dense least-squares oracle, its limits, and its adjoint."""

from typing import Any, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converse_jax import (
    apply_transfer,
    blur_downsample,
    blur_downsample_adjoint,
    converse2d,
    converse2d_transfer,
)
from converse_jax.ops import PaddingMode
from tests import oracles
from tests.ops.cases import CASES, SOME, Case, sparse


def relative(a: jax.Array, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))


def test_the_table_covers_every_pair_of_options() -> None:
    for mode in get_args(PaddingMode):
        for scale in (1, 2, 3, 4):
            assert any(c.padding_mode == mode and c.scale == scale and c.padding for c in CASES)
    assert {(c.x0, c.scale) for c in CASES} >= {("zero", 1), ("zero", 2), ("zero", 3), ("zero", 4)}
    assert any(c.padding > max(c.shape) and c.padding_mode == "circular" for c in CASES)


@pytest.mark.parametrize("cases", [sparse(3), sparse(6), SOME], ids=["third", "sixth", "some"])
def test_what_is_drawn_of_it_has_every_option(cases: list[Any]) -> None:
    quick = [case for case in cases if isinstance(case, Case)]
    assert {c.padding_mode for c in quick} == set(get_args(PaddingMode))
    assert {c.scale for c in quick} == {1, 2, 3, 4}
    assert {c.x0 for c in quick} == {"nearest", "zero"}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", sparse(3), ids=str)
def test_every_method_equals_the_least_squares_solution(case: Case) -> None:
    x, kernel, lam = case.arrays()
    expected = oracles.converse2d(x, kernel, lam, **case.options)
    for method in case.methods:
        # The oracle's own error grows as its condition number, 1 / sqrt(lambda).
        y = converse2d(x, kernel, lam, **case.options, method=method)
        assert relative(y, expected) < 1e-10, method


@pytest.mark.parametrize("case", SOME, ids=str)
def test_float32_keeps_six_digits(case: Case) -> None:
    x, kernel, lam = case.arrays()
    expected = oracles.converse2d(x, kernel, lam, **case.options)
    arrays = [a.astype(np.float32) for a in (x, kernel, lam)]
    for method in case.methods:
        y = converse2d(*arrays, **case.options, method=method)
        assert y.dtype == jnp.float32
        assert relative(y, expected) < 2e-6, method


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", SOME, ids=str)
def test_prepared_is_the_same(case: Case) -> None:
    x, kernel, lam = case.arrays(2)
    padded = (case.shape[0] + 2 * case.padding, case.shape[1] + 2 * case.padding)
    expected = converse2d(x, kernel, lam, **case.options)
    for method in case.methods:
        transfer = converse2d_transfer(
            kernel, lam, padded, scale=case.scale, x0=case.x0, method=method
        )
        y = apply_transfer(x, transfer, padding=case.padding, padding_mode=case.padding_mode)
        chex.assert_trees_all_close(y, expected, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_lambda_to_infinity_gives_the_initial_estimate() -> None:
    x = np.random.default_rng(0).normal(size=(5, 6, 2))
    kernel = np.random.default_rng(1).normal(size=(3, 3, 2))
    nearest = converse2d(x, kernel, 1e12, scale=2)
    np.testing.assert_allclose(nearest, x.repeat(2, 0).repeat(2, 1), atol=1e-10)
    np.testing.assert_allclose(converse2d(x, kernel, 1e12, scale=2, x0="zero"), 0, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_lambda_to_zero_reproduces_the_observation(scale: int) -> None:
    x = np.random.default_rng(0).normal(size=(5, 6, 2))
    kernel = np.random.default_rng(1).uniform(size=(3, 3, 2))
    kernel[1, 1] += 9  # no zero in its spectrum
    restored = converse2d(x, kernel, 1e-12, scale=scale)
    np.testing.assert_allclose(blur_downsample(restored, kernel, scale=scale), x, atol=1e-9)
    if scale > 1:  # of all maps that explain x, the one nearest to the initial estimate
        initial = x.repeat(scale, 0).repeat(scale, 1)
        back = blur_downsample_adjoint(np.zeros_like(x) + 1.0, kernel, scale=scale)
        correction = restored - initial
        matrix = oracles.blur_matrix(kernel[..., 0], (5, 6), scale)
        row_space = np.linalg.pinv(matrix) @ (matrix @ np.ravel(correction[..., 0]))
        np.testing.assert_allclose(row_space, np.ravel(correction[..., 0]), atol=1e-8)
        assert back.shape == restored.shape


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_blur_and_its_adjoint(scale: int) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3, 2))
    x, y = rng.normal(size=(3, 5 * scale, 4 * scale, 2)), rng.normal(size=(3, 5, 4, 2))
    blurred = blur_downsample(x, kernel, scale=scale)
    for c in range(2):
        matrix = oracles.blur_matrix(kernel[..., c], (5, 4), scale)
        np.testing.assert_allclose(
            blurred[..., c].reshape(3, -1), x[..., c].reshape(3, -1) @ matrix.T, atol=1e-12
        )
    back = blur_downsample_adjoint(y, kernel, scale=scale)
    np.testing.assert_allclose(np.sum(blurred * y), np.sum(x * back), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_kernel_sum_one_within_stride_is_nearest_interpolation() -> None:
    x = np.random.default_rng(0).normal(size=(4, 5, 2))
    kernel = np.random.default_rng(1).dirichlet(np.ones(4), 2).T.reshape(2, 2, 2)
    y = converse2d(x, kernel, 1e-3, scale=2, padding=2, padding_mode="replicate")
    np.testing.assert_allclose(y, x.repeat(2, 0).repeat(2, 1), atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_leading_axes() -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 6, 5, 4)), rng.normal(size=(2, 3, 3, 3, 4))
    lam = rng.uniform(0.1, 1, size=(2, 3, 4))

    def each(kernels: np.ndarray, lams: np.ndarray) -> np.ndarray:
        kernels = np.broadcast_to(kernels, (2, 3, 3, 3, 4))
        lams = np.broadcast_to(lams, (2, 3, 4))
        one = [[converse2d(x[i, j], kernels[i, j], lams[i, j]) for j in range(3)] for i in range(2)]
        return np.array(one)

    for kernels, lams in [
        (kernel, lam),
        (kernel[0, 0], lam[0, 0]),  # one for all
        (kernel[:, :1], lam[:, :1]),  # one for each of the first axis
        (kernel[:1], lam[0, 0]),  # one for each of the second axis
        (kernel[0, 0], lam),
    ]:
        np.testing.assert_allclose(converse2d(x, kernels, lams), each(kernels, lams), atol=1e-12)
    many = converse2d(x[0, 0], kernel, lam[0, 0])
    assert many.shape == (2, 3, 6, 5, 4)
    np.testing.assert_allclose(many[1, 2], converse2d(x[0, 0], kernel[1, 2], lam[0, 0]))
    assert converse2d(x[:0], kernel[0, 0], 0.1).shape == (0, 3, 6, 5, 4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_result_has_the_type_of_x_and_a_float32_spectrum(dtype: jnp.dtype) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(9, 8, 3)), dtype)
    kernel = np.random.default_rng(1).dirichlet(np.ones(25), 3).T.reshape(5, 5, 3)
    y = converse2d(x, kernel.astype(np.float32), 1e-2, padding=4)
    assert y.dtype == dtype
    exact = converse2d(x.astype(jnp.float32), kernel.astype(np.float32), 1e-2, padding=4)
    np.testing.assert_array_equal(y, exact.astype(dtype))
