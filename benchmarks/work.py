"""The pieces of work: the same mathematics in JAX (channels last) and PyTorch (channels first).

Every builder draws its numbers from one seed, gives each side its own layout before the clock
starts, and measures the error of both float32 results against Algorithm 1 in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.utils.checkpoint import checkpoint

from benchmarks import algorithm1
from converse_jax import apply_transfer, converse2d, converse2d_transfer
from converse_jax.models import ConverseDnCNN
from converse_jax.weights import load_torch_state

EPS = 1e-5


@dataclass(frozen=True)
class Work:
    """One row: two programs that return finished results, their errors, and the memory of ours."""

    ours: Callable[[], Any]
    reference: Callable[[], Any]
    error: float
    reference_error: float
    peak_mb: float | None


Builder = Callable[[], Work]


def pieces(size: int, channels: int, blocks: int) -> Iterator[tuple[str, Builder]]:
    """Name and builder of every row, for maps of `size` x `size` (in training half of it)."""
    shape = f"1x{channels}x{size}x{size}"
    yield f"operator forward, {shape}", partial(operator_forward, size, channels, prepared=False)
    yield (
        f"operator forward, prepared, {shape}",
        partial(operator_forward, size, channels, prepared=True),
    )
    yield f"operator gradient, {shape}", partial(operator_gradient, size, channels)
    half = max(size // 2, 16)
    yield f"Converse-DnCNN inference, {size}x{size}", partial(dncnn_inference, size, blocks)
    yield f"Converse-DnCNN training gradient, {half}x{half}", partial(dncnn_gradient, half, blocks)


def operator_forward(size: int, channels: int, *, prepared: bool, kernel_size: int = 7) -> Work:
    """`converse2d`, or `apply_transfer` alone; the reference is all of Algorithm 1 either way."""
    padding = kernel_size - 1
    x, weight, bias = _operator_inputs(size, channels, kernel_size)
    ours_args: tuple[Any, ...] = (_nhwc(x), _kernel(weight), _logit(bias))

    def forward(x: jax.Array, kernel: jax.Array, logit: jax.Array) -> jax.Array:
        return converse2d(x, kernel, jax.nn.sigmoid(logit - 9) + EPS, padding=padding)

    program: Callable[..., jax.Array] = forward
    if prepared:
        padded = (size + 2 * padding, size + 2 * padding)
        lam = jax.nn.sigmoid(ours_args[2] - 9) + EPS
        ours_args = (ours_args[0], converse2d_transfer(ours_args[1], lam, padded))
        program = partial(apply_transfer, padding=padding)
    ours, peak_mb = _compile(program, *ours_args)

    def reference(*args: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return algorithm1.converse2d(*args, padding=padding, eps=EPS)

    truth = [reference(x.double(), weight.double(), bias.double()).numpy()]
    return Work(
        ours,
        partial(reference, x, weight, bias),
        _error([_nchw(ours())], truth),
        _error([reference(x, weight, bias).numpy()], truth),
        peak_mb,
    )


def operator_gradient(size: int, channels: int, kernel_size: int = 7) -> Work:
    """Forward and backward: gradients of `sum(y * cotangent)` in map, kernel and lambda logit."""
    padding = kernel_size - 1
    inputs = _operator_inputs(size, channels, kernel_size)
    cotangent = torch.randn(inputs[0].shape)
    weights = _nhwc(cotangent)

    def loss(x: jax.Array, kernel: jax.Array, logit: jax.Array, weights: jax.Array) -> jax.Array:
        y = converse2d(x, kernel, jax.nn.sigmoid(logit - 9) + EPS, padding=padding)
        return jnp.sum(y * weights)

    args = (_nhwc(inputs[0]), _kernel(inputs[1]), _logit(inputs[2]), weights)
    ours, peak_mb = _compile(jax.grad(loss, argnums=(0, 1, 2)), *args)

    def reference(cotangent: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = tuple(a.detach().requires_grad_() for a in inputs)
        y = algorithm1.converse2d(*inputs, padding=padding, eps=EPS)
        return torch.autograd.grad(torch.sum(y * cotangent), inputs)

    truth = [g.numpy() for g in reference(cotangent.double(), *(a.double() for a in inputs))]
    gx, gk, gb = ours()
    mine = [
        _nchw(gx),
        np.moveaxis(np.asarray(gk), -1, 0)[None],
        np.asarray(gb)[None, :, None, None],
    ]
    return Work(
        ours,
        partial(reference, cotangent, *inputs),
        _error(mine, truth),
        _error([g.numpy() for g in reference(cotangent, *inputs)], truth),
        peak_mb,
    )


def _operator_inputs(size: int, channels: int, kernel_size: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    taps = torch.randn(1, channels, kernel_size**2).softmax(dim=-1)
    weight = taps.reshape(1, channels, kernel_size, kernel_size)
    return torch.randn(1, channels, size, size), weight, 0.5 * torch.randn(1, channels, 1, 1)


def dncnn_inference(size: int, blocks: int) -> Work:
    """The whole network on one gray picture; parameters are arguments of our program."""
    theirs, graph, params, rest = _networks(blocks)
    x = torch.rand(1, 1, size, size)

    def forward(params: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, rest)(x)

    ours, peak_mb = _compile(forward, params, _nhwc(x))

    def reference(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model(x)

    truth = [reference(deepcopy(theirs).double(), x.double()).numpy()]
    return Work(
        ours,
        partial(reference, theirs, x),
        _error([_nchw(ours())], truth),
        _error([reference(theirs, x).numpy()], truth),
        peak_mb,
    )


def dncnn_gradient(size: int, blocks: int) -> Work:
    """L1 loss of a batch of one and its gradient in every parameter (no optimizer)."""
    theirs, graph, params, rest = _networks(blocks)
    x, target = torch.rand(1, 1, size, size), torch.rand(1, 1, size, size)

    def loss(params: Any, x: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.mean(jnp.abs(nnx.merge(graph, params, rest)(x) - target))

    ours, peak_mb = _compile(jax.value_and_grad(loss), params, _nhwc(x), _nhwc(target))

    def reference(
        model: torch.nn.Module, x: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        value = torch.mean(torch.abs(model(x) - target))
        return value.detach(), *torch.autograd.grad(value, tuple(model.parameters()))

    exact = deepcopy(theirs).double()
    for block in exact.m_body:  # float64 activations of 20 blocks need not all be kept
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    truth = [a.numpy() for a in reference(exact, x.double(), target.double())]
    # Gradients lie as their parameters do: the loader of parameters brings them to our layout.
    gradients = (a.astype(np.float32) for a in truth[1:])
    named = {name: g for (name, _), g in zip(theirs.named_parameters(), gradients, strict=True)}
    model = nnx.clone(nnx.merge(graph, params, rest))  # merge shares its variables with params
    load_torch_state(model, named)
    expected = jax.tree.leaves(nnx.state(model, nnx.Param))
    value, mine = ours()
    return Work(
        ours,
        partial(reference, theirs, x, target),
        _error([value, *jax.tree.leaves(mine)], [truth[0], *expected]),
        _error([a.numpy() for a in reference(theirs, x, target)], truth),
        peak_mb,
    )


def _networks(blocks: int) -> tuple[algorithm1.ConverseDnCNN, Any, Any, Any]:
    """The paper's Converse-DnCNN on both sides, with the same parameters; ours as a pure state."""
    torch.manual_seed(0)
    theirs = algorithm1.ConverseDnCNN(num_blocks=blocks)
    model = ConverseDnCNN(num_blocks=blocks, rngs=nnx.Rngs(0))
    load_torch_state(model, {name: a.numpy() for name, a in theirs.state_dict().items()})
    return theirs, *nnx.split(model, nnx.Param, ...)


