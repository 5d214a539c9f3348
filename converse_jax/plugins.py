"""Users' Python files that register networks, run only when the user names them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import types
from pathlib import Path


class PluginError(ValueError):
    """A file that cannot be run: one line with the file, the line in it, and what is wrong."""


def load_plugin(name: str | os.PathLike[str]) -> types.ModuleType:
    """Run a Python file or import a module; a file can import others beside it.

    Args:
        name: a path that ends in .py, or the name of a module.

    Returns:
        The module.

    Raises:
        PluginError: no such file or module, or one that raises.
    """
    path = Path(name)
    if path.suffix != ".py":
        try:
            return importlib.import_module(str(name))
        except Exception as error:
            raise PluginError(
                f"{name}: cannot be imported ({_short(error)}); give a file that ends in .py, or "
                "a module that Python finds"
            ) from None
    if not path.is_file():
        raise PluginError(f"{name}: no such file; give the Python file that defines the network")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so as not to hide installed modules
    module = types.ModuleType(_module_name(path))
    module.__file__ = str(path.resolve())
    before = sys.modules.get(module.__name__)
    # pickle and typing look its contents up there.
    sys.modules[module.__name__] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except Exception as error:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        raise PluginError(f"{path}, {_line(error, path)}{_short(error)}") from None
    return module


def _module_name(path: Path) -> str:
    """The name under which other processes can import the file, unless it is taken."""
    stem = path.stem
    loaded = sys.modules.get(stem)
    if loaded is None and stem.isidentifier():
        spec = importlib.util.find_spec(stem)
        file = None if spec is None else spec.origin
    else:
        file = getattr(loaded, "__file__", None)
    here = file is not None and os.path.realpath(file) == str(path.resolve())
    return stem if here else f"_plugin_{stem}"


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"line {error.lineno}: "
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"line {frames[-1].lineno}: " if frames else ""


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
