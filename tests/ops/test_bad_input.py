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

X = np.ones((6, 5, 3), np.float32)
K = np.ones((3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": X.astype(int)}, TypeError, r"x must be real floating-point, got int64: convert"),
        ({"x": X.astype(np.uint8)}, TypeError, r"got uint8.*/ 255"),
        ({"x": X.astype(complex)}, TypeError, "x must be real floating-point, got complex128"),
        ({"x": [[1.0]]}, TypeError, "x must be a JAX or NumPy array, got list"),
        ({"x": X[..., 0]}, ValueError, r"x must have shape \[..., H, W, C\].*x\[..., None\]"),
        ({"x": X[:0]}, ValueError, r"H, W, C >= 1, got \(0, 5, 3\)"),
        ({"x": X[..., :2]}, ValueError, "x has 2 channels .* kernel has 3"),
        ({"kernel": K.astype(int)}, TypeError, "kernel must be real floating-point, got int64"),
        ({"kernel": K[0]}, ValueError, r"kernel must have shape .* got \(3, 3\)"),
        ({"kernel": K[:0]}, ValueError, "kernel must have shape"),
        ({"kernel": np.ones((7, 3, 3))}, ValueError, "kernel of 7x3 is larger than .* 6x5: use"),
        ({"kernel": np.ones((2, 3, 3, 3)), "x": X[None].repeat(3, 0)}, ValueError, "leading axes"),
        ({"lam": 0}, ValueError, r"lam must be > 0 everywhere, its smallest value is 0"),
        ({"lam": -1.0}, ValueError, "lam must be > 0"),
        ({"lam": float("nan")}, ValueError, "lam must be > 0"),
        ({"lam": np.array([1.0, 0.0, 1.0])}, ValueError, "lam must be > 0 .* value is 0.0"),
        ({"lam": np.ones(2)}, ValueError, r"lam must be a scalar or .* 3 channels, got \(2,\)"),
        ({"lam": "0.1"}, TypeError, "lam must be a number or an array, got str"),
        ({"lam": True}, TypeError, "lam must be a number or an array, got bool"),
        ({"lam": jnp.ones(3, int)}, TypeError, "lam must be real floating-point, got int32"),
        ({"scale": 0}, ValueError, "scale must be an integer >= 1, got 0"),
        ({"scale": 1.5}, ValueError, "scale must be an integer >= 1, got 1.5"),
        ({"scale": True}, ValueError, "scale must be an integer >= 1, got True"),
        ({"padding": -1}, ValueError, "padding must be an integer >= 0, got -1"),
        ({"padding": 1.0}, ValueError, "padding must be an integer >= 0, got 1.0"),
        (
            {"padding_mode": "zeros"},
            ValueError,
            "padding_mode must be one of 'circular', .*'zeros'",
        ),
        ({"padding": 5, "padding_mode": "reflect"}, ValueError, "larger than 5 pixels .* 6x5"),
        ({"x0": "y"}, ValueError, "x0 must be 'nearest' or 'zero', got 'y'"),
    ],
)
def test_converse2d(changes: dict, error: type[Exception], message: str) -> None:
    arguments = {"x": X, "kernel": K, "lam": 0.1} | changes
    with pytest.raises(error, match=message):
        converse2d(**arguments)


def test_rejected_inside_jit_as_well() -> None:
    with pytest.raises(ValueError, match="kernel of 3x3 is larger than scale x the padded map"):
        jax.jit(converse2d)(X[:2], K, 0.1)


def test_traced_lambda_is_not_looked_at() -> None:
    assert jax.jit(converse2d)(X, K, 0.1).shape == X.shape


def test_transfer() -> None:
    with pytest.raises(ValueError, match="kernel of 3x3 is larger"):
        converse2d_transfer(K, 0.1, (2, 2))
    with pytest.raises(ValueError, match="x0 must be"):
        converse2d_transfer(K, 0.1, (6, 5), x0="mean")
    transfer = converse2d_transfer(K, 0.1, (6, 5))
    with pytest.raises(ValueError, match=r"with padding=1 is 8x7, .* prepared for 6x5"):
        apply_transfer(X, transfer, padding=1)
    with pytest.raises(ValueError, match="x has 2 channels .* transfer has 3"):
        apply_transfer(X[..., :2], transfer)
    with pytest.raises(TypeError, match="x must be real floating-point"):
        apply_transfer(X.astype(int), transfer)


def test_blur() -> None:
    with pytest.raises(ValueError, match="x of 6x5 is no multiple of scale=2: crop"):
        blur_downsample(X, K, scale=2)
    with pytest.raises(ValueError, match=r"kernel must have shape \[kh, kw, C\]"):
        blur_downsample(X, K[None])
    with pytest.raises(ValueError, match="x has 3 channels .* kernel has 2"):
        blur_downsample_adjoint(X, K[..., :2])


def test_method() -> None:
    x, kernel = np.ones((8, 8, 2), np.float32), np.ones((3, 3, 2), np.float32)
    with pytest.raises(ValueError, match="method must be one of 'auto', 'fft', .*, got 'FFT'"):
        converse2d(x, kernel, 0.1, method="FFT")
    with pytest.raises(ValueError, match="'direct' needs a kernel of at most scale=2 .* got 3x3"):
        converse2d(x, kernel, 0.1, scale=2, method="direct")
    with pytest.raises(ValueError, match="'direct' needs a kernel of at most scale=2 .* got 3x3"):
        converse2d_transfer(kernel, 0.1, (8, 8), scale=2, method="direct")


def test_the_method_is_chosen_by_platform_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    assert choose_method("auto", (2, 2), (64, 64), 2) == "direct"
    assert choose_method("auto", (5, 5), (268, 268), 1) == "dft"
    # 512 = 2^9 is what an FFT is made for, 509 is prime.
    assert choose_method("auto", (5, 5), (512, 512), 1) == "fft"
    assert choose_method("auto", (5, 5), (509, 509), 1) == "dft"
    assert choose_method("auto", (5, 5), (1021, 1021), 1) == "fft"
    assert choose_method("fft", (2, 2), (64, 64), 2) == "fft"
    monkeypatch.setattr("jax.default_backend", lambda: "tpu")
    # Several would gather the whole batch for an FFT.
    assert choose_method("auto", (5, 5), (1024, 1024), 1) == "dft"
