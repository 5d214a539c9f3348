"""The operator as the networks call it, and what may be put around all of these calls."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from converse_jax.ops import InitialEstimate, PaddingMode, converse2d

Around = Callable[..., Array]
"""``around(owner, x, kernel, lam, **options)``, called in place of `converse2d`.

All options of `operate` are given.
"""

_around: contextvars.ContextVar[Around | None] = contextvars.ContextVar("around", default=None)


def operate(
    owner: nnx.Module,
    x: Float[Array, "*batch H W C"],
    kernel: Float[Array, "*kernels kh kw C"],
    lam: Float[Array, "*lams"],
    *,
    scale: int = 1,
    padding: int = 0,
    padding_mode: PaddingMode = "circular",
    x0: InitialEstimate = "nearest",
) -> Float[Array, "*batch sH sW C"]:
    """`converse2d`, or what `around_operators` put in its place while the network is traced.

    Args:
      owner: the module whose parameters make kernel and lam: it tells the calls apart.
      x: as for `converse2d`.
      kernel: as for `converse2d`.
      lam: as for `converse2d`.
      scale: as for `converse2d`.
      padding: as for `converse2d`.
      padding_mode: as for `converse2d`.
      x0: as for `converse2d`.
    """
    options: dict[str, Any] = {
        "scale": scale,
        "padding": padding,
        "padding_mode": padding_mode,
        "x0": x0,
    }
    around = _around.get()
    if around is None:
        return converse2d(x, kernel, lam, **options)
    return around(owner, x, kernel, lam, **options)


@contextlib.contextmanager
def around_operators(around: Around) -> Iterator[None]:
    """While a network is called or traced in this context, its operators are ``around(...)``."""
    token = _around.set(around)
    try:
        yield
    finally:
        _around.reset(token)


def shard_maps(mesh: jax.sharding.Mesh, axis: str) -> contextlib.AbstractContextManager[None]:
    """Share the maps of single pictures out to the devices of a mesh axis, while a net is traced.

    Between the operators each device holds some rows of every map; around an operator it holds all
    rows of some channels, as each operator reads whole maps. An operator so costs two exchanges of
    its map, each of ``(devices - 1) / devices`` of it, and no device ever holds a whole one. The
    result is that of one device, to rounding. The number of channels inside the blocks, twice the
    width, should be a multiple of the number of devices; rows and channels that do not divide
    evenly are padded by the compiler.

        with shard_maps(mesh, "rows"):
            y = jax.jit(model)(x)

    Args:
      mesh: the devices.
      axis: name of the mesh axis that is shared out.
    """
    spec = jax.sharding.PartitionSpec

    def constrain(x: Array, dimension: int) -> Array:
        parts: list[Any] = [spec.UNCONSTRAINED] * x.ndim
        for i in (-3, -2, -1):
            parts[i] = None
        parts[dimension] = axis
        sharding = jax.sharding.NamedSharding(mesh, spec(*parts))
        return jax.lax.with_sharding_constraint(x, sharding)

    def around(owner: nnx.Module, x: Array, kernel: Array, lam: Array, **options: Any) -> Array:
        # Named on both sides of each exchange: the compiler would else share out the channels
        # between the operators too, and gather them for each sum over channels.
        y = converse2d(constrain(constrain(x, -3), -1), kernel, lam, **options)
        return constrain(constrain(y, -1), -3)

    return around_operators(around)
