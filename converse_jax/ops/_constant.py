"""Arrays that a program holds: made once, in NumPy's double precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jax.extend.core import Primitive
from jax.interpreters import mlir


@functools.lru_cache(maxsize=128)  # some entries take a megabyte
def _constant(build: Callable[..., Any], args: tuple[Any, ...], dtype: Any) -> np.ndarray:
    return build(*args).astype(dtype)


def constant(build: Callable[..., Any], *args: Any, dtype: Any) -> jax.Array:
    """`build(*args)` as a constant of the program, made once, in NumPy's double precision.

    An ordinary constant becomes an argument of the function that is traced, and a function that is
    partitioned over devices may have no such arguments. `build` takes the module that it calls as
    `xp`: it is `jax.numpy` where a size is symbolic, in a program to be exported.
    """
    if any(map(is_symbolic_dim, args)):
        return build(*args, xp=jnp).astype(dtype)
    return constant_p.bind(build=build, args=args, dtype=jnp.dtype(dtype))


constant_p = Primitive("constant")


@constant_p.def_impl
def _constant_array(**params: Any) -> jax.Array:
    return jnp.asarray(_constant(**params))


@constant_p.def_abstract_eval
def _constant_type(**params: Any) -> Any:
    return jax.core.ShapedArray(_constant(**params).shape, params["dtype"])


def _lower_constant(ctx: Any, **params: Any) -> Any:
    return [mlir.ir_constant(_constant(**params))]


mlir.register_lowering(constant_p, _lower_constant)
