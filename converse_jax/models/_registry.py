"""Registry of networks: this package's, and users' own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flax import nnx

TASKS = ("denoise", "sr", "deblur")
"""Kinds of restoration: keeping the size, enlarging, and with periodic borders."""

WEIGHTS = nnx.Any(nnx.Param, nnx.BatchStat)
"""The variables of a network that are its weights: saved, loaded, exported."""

INPUTS = ("sigma", "kernel")
"""What a network may be called with besides the image, in any order."""

Inputs = Sequence[str] | Callable[[Mapping[str, Any]], Sequence[str]]

_Module = TypeVar("_Module", bound=type[nnx.Module])


@dataclass(frozen=True)
class Registered:
    """A network that `load` can build.

    Attributes:
        make: its class.
        tasks: kinds of restoration it can learn.
        defined_in: the module or file of the class, if not in this package.
    """

    make: type[nnx.Module]
    tasks: tuple[str, ...]
    defined_in: str
    _inputs: Inputs

    def inputs(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """What a network made with these arguments is called with besides the image."""
        return tuple(self._inputs(config) if callable(self._inputs) else self._inputs)


_NETWORKS: dict[str, Registered] = {}


def register(
    *, task: str | Sequence[str], name: str | None = None, inputs: Inputs = ()
) -> Callable[[_Module], _Module]:
    """Decorator that makes a network of your own train, load and restore like those here.

    Its `__init__` takes arguments that JSON can hold, and `rngs`; also `dtype` and `block` if it
    is to be trained with `--dtype` and `--remat`. It is called with images `[..., H, W,
    channels]` and its further inputs. All that is learned is an `nnx.Param`; averages that follow
    the batches, as those of `nnx.BatchNorm`, are `nnx.BatchStat`.

    A network that takes a blur kernel has an attribute `blur_size`, the side of its kernels. If it
    is called without the kernel once `nn.prepare` has put the kernel into transfer functions, its
    class says so: `kernel_in_transfers = True`. One that sees cells of s x s pixels as one has an
    argument `downscale=s`: tiles of large images begin with a cell. One that takes a simpler form
    once it is trained has a method `for_inference()`, which returns that network and a dict of the
    arguments that make it: `train.export` writes it in place of the other.

    Args:
        task: "denoise", "sr" or "deblur", or several: what it can learn.
        name: name of the architecture in model cards; the class's name by default.
        inputs: what it is called with after the image, "sigma", "kernel", both or nothing; or a
            function that returns this for the network's arguments.

    Raises:
        ValueError: an unknown task or input, or a name that is taken.
    """
    tasks = (task,) if isinstance(task, str) else tuple(task)
    if not tasks or not set(tasks) <= set(TASKS):
        raise ValueError(f"task: got {task!r}; expected one or more of {', '.join(TASKS)}")
    if not callable(inputs) and not set(inputs) <= set(INPUTS):
        raise ValueError(f"inputs: got {inputs!r}; expected a tuple of some of {', '.join(INPUTS)}")

    def decorate(make: _Module) -> _Module:
        key = make.__name__ if name is None else name
        new = Registered(make, tasks, _origin(make), inputs)
        old = _NETWORKS.get(key)
        # The same file may be run again, for example in a notebook.
        if old is not None and old.defined_in != new.defined_in:
            raise ValueError(
                f"name: {key!r} is taken by a network of {old.defined_in or 'converse_jax'}; "
                "give another, register(name=...)"
            )
        _NETWORKS[key] = new
        return make

    return decorate


def registered() -> dict[str, Registered]:
    """All networks by the name of their architecture, ours first."""
    return dict(_NETWORKS)


def _origin(make: type) -> str:
    module = make.__module__
    if module.split(".")[0] == __name__.split(".")[0]:
        return ""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or "." in module:
        return module
    # Cards are passed on: below the working folder, do not reveal its path.
    return os.path.relpath(file) if os.path.realpath(file).startswith(os.getcwd() + "/") else file
