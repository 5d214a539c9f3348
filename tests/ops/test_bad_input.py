"""Every rejection of the operator names the argument, what arrived, and what to do."""

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
from converse_jax.ops._method import choose_method

pytestmark = pytest.mark.usefixtures("unchecked")

X = np.ones((6, 5, 3), np.float32)
K = np.ones((3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"x": X.astype(int)},
            TypeError,
            r"x: got int64; expected real floating-point numbers, e.g. x.astype",
        ),
        ({"x": X.astype(np.uint8)}, TypeError, r"got uint8.*/ 255"),
        ({"x": X.astype(complex)}, TypeError, "x: got complex128; expected real floating-point"),
        ({"x": [[1.0]]}, TypeError, "x: got list; expected a JAX or NumPy array"),
        (
            {"x": X[..., 0]},
            ValueError,
            r"x: got shape .*; expected \[..., H, W, C\].*x\[..., None\]",
        ),
        ({"x": X[:0]}, ValueError, r"got shape \(0, 5, 3\); .* H, W, C >= 1"),
        ({"x": X[..., :2]}, ValueError, "x: got 2 channels .* the 3 of kernel"),
        ({"kernel": K.astype(int)}, TypeError, "kernel: got int64; expected real floating-point"),
        ({"kernel": K[0]}, ValueError, r"kernel: got shape \(3, 3\); expected \[..., kh, kw, C\]"),
        ({"kernel": K[:0]}, ValueError, r"kernel: got shape \(0, 3, 3\); expected"),
        ({"kernel": np.ones((7, 3, 3))}, ValueError, "kernel: got 7x3; expected at most .* 6x5"),
        (
            {"kernel": np.ones((2, 3, 3, 3)), "x": X[None].repeat(3, 0)},
            ValueError,
            "x: got leading axes",
        ),
        ({"lam": 0}, ValueError, r"lam: got 0; expected > 0 everywhere"),
        ({"lam": -1.0}, ValueError, "lam: got -1.0; expected > 0"),
        ({"lam": float("nan")}, ValueError, "lam: got nan; expected > 0"),
        ({"lam": np.array([1.0, 0.0, 1.0])}, ValueError, "lam: got 0.0; expected > 0"),
        (
            {"lam": np.ones(2)},
            ValueError,
            r"lam: got shape \(2,\); expected a scalar or .* 3 channels",
        ),
        ({"lam": "0.1"}, TypeError, "lam: got str; expected a number or an array"),
        ({"lam": True}, TypeError, "lam: got bool; expected a number or an array"),
        ({"lam": jnp.ones(3, bool)}, TypeError, "lam: got bool; expected real floating-point"),
        ({"lam": 1e-50}, ValueError, "lam: got 1e-50; expected > 0"),  # 0 in single precision
        ({"scale": 0}, ValueError, "scale: got 0; expected an integer >= 1"),
        ({"scale": 1.5}, ValueError, "scale: got 1.5; expected an integer >= 1"),
        ({"scale": True}, ValueError, "scale: got True; expected an integer >= 1"),
        ({"padding": -1}, ValueError, "padding: got -1; expected an integer >= 0"),
        ({"padding": 1.0}, ValueError, "padding: got 1.0; expected an integer >= 0"),
        (
            {"padding_mode": "zeros"},
            ValueError,
            "padding_mode: got 'zeros'; expected 'circular', ",
        ),
        (
            {"padding": 5, "padding_mode": "reflect"},
            ValueError,
            "padding: got 5 .* 6x5; expected less",
        ),
        ({"x0": "y"}, ValueError, "x0: got 'y'; expected 'nearest', 'zero' or an array"),
        ({"x0": "array"}, ValueError, "x0: got 'array'; expected 'nearest', 'zero' or an array"),
        ({"x0": None}, TypeError, "x0: got NoneType; expected a JAX or NumPy array"),
        ({"x0": X.astype(int)}, TypeError, "x0: got int64; expected real floating-point"),
        ({"x0": X, "scale": 2}, ValueError, r"x0: got shape \(6, 5, 3\); .* \[..., 12, 10, 3\]"),
        ({"x0": X[..., :1]}, ValueError, r"x0: got shape \(6, 5, 1\); expected \[..., 6, 5, 3\]"),
        ({"x0": X[0]}, ValueError, r"x0: got shape \(5, 3\); expected \[..., 6, 5, 3\]"),
        (
            {"x0": X[None].repeat(2, 0), "x": X[None].repeat(3, 0)},
            ValueError,
            r"x: got leading axes \(3,\); .* x0 \(2,\)",
        ),
    ],
)
def test_converse2d(changes: dict, error: type[Exception], message: str) -> None:
    arguments = {"x": X, "kernel": K, "lam": 0.1} | changes
    with pytest.raises(error, match=message):
        converse2d(**arguments)


def test_rejected_inside_jit_as_well() -> None:
    with pytest.raises(
        ValueError, match="kernel: got 3x3; expected at most scale times the padded map"
    ):
        jax.jit(converse2d)(X[:2], K, 0.1)


def test_traced_lambda_is_not_looked_at() -> None:
    assert jax.jit(converse2d)(X, K, 0.1).shape == X.shape


