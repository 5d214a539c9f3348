"""Check that the values of a configuration have the types its dataclasses declare.

The command line is parsed by these types, but a file is Python and can assign anything.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union


def misfits(value: Any, name: str = "") -> list[str]:
    """Fields of a dataclass, nested ones included, whose value is not of the declared type.

    Args:
        value: an instance of a dataclass.
        name: dotted name of the value, a prefix of the names of its fields.

    Returns:
        A message for each: its name on the command line, its value, and what is allowed.
    """
    try:
        hints = typing.get_type_hints(type(value))
    except (NameError, TypeError) as error:  # from a dataclass in a user's file
        return [f"{name or type(value).__name__}: the types of its fields cannot be read ({error})"]
    misfits = []
    for field in dataclasses.fields(value):
        dotted = f"{name}.{field.name}" if name else field.name
        misfits += _misfits_of(getattr(value, field.name), hints[field.name], dotted)
    return misfits


def _misfits_of(value: Any, hint: Any, name: str) -> list[str]:
    if not _fits(value, hint):
        return [f"{name.replace('_', '-')}: got {_shown(value)}; expected {_words(hint)}"]
    parts = value if isinstance(value, tuple) else (value,)
    if not all(math.isfinite(x) for x in parts if isinstance(x, float)):
        return [f"{name.replace('_', '-')}: got {value}; expected a finite number"]
    return misfits(value, name) if dataclasses.is_dataclass(value) else []


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(x, arguments[0]) for x in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, arguments[0]) and _fits(x, arguments[1]) for key, x in value.items()
        )
    if origin is not None:
        return isinstance(value, origin)
    # Python counts True as the integer 1, which is never meant.
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _words(hint: Any) -> str:
    """What a type allows, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin is Literal:
        return " or ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"a tuple, each {_words(arguments[0])}, e.g. (x,) for one"
        return f"a tuple of {len(arguments)}: {', '.join(map(_words, arguments))}"
    known = {
        str: "a string",
        int: "an integer",
        float: "a number",
        bool: "True or False",
        type(None): "None",
        Path: "a pathlib.Path",
    }
    if hint in known or not isinstance(hint, type):
        return known.get(hint, str(hint))
    return f"a {hint.__name__} of {hint.__module__}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
