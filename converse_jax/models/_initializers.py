"""How the networks draw their initial weights."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from converse_jax.nn._converse import Initializer


def torch_uniform(fan_in: int) -> Initializer:
    """Uniform in +-1/sqrt(fan_in), as PyTorch draws weights and biases of its layers."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Array:
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def uniform_linear(inputs: int, outputs: int, **kwargs: Any) -> nnx.Linear:
    """A 1x1 convolution, or fully connected layer, as PyTorch draws it."""
    init = torch_uniform(inputs)
    return nnx.Linear(inputs, outputs, kernel_init=init, bias_init=init, **kwargs)


def uniform_conv(inputs: int, outputs: int, **kwargs: Any) -> nnx.Conv:
    """A 3x3 convolution with zero padding, as PyTorch draws it."""
    init = torch_uniform(9 * inputs)
    return nnx.Conv(inputs, outputs, (3, 3), kernel_init=init, bias_init=init, **kwargs)


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None: the others are left to what they are passed to."""
    return {name: value for name, value in options.items() if value is not None}