def test_transfer() -> None:
    with pytest.raises(ValueError, match="kernel: got 3x3; expected at most"):
        converse2d_transfer(K, 0.1, (2, 2))
    with pytest.raises(ValueError, match="x0: got"):
        converse2d_transfer(K, 0.1, (6, 5), x0="mean")
    transfer = converse2d_transfer(K, 0.1, (6, 5))
    with pytest.raises(
        ValueError, match=r"got 8x7 with padding=1; .* 6x5 that transfer was prepared for"
    ):
        apply_transfer(X, transfer, padding=1)
    with pytest.raises(ValueError, match="x: got 2 channels .* the 3 of transfer"):
        apply_transfer(X[..., :2], transfer)
    with pytest.raises(TypeError, match="x: got int64; expected real floating-point"):
        apply_transfer(X.astype(int), transfer)
    with pytest.raises(ValueError, match="x0: got an array; expected none, .* x0='nearest'"):
        apply_transfer(X, transfer, x0=X)
    transfer = converse2d_transfer(K, 0.1, (6, 5), x0="array")
    with pytest.raises(ValueError, match="x0: got none; expected an array, .* x0='array'"):
        apply_transfer(X, transfer)
    with pytest.raises(ValueError, match=r"x0: got shape \(5, 5, 3\); expected \[..., 6, 5, 3\]"):
        apply_transfer(X, transfer, x0=X[:5])
    with pytest.raises(TypeError, match="x0: got str; expected a JAX or NumPy array"):
        apply_transfer(X, transfer, x0="nearest")


def test_blur() -> None:
    with pytest.raises(ValueError, match="x: got 6x5; expected multiples of scale=2: crop"):
        blur_downsample(X, K, scale=2)
    with pytest.raises(ValueError, match="x: got leading axes"):
        blur_downsample(X[None].repeat(3, 0), K[None].repeat(2, 0))
    with pytest.raises(ValueError, match="y: got 3 channels .* the 2 of kernel"):
        blur_downsample_adjoint(X, K[..., :2])


def test_method() -> None:
    x, kernel = np.ones((8, 8, 2), np.float32), np.ones((3, 3, 2), np.float32)
    with pytest.raises(ValueError, match="method: got 'FFT'; expected 'auto', 'fft', "):
        converse2d(x, kernel, 0.1, method="FFT")
    with pytest.raises(ValueError, match="method: got 'direct' for .* 3x3; expected .* scale=2"):
        converse2d(x, kernel, 0.1, scale=2, method="direct")
    with pytest.raises(ValueError, match="method: got 'direct' for .* 3x3; expected .* scale=2"):
        converse2d_transfer(kernel, 0.1, (8, 8), scale=2, method="direct")


def test_the_method_is_chosen_by_platform_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    assert choose_method("auto", (2, 2), (64, 64), 2) == "direct"
    assert choose_method("auto", (5, 5), (268, 268), 1) == "dft"
    # 512 = 2^9 is what an FFT is made for, 509 is prime.
    assert choose_method("auto", (5, 5), (512, 512), 1) == "fft"
    assert choose_method("auto", (5, 5), (509, 509), 1) == "dft"
    assert choose_method("auto", (5, 5), (1021, 1021), 1) == "fft"
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    # Patches of 64 and 128, padded by 4 as in the networks; 136 = 8 * 17. 139 is prime.
    assert choose_method("auto", (5, 5), (72, 72), 1) == "dft"
    assert choose_method("auto", (5, 5), (136, 136), 1) == "fft"
    assert choose_method("auto", (5, 5), (139, 139), 1) == "dft"
    assert choose_method("fft", (2, 2), (64, 64), 2) == "fft"
    monkeypatch.setattr("jax.default_backend", lambda: "tpu")
    # Several would gather the whole batch for an FFT.
    assert choose_method("auto", (5, 5), (1024, 1024), 1) == "dft"


def test_what_was_probably_meant() -> None:
    x = X[None].repeat(4, 0)
    with pytest.raises(ValueError, match=r"lam: got leading axes \(4, 1, 1\); .* lam\[:, 0, 0\]"):
        converse2d(x, K, np.ones((4, 1, 1, 3), np.float32))
    with pytest.raises(ValueError, match="x: got leading axes .*for volumes"):
        converse2d(x[None], K[None].repeat(3, 0), 0.1)
    for name in ("scale", "padding"):
        with pytest.raises(
            TypeError, match=f"{name}: got a traced value; .* static_argnames='{name}'"
        ):
            jax.jit(lambda n, name=name: converse2d(X, K, 0.1, **{name: n}))(1)


def test_numbers_of_numpy_are_numbers() -> None:
    one = np.int64(1)
    result = converse2d(X, K, np.float32(0.1), scale=2 * one, padding=one)
    np.testing.assert_array_equal(result, converse2d(X, K, 0.1, scale=2, padding=1))
    converse2d_transfer(K, 0.1, (one * 6, one * 5), scale=one)
    for lam in (2, np.int64(2), jnp.int32(2), np.full(3, 2), jnp.full(3, 2)):
        np.testing.assert_array_equal(converse2d(X, K, lam), converse2d(X, K, 2.0))


def test_a_blur_for_each_example() -> None:
    x, kernels = np.stack([X, 2 * X]), np.stack([K, K / 9])
    each = [blur_downsample(a, k) for a, k in zip(x, kernels, strict=True)]
    np.testing.assert_allclose(blur_downsample(x, kernels), np.stack(each), rtol=1e-5)
