"""The public face: documented, annotated, truthful about shapes, and light to import."""

import inspect
import subprocess
import sys

import pytest

import converse_jax
from converse_jax import imaging, models, nn, ops

PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (converse_jax, ops, nn, models, imaging)
    for name in module.__all__
    if not inspect.ismodule(getattr(module, name))
}


@pytest.mark.parametrize("name", PUBLIC)
def test_documented_and_annotated(name: str) -> None:
    thing = PUBLIC[name]
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return  # type aliases and constants
    assert (thing.__doc__ or "").strip(), f"{name} has no docstring"
    functions = (
        [thing]
        if inspect.isfunction(thing)
        else [f for n, f in vars(thing).items() if inspect.isfunction(f) and n[0] != "_"]
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
    heavy = ["PIL", "imagecodecs", "skimage", "tyro", "optax", "orbax", "torch", "matplotlib"]
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


def test_annotated_shapes_are_true() -> None:
    # In a process of its own: the checker must be there before the modules are imported.
    run(
        "from jaxtyping import install_import_hook\n"
        "with install_import_hook('converse_jax', 'beartype.beartype'):\n"
        "    import converse_jax as c\n"
        "    import converse_jax.models, converse_jax.nn\n"
        "import jax, jax.numpy as jnp, pytest\n"
        "from flax import nnx\n"
        "x, k = jnp.ones((2, 8, 9, 4)), jnp.ones((3, 3, 4))\n"
        "def operators(x, k):\n"
        "    c.converse2d(x, k, 0.1, scale=2, padding=1)\n"
        "    c.apply_transfer(x, c.converse2d_transfer(k, jnp.ones(4), (10, 11)), padding=1)\n"
        "    c.converse2d(x, k, 0.1, scale=2, padding=1, method='fft')\n"
        "    c.converse2d(x, k, 0.1, scale=3, padding=1, method='direct')\n"
        "    small = c.blur_downsample(x[:, :, :8], k, scale=2)\n"
        "    c.blur_downsample_adjoint(small, k, scale=2)\n"
        "    return jax.grad(lambda x: c.converse2d(x, k, 0.1, padding=1).sum())(x)\n"
        "def networks(x):\n"
        "    small = dict(num_features=4, num_blocks=1, rngs=nnx.Rngs(0))\n"
        "    c.models.ConverseUSRNet(**small)(x[..., :3], jnp.ones((2, 7, 7)))\n"
        "    return c.models.ConverseSRResNet(2, **small)(x[..., :3])\n"
        "jax.eval_shape(operators, x, k)\n"
        "jax.eval_shape(networks, x)\n"
        "from jaxtyping import TypeCheckError\n"
        "from converse_jax.ops._otf import phase_otf\n"
        "with pytest.raises(TypeCheckError):\n"
        "    phase_otf(jnp.ones((3, 3)), (8, 9), 1)\n"
    )
