"""Each baseline against an independent implementation of it; skipped where PyTorch is absent."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch", reason='PyTorch is not installed: pip install -e ".[bench]"')

from converse_jax import models
from tests.models import torch_baselines as theirs


def drawn(model: nnx.Module) -> tuple[Any, dict[str, np.ndarray]]:
    """The network with numbers that leave nothing out: biases, scales and averages too."""
    rng = np.random.default_rng(0)
    numbers: dict[str, np.ndarray] = {}
    flat = []
    for path, variable in nnx.to_flat_state(nnx.state(model, models.WEIGHTS)):
        shape = variable.shape
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 10
        value = rng.normal(0, 1 / np.sqrt(fan_in), shape).astype(np.float32)
        if path[-1] in ("scale", "var"):
            value = 1 + np.abs(value)
        numbers[".".join(map(str, path))] = value
        flat.append((path, variable.replace(jax.numpy.asarray(value))))
    nnx.update(model, nnx.from_flat_state(flat))
    return model, numbers


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, np.float32)


def run(model: Any, *args: np.ndarray) -> np.ndarray:
    return np.asarray(nnx.jit(lambda model, *args: model(*args))(model, *args))


def assert_close(ours: np.ndarray, wanted: np.ndarray) -> None:
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


SMALL = {"num_features": 4, "num_blocks": 2}


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("transposed", [False, True])
def test_dncnn_of_blocks(transposed: bool, kernel_size: int) -> None:
    make = models.ConvTransposeDnCNN if transposed else models.ConvDnCNN
    model, numbers = drawn(make(kernel_size=kernel_size, **SMALL, rngs=nnx.Rngs(0)))
    x = image(2, 7, 9, 1)
    spatial = (
        theirs.conv_transpose_same(kernel_size)
        if transposed
        else theirs.conv_same("circular", kernel_size)
    )
    assert_close(run(model, x), theirs.stack(numbers, x, 2, spatial))


def test_dncnn() -> None:
    model, numbers = drawn(models.DnCNN(num_features=4, num_layers=4, rngs=nnx.Rngs(0)))
    x = image(2, 7, 9, 1)
    model.train()
    before = model.norms[0].mean[...]
    assert_close(run(model, x), theirs.dncnn(numbers, x, 2, training=True))
    assert not np.allclose(before, model.norms[0].mean[...], atol=1e-3)
    model, numbers = drawn(model)
    model.eval()
    wanted = theirs.dncnn(numbers, x, 2, training=False)
    assert_close(run(model, x), wanted)
    merged, changed = model.for_inference()
    assert changed == {"batch_norm": False}
    assert_close(run(merged, x), wanted)


@pytest.mark.parametrize("transposed", [False, True])
def test_srresnet_of_blocks(transposed: bool) -> None:
    make = models.ConvTransposeSRResNet if transposed else models.ConvSRResNet
    model, numbers = drawn(make(num_features=4, num_blocks=1, rngs=nnx.Rngs(0)))
    x = image(2, 5, 6, 3)
    assert_close(run(model, x), theirs.conv_srresnet(numbers, x, 1, transposed=transposed))


@pytest.mark.parametrize("upsampler", ["pixel_shuffle", "nearest", "conv_transpose", "converse"])
def test_srresnet(upsampler: Any) -> None:
    model = models.SRResNet(2, num_features=3, num_blocks=1, upsampler=upsampler, rngs=nnx.Rngs(0))
    model, numbers = drawn(model)
    x = image(1, 4, 5, 3)
    assert_close(run(model, x), theirs.srresnet(numbers, x, 1, upsampler))


def test_blind_deblurring() -> None:
    model, numbers = drawn(models.ConvNet(num_iterations=2, **SMALL, rngs=nnx.Rngs(0)))
    x = image(2, 6, 8, 3)
    spatial = theirs.conv_same("circular", 3)
    assert_close(run(model, x), theirs.stack(numbers, x, 2, spatial, times=2))


def test_deblurring_with_a_known_kernel() -> None:
    model = models.ConvUSRNet(num_iterations=2, blur_size=3, **SMALL, rngs=nnx.Rngs(0))
    model, numbers = drawn(model)
    x, kernels = image(2, 7, 6, 3), image(2, 3, 3)
    kernels /= kernels.sum((-2, -1), keepdims=True)
    assert_close(run(model, x, kernels), theirs.conv_usrnet(numbers, x, kernels, 2, 2))
