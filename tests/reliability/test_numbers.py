"""Numbers at the edges: a finite image gives a finite result or a refusal, and stays by itself."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converse_jax import ModelCard
from converse_jax.models import ConverseDnCNN, ConverseNet, ConverseSRResNet, ConverseUSRNet
from converse_jax.ops import converse2d
from converse_jax.restore import RestoreError, Restorer

SMALL: dict[str, Any] = {"channels": 1, "num_features": 2, "num_blocks": 1}
KERNEL = np.full((3, 3), 1 / 9)

# The smallest numbers that float32 holds, what is far outside of [0, 1], and constants.
VALUES = {
    "zero": 0.0,
    "one": 1.0,
    "denormal": 1e-40,
    "least": float(np.finfo(np.float32).tiny),
    "negative": -1e6,
    "large": 1e15,
    "largest": 3e38,
}
SIZES = [(1, 1), (1, 2), (7, 1), (1, 30), (2, 2), (3, 11)]


def restorer(task: str) -> Restorer:
    scale, config = 1, SMALL
    if task == "sr":
        scale, config = 2, SMALL | {"scale": 2}
    make = {"denoise": ConverseDnCNN, "sr": ConverseSRResNet, "deblur": ConverseUSRNet}.get(task)
    model = (make or ConverseNet)(**config, rngs=nnx.Rngs(0))
    name, blind = type(model).__name__, task == "blind"
    kind = "deblur" if blind else task
    card = ModelCard("a", name, config, kind, 1, scale=scale, needs_kernel=task == "deblur")
    return Restorer(model, card)


@pytest.fixture(scope="module")
def restorers() -> dict[str, Restorer]:
    return {task: restorer(task) for task in ("denoise", "sr", "deblur", "blind")}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("task", ["denoise", "sr", "deblur", "blind"])
def test_finite_images_give_finite_results_or_a_refusal(
    restorers: dict[str, Restorer], task: str, value: float
) -> None:
    constant = np.full((6, 5, 1), value, np.float32)
    one_pixel = np.zeros_like(constant)
    one_pixel[2, 3] = value
    kernel = KERNEL if task == "deblur" else None
    for image in (constant, one_pixel):
        try:
            result = restorers[task](image, kernel=kernel)
        except RestoreError as error:
            assert "restoring it overflows" in str(error)
            assert abs(value) > 1e30
        else:
            assert np.isfinite(result).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("task", ["denoise", "sr", "deblur", "blind"])
def test_images_of_one_pixel_and_one_row(
    restorers: dict[str, Restorer], task: str, size: tuple[int, int]
) -> None:
    kernel = np.ones((1, 1)) if task == "deblur" else None  # a larger one does not fit, and is said
    result = restorers[task](np.full((*size, 1), 0.5, np.float32), kernel=kernel)
    scale = restorers[task].card.scale
    assert result.shape == (scale * size[0], scale * size[1], 1)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_in_float32_is_refused(
    restorers: dict[str, Restorer], value: float
) -> None:
    image = np.full((4, 4, 1), 0.5)
    image[1, 2] = value
    with pytest.raises(RestoreError, match="got 1 values that are NaN or infinite"):
        restorers["denoise"](image)


@pytest.mark.parametrize(
    ("method", "scale", "mode"),
    [
        *itertools.product(["fft", "dft"], [1, 2], ["circular", "replicate"]),
        ("direct", 2, "circular"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_bad_example_does_not_touch_its_neighbors(
    method: Any, scale: int, mode: Any, value: float
) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((3, 6, 5, 4), np.float32)
    kernel = rng.random((2, 2, 4), np.float32)
    bad = x.copy()
    bad[1] = value
    good, got = (
        np.asarray(
            converse2d(
                jnp.asarray(y),
                kernel,
                0.1,
                scale=scale,
                padding=1,
                padding_mode=mode,
                method=method,
            )
        )
        for y in (x, bad)
    )
    assert got[[0, 2]].tobytes() == good[[0, 2]].tobytes()


def test_a_bad_example_in_a_network_does_not_touch_its_neighbors() -> None:
    model = ConverseDnCNN(**SMALL, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).random((3, 8, 6, 1), np.float32)
    bad = x.copy()
    bad[1, 2, 2] = np.nan
    good, got = np.asarray(model(x)), np.asarray(model(bad))
    assert np.isnan(got[1]).all()  # in the frequency domain everything depends on everything
    assert got[[0, 2]].tobytes() == good[[0, 2]].tobytes()