def _compile(program: Callable[..., Any], *args: Any) -> tuple[Callable[[], Any], float | None]:
    """The compiled program on `args`, and its memory in MB: temporaries, arguments, results."""
    compiled = jax.jit(program).lower(*args).compile()
    memory = compiled.memory_analysis()
    peak_mb = None
    if memory is not None:
        total = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        peak_mb = (total + memory.output_size_in_bytes) / 1e6
    return lambda: jax.block_until_ready(compiled(*args)), peak_mb


def _error(arrays: Any, truth: Any) -> float:
    """The largest over all arrays of `max|a - truth| / max|truth|`."""
    worst = 0.0
    for a, b in zip(arrays, truth, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"the two sides disagree on a shape: {a.shape} and {b.shape}")
        worst = max(worst, float(np.max(np.abs(a - b)) / np.max(np.abs(b))))
    return worst


def _nhwc(x: torch.Tensor) -> jax.Array:
    return jnp.asarray(np.ascontiguousarray(np.moveaxis(x.numpy(), 1, -1)))


def _nchw(x: jax.Array) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


def _kernel(weight: torch.Tensor) -> jax.Array:
    return jnp.asarray(np.ascontiguousarray(np.moveaxis(weight.numpy()[0], 0, -1)))


def _logit(bias: torch.Tensor) -> jax.Array:
    return jnp.asarray(bias.numpy()[0, :, 0, 0])
