"""Time what comes before the first result: tracing, lowering and compiling, on the default device.

The operator's gradient by each method, beside Algorithm 1's equation in ten lines of `jnp.fft`; the
training step of a U-Net that up-samples twice with the operator, beside one with transposed
convolutions; and the training step of Converse-DnCNN.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.command import Parser, Table, pin
from converse_jax import converse2d
from converse_jax.models import ConverseDnCNN
from converse_jax.nn import Converse2D
from converse_jax.ops._function import Function


def main() -> int:
    """Run the command; the exit status."""
    parser = Parser("benchmarks.compile_time", __doc__, "--quick", "--threads")
    args = parser.parse_args()
    pin(args.threads, parser)
    table = Table("", dict.fromkeys(("trace s", "lower s", "compile s", "all s"), ".2f"))
    rounds = 1 if args.quick else 5
    for name, (function, arguments) in programs(blocks=2 if args.quick else 20).items():
        seconds = [first_call(function, *arguments) for _ in range(rounds)]
        parts = [statistics.median(part) for part in zip(*seconds, strict=True)]
        table.add(name, [*parts, sum(parts)])
    return 0


def programs(*, blocks: int) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """What is compiled, with its arguments."""
    arrays = jnp.ones((8, 16, 16, 16)), jnp.full((5, 5, 16), 0.04), jnp.full(16, 0.1)

    def gradient(operator: Callable[..., jax.Array]) -> Any:
        return jax.grad(lambda *a: jnp.sum(operator(*a) ** 2), (0, 1, 2)), arrays

    def by(method: Any) -> Callable[..., jax.Array]:
        return lambda *a: converse2d(*a, scale=2, padding=2, method=method)

    def step(network: nnx.Module) -> Any:
        graphdef, state = nnx.split(network)
        loss = jax.grad(lambda state, x: jnp.mean(nnx.merge(graphdef, state)(x) ** 2))
        return loss, (state, jnp.ones((4, 64, 64, 1)))

    rows = {f"gradient, {method}": gradient(by(method)) for method in ("auto", "dft", "fft")}
    rows["gradient, textbook jnp.fft"] = gradient(textbook)
    rows["U-Net, Converse2D"] = step(UNet(converse))
    rows["U-Net, transposed convolution"] = step(UNet(transposed_convolution))
    dncnn = ConverseDnCNN(1, num_blocks=blocks, rngs=nnx.Rngs(0))
    return rows | {f"training step, {blocks} blocks": step(dncnn)}


class UNet(nnx.Module):
    """Two levels: convolutions that halve, and what `up` makes to double."""

    def __init__(self, up: Callable[[int, nnx.Rngs], Callable[[jax.Array], jax.Array]]) -> None:
        rngs = nnx.Rngs(0)

        def conv(inputs: int, outputs: int, strides: int = 1) -> nnx.Conv:
            return nnx.Conv(inputs, outputs, (3, 3), strides=strides, rngs=rngs)

        self.head, self.tail = conv(1, 16), conv(16, 1)
        self.down = nnx.List([conv(16, 32, 2), conv(32, 64, 2)])
        self.narrow = nnx.List([conv(64, 32), conv(32, 16)])
        self.up = nnx.List([up(32, rngs), up(16, rngs)])
        self.join = nnx.List([conv(64, 32), conv(32, 16)])

    def __call__(self, x: jax.Array) -> jax.Array:
        maps = [nnx.relu(self.head(x))]
        for down in self.down:
            maps.append(nnx.relu(down(maps[-1])))
        x = maps.pop()
        for narrow, up, join in zip(self.narrow, self.up, self.join, strict=True):
            x = jnp.concatenate([up(narrow(x)), maps.pop()], -1)
            x = nnx.relu(join(x))
        return self.tail(x)


def converse(features: int, rngs: nnx.Rngs) -> Converse2D:
    """An up-sampling layer of the paper."""
    return Converse2D(features, 5, scale=2, padding=2, rngs=rngs)


def transposed_convolution(features: int, rngs: nnx.Rngs) -> nnx.ConvTranspose:
    """What U-Nets have."""
    return nnx.ConvTranspose(features, features, (4, 4), strides=(2, 2), rngs=rngs)


def textbook(y: jax.Array, kernel: jax.Array, lam: jax.Array, scale: int = 2) -> jax.Array:
    """The paper's Algorithm 1 as one writes it down."""
    y = jnp.pad(y, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="wrap").transpose(0, 3, 1, 2)
    height, width = y.shape[-2:]
    size, lam = (scale * height, scale * width), lam[:, None, None]
    taps = jnp.zeros((y.shape[1], *size)).at[:, :5, :5].set(kernel.transpose(2, 0, 1))
    otf = jnp.fft.fft2(jnp.roll(taps, (-2, -2), (-2, -1)))
    sparse = jnp.zeros((*y.shape[:2], *size)).at[..., ::scale, ::scale].set(y)
    nearest = jnp.repeat(jnp.repeat(y, scale, -1), scale, -2)
    target = otf.conj() * jnp.fft.fft2(sparse) + jnp.fft.fft2(lam * nearest)

    def aliased(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-2], scale, height, scale, width).mean((-4, -2))

    rest = aliased(otf * target) / (aliased(jnp.abs(otf) ** 2) + lam)
    spectrum = (target - otf.conj() * jnp.tile(rest, (1, 1, scale, scale))) / lam
    border = scale * 2
    return jnp.fft.ifft2(spectrum).real[..., border:-border, border:-border]


def first_call(function: Callable[..., Any], *args: Any) -> tuple[float, float, float]:
    """Seconds to trace, to lower and to compile, with nothing in JAX's caches and ours."""
    jax.clear_caches()
    for known in gc.get_objects():
        if isinstance(known, Function):
            known._made.clear()
    times = [time.perf_counter()]
    traced = jax.jit(function).trace(*args)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    lowered.compile()
    times.append(time.perf_counter())
    trace, lower, compile_ = (b - a for a, b in itertools.pairwise(times))
    return trace, lower, compile_


if __name__ == "__main__":
    sys.exit(main())
