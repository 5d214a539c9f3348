"""Our side of the rows, without PyTorch: operator, networks and training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh

from benchmarks.suite import Inference, Operator, Training
from converse_jax import converse2d, models

if TYPE_CHECKING:  # the methods are timed without what training needs
    from train.config import Config
    from train.state import FunctionalNetwork

EPS = 1e-5
LEARNING_RATE = 1e-4
_CONFIG = Path(__file__).parents[1] / "configs" / "dncnn_gray_sigma25.py"


def lam_of(logit: jax.Array) -> jax.Array:
    """The paper's lambda."""
    return jax.nn.sigmoid(logit - 9) + EPS


def operator(row: Operator, method: Any = "auto") -> Callable[..., tuple[jax.Array, ...]]:
    """Of map, kernel and lambda logit; the gradient takes a cotangent as well."""

    def forward(x: jax.Array, kernel: jax.Array, logit: jax.Array) -> jax.Array:
        lam = lam_of(logit)
        return converse2d(x, kernel, lam, scale=row.scale, method=method, **row.border)

    def gradient(*args: jax.Array) -> tuple[jax.Array, ...]:
        *inputs, cotangent = args
        return jax.vjp(forward, *inputs)[1](cotangent)

    return gradient if row.what == "gradient" else lambda *args: (forward(*args),)


def network(row: Inference) -> Any:
    """The network of a row, shapes only: values are filled in later, or not needed."""
    make = getattr(models, row.network)
    return nnx.eval_shape(lambda: make(**row.options, rngs=nnx.Rngs(0)))


def training(row: Training) -> tuple[Config, FunctionalNetwork]:
    """The configuration of `python -m train` for a row, and its network."""
    from train.config import Optimizer, read_config
    from train.state import FunctionalNetwork

    paper = read_config(str(_CONFIG))
    model = replace(paper.model, num_blocks=row.blocks)  # type: ignore[call-arg]
    optimizer = Optimizer(learning_rate=LEARNING_RATE, schedule="constant")
    changes: dict[str, Any] = {"batch_size": row.batch, "accumulation": 1, "remat": False}
    config = replace(paper, model=model, optimizer=optimizer, **changes)
    return config, FunctionalNetwork(config)


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """The devices as `python -m train` arranges them."""
    from train.state import BATCH_AXIS

    return Mesh(np.array(devices), (BATCH_AXIS,), axis_types=(AxisType.Auto,))
