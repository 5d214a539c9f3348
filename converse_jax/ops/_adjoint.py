"""Linear and bilinear functions that are each other's derivatives, each stated once.

JAX derives a transpose for every function, but seldom the one that was already written: that of a
real FFT is a complex FFT of the whole map, that of padding consists of full-size copies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

Fn = Callable[..., Any]


def adjoint_pair(f: Fn, g: Fn) -> tuple[Fn, Fn]:
    """``f`` and ``g`` with ``<f(x), y> = <x, g(y)>``: the derivative of each is the other.

    Both are linear in their first argument and have the same static arguments after it. They become
    differentiable any number of times in reverse. The keyword `plain` (default False) is handed on
    to f or g, and asks for array operations without rules and hints.
    """
    forward = _with_rule(f, 1, lambda static, _, y: (backward(y, *static),))
    backward = _with_rule(g, 1, lambda static, _, x: (forward(x, *static),))
    return forward, backward


def trilinear(f: Fn, g: Fn, h: Fn) -> tuple[Fn, Fn, Fn]:
    """The three gradients of ``T(a, b, c) = <f(a, b), c> = <a, g(c, b)> = <b, h(a, c)>``.

    Each is linear in its two arguments, and its gradients are the other two. Static arguments and
    `plain` are as for `adjoint_pair`.
    """
    of_c = _with_rule(f, 2, lambda s, ab, c: (of_a(c, ab[1], *s), of_b(ab[0], c, *s)))
    of_a = _with_rule(g, 2, lambda s, cb, a: (of_c(a, cb[1], *s), of_b(a, cb[0], *s)))
    of_b = _with_rule(h, 2, lambda s, ac, b: (of_a(ac[1], b, *s), of_c(ac[0], b, *s)))
    return of_c, of_a, of_b


def _with_rule(f: Fn, arrays: int, pullback: Fn) -> Fn:
    """f, linear in each of its first arguments, with ``pullback(static, arrays, cotangent)``."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(arrays,))
    def ruled(*args: Any) -> Any:
        return f(*args[:arrays], *args[arrays])

    # The derivative of a linear function needs the cotangent alone.
    kept = slice(arrays if arrays > 1 else 0)
    ruled.defvjp(lambda *args: (ruled(*args), args[kept]), pullback)

    @functools.wraps(f)
    def call(*args: Any, plain: bool = False) -> Any:
        return f(*args, plain=True) if plain else ruled(*args[:arrays], args[arrays:])

    return call
