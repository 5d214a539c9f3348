"""The public face: documented, annotated, truthful about shapes, and light to import."""

import inspect
import subprocess
import sys

import jax.numpy as jnp
import jaxtyping
import pytest

import converse_jax
from converse_jax import imaging, models, nn, ops
from converse_jax.ops._otf import phase_otf

PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (converse_jax, ops, nn, models, imaging)
    for name in module.__all__
    if not inspect.ismodule(getattr(module, name))
}


def _is_ours(f: object) -> bool:
    # `nnx.tabulate` leaves inherited methods behind on the classes it has shown.
    return inspect.isfunction(f) and f.__module__.startswith("converse_jax")


@pytest.mark.parametrize("name", PUBLIC)
def test_documented_and_annotated(name: str) -> None:
    thing = PUBLIC[name]
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return  # type aliases and constants
    assert (thing.__doc__ or "").strip(), f"{name} has no docstring"
    functions = (
        [thing]
        if inspect.isfunction(thing)
        else [f for n, f in vars(thing).items() if _is_ours(f) and n[0] != "_"]
    )
    for function in functions:
        assert function.__doc__, f"{name}: {function.__name__} has no docstring"
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            annotated = parameter.annotation is not inspect.Parameter.empty
            assert annotated or parameter.name in ("self", "cls")


@pytest.mark.parametrize("function", [ops.converse2d, ops.apply_transfer, ops.converse2d_transfer])
def test_options_are_keyword_only(function: object) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_light_and_sets_nothing() -> None:
    heavy = [
        "PIL",
        "imagecodecs",
        "skimage",
        "tyro",
        "optax",
        "orbax",
        "torch",
        "matplotlib",
        "onnx",
    ]
    run(
        "import sys, jax\n"
        "before = dict(jax.config.values)\n"
        "loaded = set(sys.modules)\n"
        "import flax.nnx\n"
        "flax_loads = set(sys.modules) - loaded\n"
        "import converse_jax\n"
        "new = set(sys.modules) - loaded - flax_loads\n"
        f"heavy = sorted(m for m in {heavy} if m in new)\n"
        "assert not heavy, heavy\n"
        "changed = {k for k, v in jax.config.values.items() if before.get(k, v) != v}\n"
        "assert not changed, changed\n"
    )


def test_annotated_shapes_are_checked() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="kernel"):
        phase_otf(jnp.ones((3, 3)), (8, 9), 1)
