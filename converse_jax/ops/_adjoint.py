"""Linear and bilinear functions that are each other's derivatives, each stated once.

JAX derives a transpose for every function, but seldom the one that was written already: that of a
real FFT is a complex FFT of the whole map, that of a padding is made of full-size copies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def adjoint_pair(
    f: Callable[..., Any], g: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``f`` and ``g`` with ``<f(x), y> = <x, g(y)>``: the derivative of each is the other.

    Args:
      f: linear in its first argument; the others are static. The keyword `plain`, False by
        default, asks for array operations without rules and hints, and is handed on to f.
      g: its adjoint, with the same static arguments.

    Returns:
      The two functions, differentiable any number of times in reverse.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def forward(x: Any, static: tuple[Any, ...]) -> Any:
        return f(x, *static)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def backward(y: Any, static: tuple[Any, ...]) -> Any:
        return g(y, *static)

    forward.defvjp(
        lambda x, static: (forward(x, static), None),
        lambda static, _, y: (backward(y, static),),
    )
    backward.defvjp(
        lambda y, static: (backward(y, static), None),
        lambda static, _, x: (forward(x, static),),
    )
    return _or_plain(f, forward), _or_plain(g, backward)


def trilinear(
    f: Callable[..., Any], g: Callable[..., Any], h: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The three gradients of ``T(a, b, c) = <f(a, b), c> = <a, g(c, b)> = <b, h(a, c)>``.

    Each is linear in its two arguments, and its gradients are the other two.

    Args:
      f: the gradient of T in c; further arguments are static, `plain` as for `adjoint_pair`.
      g: the gradient in a, with the same static arguments.
      h: the gradient in b, likewise.

    Returns:
      The three functions, differentiable any number of times in reverse.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def of_c(a: Any, b: Any, static: tuple[Any, ...]) -> Any:
        return f(a, b, *static)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def of_a(c: Any, b: Any, static: tuple[Any, ...]) -> Any:
        return g(c, b, *static)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def of_b(a: Any, c: Any, static: tuple[Any, ...]) -> Any:
        return h(a, c, *static)

    of_c.defvjp(
        lambda a, b, static: (of_c(a, b, static), (a, b)),
        lambda static, ab, c: (of_a(c, ab[1], static), of_b(ab[0], c, static)),
    )
    of_a.defvjp(
        lambda c, b, static: (of_a(c, b, static), (c, b)),
        lambda static, cb, a: (of_c(a, cb[1], static), of_b(a, cb[0], static)),
    )
    of_b.defvjp(
        lambda a, c, static: (of_b(a, c, static), (a, c)),
        lambda static, ac, b: (of_a(ac[1], b, static), of_c(ac[0], b, static)),
    )
    return _or_plain(f, of_c, 2), _or_plain(g, of_a, 2), _or_plain(h, of_b, 2)


def _or_plain(plainly: Callable[..., Any], ruled: Any, arrays: int = 1) -> Callable[..., Any]:
    @functools.wraps(plainly)
    def call(*args: Any, plain: bool = False) -> Any:
        if plain:
            return plainly(*args, plain=True)
        return ruled(*args[:arrays], args[arrays:])

    return call
