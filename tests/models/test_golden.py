"""Blocks and released networks against the authors' implementation, evaluated in float64."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax.nn import ConverseBlock
from converse_jax.weights import load_torch_state
from converse_jax.weights._torch_names import translate

pytestmark = pytest.mark.parity


def channels_last(a: np.ndarray) -> np.ndarray:
    return a.transpose(0, 2, 3, 1)


def relative(a: Any, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))


def run(model: nnx.Module, dtype: Any, *inputs: np.ndarray, **options: int) -> np.ndarray:
    graph, state = nnx.split(model)
    state = jax.tree.map(lambda a: a.astype(dtype), state)
    call = jax.jit(lambda state, *inputs: nnx.merge(graph, state)(*inputs, **options))
    return np.asarray(call(state, *(jnp.asarray(x, dtype) for x in inputs)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["block", "alpha"])
def test_block(shared: Path, name: str) -> None:
    with np.load(shared / "golden/blocks.npz") as a:
        prefix = f"{name}/param/"
        # As the first block of a network, where the names are known.
        theirs = {
            "p.m_body.0." + k.removeprefix(prefix): a[k] for k in a.files if k.startswith(prefix)
        }
        x, y = channels_last(a[f"{name}/x"]), channels_last(a[f"{name}/y"])
    arrays, unknown = translate("ConverseUSRNet", theirs)
    assert not unknown
    block = ConverseBlock(
        8, 5, residual_scale=name == "alpha", param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    flat = nnx.to_flat_state(nnx.state(block))
    assert {"body.0." + ".".join(map(str, path)) for path, _ in flat} == set(arrays)
    for path, variable in flat:
        variable[...] = jnp.asarray(arrays["body.0." + ".".join(map(str, path))])
    assert relative(run(block, jnp.float64, x), y) < 1e-10


NETWORKS = ["converse_dncnn", "converse_srresnet", "conversenet", "converse_usrnet"]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NETWORKS)
def test_released_network(shared: Path, name: str) -> None:
    model, card = converse_jax.load(shared / f"weights/{name}.pth")
    assert card.channels == (1 if name == "converse_dncnn" else 3)
    with np.load(shared / "golden/networks.npz") as a:
        x = channels_last(a[f"{name}/x"])
        if name != "converse_usrnet":
            rows = [((x,), {}, a[f"{name}/y"])]
        else:
            kernels = [a[f"{name}/k{i}"][:, 0] for i in range(1, 6)]
            # All five at once: a kernel for each example.
            expected = np.concatenate([a[f"{name}/y{i}"] for i in range(1, 6)])
            half = x[:, : x.shape[1] // 2, : x.shape[2] // 2]
            rows = [
                ((np.repeat(x, 5, 0), np.concatenate(kernels)), {}, expected),
                ((half, kernels[2]), {"scale": 2}, a[f"{name}/y3_sf2"]),
            ]
    for inputs, options, expected in rows:
        y = channels_last(expected)
        assert relative(run(model, jnp.float64, *inputs, **options), y) < 1e-11
    inputs, _, expected = rows[0]
    assert relative(run(model, jnp.float32, *inputs), channels_last(expected)) < 3e-6


def test_convert_keeps_every_bit(shared: Path, tmp_path: Path) -> None:
    for name in NETWORKS:
        model, card = converse_jax.load(shared / f"weights/{name}.pth")
        converse_jax.save(tmp_path / f"{name}.safetensors", model, card)
        again, same_card = converse_jax.load(tmp_path / f"{name}.safetensors")
        assert same_card == card
        for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (model, again)), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_released_weights_fit_only_their_own_network(shared: Path) -> None:
    theirs = converse_jax.weights._pth.read_pth(shared / "weights/converse_dncnn.pth")
    small = converse_jax.models.ConverseDnCNN(rngs=nnx.Rngs(0))
    with pytest.raises(converse_jax.WeightsError, match=r"20 misshapen .*\(7, 7, 128\), needs \(5"):
        load_torch_state(small, theirs)
