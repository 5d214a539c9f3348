"""Checks annotations, shapes among them, at every call of the library: see `conftest.py`."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# An int is a float, as type checkers have it.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn, with its annotations checked.

    Not so functions inside of functions: they would be decorated again at each call of the outer.
    """
    return fn if "<locals>" in getattr(fn, "__qualname__", "") else _check(fn)
