"""Functions that bring their own derivatives, transposes and sharding, as one JAX primitive.

JAX derives all of these for every function, but seldom the ones that were already written: the
transpose of a real FFT is a complex FFT of the whole map, that of padding consists of full-size
copies, and XLA cannot split an FFT over a batch: under plain `jit` it gathers the whole batch on
each device. A `Function` states once what is known. Every transformation then works, in any order:
forward and reverse mode, transposition, vmap, jit, shard_map, export (`_primitive` has the rules).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from converse_jax.ops._partition import (
    is_sharded,
    no_mesh,
    partitioned,
    sharded_types,
    unsharded,
)
from converse_jax.ops._primitive import bind

_config: Any = jax.config

MAX_MADE = 2048
"""Entries of a function's caches, as of JAX's own: a program that meets ever new sizes forgets."""


class Function:
    """A pure function from pytrees of arrays to a pytree of arrays.

    Its derivatives are of this kind too. Unless a subclass says otherwise, the backward pass keeps
    the arguments, and computes again from them what it needs.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        linear: tuple[int, ...] = (),
        transposed: Callable[..., Any] | None = None,
        vjp: Callable[..., tuple[Any, ...]] | None = None,
        derive: Callable[..., Any] | None = None,
        labels: tuple[Any, Any] | None = None,
    ) -> None:
        """Describe the function.

        Args:
            fn: the function. It may close over no arrays (see `_constant`).
            linear: positions of the arguments in each of which fn is linear.
            transposed: from such a position, the other arguments and a cotangent of the result to
                the cotangent of the argument at this position. None: it is derived.
            vjp: from the arguments and a cotangent to the cotangents of all arguments. None: it is
                derived.
            derive: what derivatives are derived from, if not from fn.
            labels: of arguments and result, pytrees like them, with one label for each axis of each
                array, e.g. `("m n h w c", "m a b c")`. Every array starts with "m"; "n" follows
                where it has one row per example. Axes m, n and c may be sharded, all others are
                replicated. A result without such an axis of the arguments is *summed* over it by fn
                itself; here it is summed over the devices that share this axis. None: the compiler
                sees fn itself.
        """
        self.fn = jax.jit(fn)  # traced and lowered once for all arguments of the same types
        self.linear, self.labels = linear, labels
        self._transposed, self._vjp, self._derive = transposed, vjp, derive or fn
        self.has_transpose, self.has_vjp = transposed is not None, vjp is not None
        self._made: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        results = bind(*leaves, function=self, tree=tree)
        return jax.tree.unflatten(self.result(tree, map(jax.typeof, leaves))[1], results)

    def result(self, tree: Any, types: Any) -> tuple[Any, Any]:
        """Types of the leaves of the result, and its structure, for arguments of these types."""
        types = tuple(types)

        def trace() -> tuple[Any, Any]:
            if self.labels is not None and is_sharded(types):
                with no_mesh():
                    args = jax.tree.unflatten(tree, unsharded(types))
                    shape = jax.eval_shape(self.fn, *args)
                inputs, outputs = map(jax.tree.leaves, self.labels)
                leaves, structure = jax.tree.flatten(shape)
                return sharded_types(leaves, inputs, types, outputs), structure
            args = jax.tree.unflatten(tree, types)
            jaxpr, shape = jax.make_jaxpr(self.fn, return_shape=True)(*args)
            return jaxpr.out_avals, jax.tree.structure(shape)

        context = jax.sharding.get_abstract_mesh(), _config.jax_enable_x64
        return self.once((tree, types, context), trace)

    def linearized(
        self, active: tuple[int, ...], args: tuple[Any, ...]
    ) -> tuple[Callable[..., Any], Function]:
        """What differentiation in the `active` arguments calls.

        Returns:
            A function from the arguments to result and residuals; and the `Function` from residuals
            and tangents of the active arguments to the tangent of the result.
        """
        return lambda *args: (self(*args), args), self.derivative(active)[0]

    def derivative(self, active: tuple[int, ...]) -> tuple[Function, Function]:
        """See `linear_pair`: what is kept are the arguments."""

        def along(args: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
            fn, primals = of_active(self._derive, active, args)
            return jax.jvp(fn, primals, tangents)[1]

        def back(args: tuple[Any, ...], cotangent: Any) -> tuple[Any, ...]:
            if self._vjp is not None:
                return _pick(self._vjp(*args, cotangent), active)
            fn, primals = of_active(self._derive, active, args)
            return jax.vjp(fn, *primals)[1](cotangent)

        inputs, output = self.labels or (None, None)
        labels = None if inputs is None else (inputs, _pick(inputs, active), output)
        return self.once(("derivative", active), lambda: linear_pair(along, back, labels))

    def mapped(self, axes: tuple[Any, ...]) -> Function:
        """The function under `jax.vmap`, with its own derivative, where it has one."""

        def vjp(*args: Any) -> tuple[Any, ...]:
            assert self._vjp is not None
            found = jax.vmap(self._vjp, (*axes, 0))(*args)
            # What is not mapped has one cotangent: the sum of all.
            return tuple(
                jax.tree.map(
                    lambda axis, x: x.sum(0) if axis is None else x,
                    axis,
                    cotangent,
                    is_leaf=lambda axis: axis is None,
                )
                for axis, cotangent in zip(axes, found, strict=True)
            )

        return Function(jax.vmap(self.fn, axes), vjp=vjp, derive=jax.vmap(self._derive, axes))

    def transpose(self, position: int, args: tuple[Any, ...], cotangent: Any) -> Any:
        """The cotangent of an argument in which the function is linear; it is 0 in `args`."""
        if self._transposed is None:
            return self.derivative((position,))[1](args, cotangent)[0]
        others = (arg for i, arg in enumerate(args) if i != position)
        return self._transposed(position, *others, cotangent)

    def flat(self, tree: Any) -> Callable[..., list[Any]]:
        """The function from leaves to leaves, as the compiler of one device sees it."""
        return lambda *leaves: jax.tree.leaves(self.fn(*jax.tree.unflatten(tree, leaves)))

    def partitioned(self, tree: Any) -> Callable[..., list[Any]]:
        """The same for the compiler of several devices: local to each."""
        if self.labels is None:
            return self.flat(tree)
        inputs, outputs = map(jax.tree.leaves, self.labels)
        return self.once(tree, lambda: partitioned(self.flat(tree), inputs, outputs))

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once for each key, or again after many others."""
        if key not in self._made:
            if len(self._made) >= MAX_MADE:
                self._made.clear()
            return self._made.setdefault(key, make())
        return self._made[key]


def _pick(items: tuple[Any, ...], positions: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(items[i] for i in positions)


def of_active(
    fn: Callable[..., Any], active: tuple[int, ...], args: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """fn as a function of some of its arguments, and these."""

    def of_values(*values: Any) -> Any:
        given = dict(zip(active, values, strict=True))
        return fn(*(given.get(i, arg) for i, arg in enumerate(args)))

    return of_values, _pick(args, active)


def linear_pair(
    along: Callable[..., Any], back: Callable[..., Any], labels: tuple[Any, Any, Any] | None
) -> tuple[Function, Function]:
    """A derivative and its transpose, linear in their second argument.

    Args:
        along: from what is kept and the tangents of the arguments to the tangent of the result.
        back: from what is kept and the cotangent of the result to those of the arguments.
        labels: of what is kept, of the arguments, and of the result.
    """
    kept, inputs, output = labels or (None, None, None)
    tangent = Function(
        along,
        linear=(1,),
        transposed=lambda _, kept, cotangent: pull_back(kept, cotangent),
        labels=labels and ((kept, inputs), output),
    )
    pull_back = Function(
        back,
        linear=(1,),
        transposed=lambda _, kept, tangents: tangent(kept, tangents),
        labels=labels and ((kept, output), inputs),
    )
    return tangent, pull_back


def adjoint_pair(f: Callable[..., Any], g: Callable[..., Any]) -> tuple[Any, Any]:
    """`f` and `g` with `<f(x), y> = <x, g(y)>`: the derivative of each is the other.

    Both are linear in their first argument, and have the same static arguments after it.
    """
    forward = _linear(f, 1, lambda static, _, y: backward(y, *static))
    backward = _linear(g, 1, lambda static, _, x: forward(x, *static))
    return forward, backward


def trilinear(
    f: Callable[..., Any], g: Callable[..., Any], h: Callable[..., Any]
) -> tuple[Any, Any, Any]:
    """The three gradients of `T(a, b, c) = <f(a, b), c> = <a, g(c, b)> = <b, h(a, c)>`.

    Each is linear in each of its two arguments, and its derivatives are the other two. They have
    the same static arguments.
    """
    of_c = _linear(f, 2, lambda s, i, ab, c: of_b(ab, c, *s) if i else of_a(c, ab, *s))
    of_a = _linear(g, 2, lambda s, i, cb, a: of_b(a, cb, *s) if i else of_c(a, cb, *s))
    of_b = _linear(h, 2, lambda s, i, ac, b: of_c(ac, b, *s) if i else of_a(ac, b, *s))
    return of_c, of_a, of_b


def _linear(f: Callable[..., Any], arguments: int, transposed: Callable[..., Any]) -> Any:
    """f, linear in each of its first arguments, with static ones after them."""

    @functools.lru_cache(MAX_MADE)
    def make(*static: Any) -> Function:
        return Function(
            lambda *args: f(*args, *static),
            linear=tuple(range(arguments)),
            transposed=functools.partial(transposed, static),
        )

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        return make(*args[arguments:])(*args[:arguments])

    return call
