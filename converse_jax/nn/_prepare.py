"""Networks whose transfer functions are computed once, for pictures of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from converse_jax.nn._operate import around_operators
from converse_jax.ops import (
    Transfer,
    apply_transfer,
    converse2d,
    converse2d_transfer,
    is_direct,
)

Transfers = tuple[Transfer, ...]
"""The transfer function of each operator that has one, by the order of the first calls."""


def collect_transfers(model: Callable[..., Array], *args: Any) -> Transfers:
    """The transfer functions of all operators of a network, for arguments of these shapes.

    To be called under `jax.jit`: all other work of the network is left out by the compiler. An
    operator that is called several times, as the blocks of Converse-USRNet are, has one.

    Args:
      model: a Flax module.
      *args: its arguments. The values of the pictures do not matter, those of a blur kernel do.
    """
    found: dict[Any, Transfer] = {}

    def around(owner: nnx.Module, x: Array, kernel: Array, lam: Array, **options: Any) -> Array:
        key, padded, scale = _call(owner, x, options)
        if not is_direct(kernel.shape[-3:-1], scale) and key not in found:
            found[key] = converse2d_transfer(kernel, lam, padded, scale=scale, x0=options["x0"])
        # No kernel depends on a map: zeros have the shape, and cost nothing.
        shape = (*x.shape[:-3], scale * x.shape[-3], scale * x.shape[-2], x.shape[-1])
        return jnp.zeros(shape, x.dtype)

    with around_operators(around):
        model(*args)
    return tuple(found.values())


def call_prepared(model: Callable[..., Array], transfers: Transfers, *args: Any) -> Array:
    """``model(*args)``, the operators applied from what `collect_transfers` returned."""
    used: dict[Any, Transfer] = {}

    def around(owner: nnx.Module, x: Array, kernel: Array, lam: Array, **options: Any) -> Array:
        key, _, scale = _call(owner, x, options)
        if is_direct(kernel.shape[-3:-1], scale):
            return converse2d(x, kernel, lam, **options)
        if key not in used:
            used[key] = transfers[len(used)]
        border = {name: options[name] for name in ("padding", "padding_mode")}
        return apply_transfer(x, used[key], **border)

    with around_operators(around):
        return model(*args)


def _call(owner: nnx.Module, x: Array, options: dict[str, Any]) -> tuple[Any, Any, int]:
    padding, scale = options["padding"], options["scale"]
    shape = (x.shape[-3] + 2 * padding, x.shape[-2] + 2 * padding)
    return (id(owner), shape, scale), shape, scale


class PreparedModel:
    """A network prepared for pictures of one size: the same results, without their transfers.

    A map of `apply_transfer` costs the transforms alone. The transfer functions take as much memory
    as one feature map of each operator: `nbytes`; `free` gives it back.
    """

    def __init__(self, model: nnx.Module, x: Any, *args: Any) -> None:
        """Prepare a network.

        Args:
          model: the network; its parameters are those of now.
          x: pictures, or a `jax.ShapeDtypeStruct` of their shape.
          *args: its further arguments, as the blur kernel of Converse-USRNet; they are kept.
        """
        graphdef, self._state = nnx.split(model)
        self._shape, self._args = tuple(x.shape), args

        def collect(state: Any, args: Any) -> Transfers:
            return collect_transfers(nnx.merge(graphdef, state), jnp.zeros(x.shape, x.dtype), *args)

        self._transfers: Transfers | None = jax.jit(collect)(self._state, args)
        self._run = jax.jit(
            lambda state, transfers, x, args: call_prepared(
                nnx.merge(graphdef, state), transfers, x, *args
            )
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the transfer functions."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._transfers))

    def __call__(self, x: Array) -> Array:
        """The network's result for pictures of the shape it was prepared for.

        Raises:
          ValueError: pictures of another shape.
          RuntimeError: it was freed.
        """
        if self._transfers is None:
            raise RuntimeError("this prepared model was freed: prepare the model again")
        if tuple(x.shape) != self._shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but the model was prepared for {self._shape}: "
                "prepare it for this shape as well"
            )
        return self._run(self._state, self._transfers, x, self._args)

    def free(self) -> None:
        """Give the memory of the transfer functions back."""
        self._transfers = None


def prepare(model: nnx.Module, x: Any, *args: Any) -> PreparedModel:
    """Compute the transfer functions of all operators of a network once, for pictures like x.

        denoise = prepare(model, jax.ShapeDtypeStruct((1, 256, 256, 1), jnp.float32))
        clean = [denoise(picture) for picture in pictures]

    Args:
      model: a network of `converse_jax.models`, or any module made of the layers of this package.
      x: pictures, or a `jax.ShapeDtypeStruct` of their shape.
      *args: further arguments of the network, as the blur kernel of Converse-USRNet.

    Returns:
      A function of pictures of that shape, with `nbytes` and `free()`.
    """
    return PreparedModel(model, x, *args)
