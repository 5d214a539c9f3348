"""Starting from weights: nothing is lost, what does not fit is named, a resumed run goes on."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import converse_jax
from tests.train import tiny
from train import export
from train.config import Args, Config, Optimizer
from train.errors import TrainError
from train.initial import read_initial
from train.loop import train
from train.networks import ConverseDnCNNConfig
from train.state import FunctionalNetwork, make_mesh, make_optimizer, make_state, start_from

MODEL = {
    "channels": 1,
    "num_features": 2,
    "num_blocks": 1,
    "kernel_size": 3,
    "padding_mode": "circular",
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny.config(
        tiny.folder(tmp_path / "data"),
        optimizer=Optimizer(learning_rate=1e-3),
        steps=2,
        save_every=1,
        eval_every=2,
        data_threads=0,
    )


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights that no seed of a run gives."""
    model = converse_jax.models.ConverseDnCNN(**MODEL, rngs=nnx.Rngs(77))
    card = converse_jax.ModelCard("before", "ConverseDnCNN", MODEL, "denoise", 1)
    converse_jax.save(tmp_path / "before.safetensors", model, card)
    return tmp_path / "before.safetensors"


def test_run_starts_from_the_weights(config: Config, weights: Path) -> None:
    network, mesh = FunctionalNetwork(config), make_mesh()
    initial = read_initial(config, network, str(weights), partial=False)
    drawn = make_state(network, make_optimizer(config.optimizer, 2), mesh)
    state = start_from(drawn, initial.arrays, mesh)
    assert state.params.keys() == drawn.params.keys()
    model, _ = converse_jax.load(weights)
    x = np.random.default_rng(0).random((8, 12, 12, 1), np.float32)
    for arrays in (state.params, state.ema):
        assert (np.asarray(network(arrays, {"input": x})) == np.asarray(model(x))).all()


@pytest.mark.slow
def test_record_survives_stops_and_the_checkpoint_wins(
    config: Config, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    one = dataclasses.replace(config, steps=1)
    job = Args(config=one, run=run, resume=True, init=str(weights))
    assert train(job) == 0
    assert f"starting from {weights} (ConverseDnCNN)" in capsys.readouterr().err
    record = {"name": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert json.loads((run / "init.json").read_text()) == record
    # The same line again; the weights may be gone by then.
    weights.unlink()
    assert train(dataclasses.replace(job, config=config)) == 0
    errors = capsys.readouterr().err
    assert "resuming after step 1" in errors
    assert "starting from" not in errors
    card = export.export(run, tmp_path / "after.safetensors")
    assert card.notes["step"] == 2
    assert card.notes["init"] == record
    # A new run in the same folder has no such past.
    assert train(Args(config=one, run=run, overwrite=True)) == 0
    assert not (run / "init.json").exists()


def test_what_does_not_fit_is_refused(config: Config, weights: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    other = dataclasses.replace(
        config, model=ConverseDnCNNConfig(num_features=2, num_blocks=2, kernel_size=5, channels=1)
    )
    with pytest.raises(TrainError) as caught:
        train(Args(config=other, run=run, init=str(weights)))
    text = str(caught.value)
    assert "--init-partial takes what fits" in text
    assert "missing (body.1.expand1.bias, body.1.expand1.kernel" in text
    assert "1 misshapen (body.0.spatial.kernel is (3, 3, 4), needs (5, 5, 4))" in text
    less = dataclasses.replace(
        config, model=ConverseDnCNNConfig(num_features=2, num_blocks=0, kernel_size=3)
    )
    with pytest.raises(TrainError, match=r"unexpected \(body\.0"):
        read_initial(less, FunctionalNetwork(less), str(weights), partial=False)
    with pytest.raises(TrainError, match="--init: nowhere.pth: no such file"):
        train(Args(config=config, run=run, init="nowhere.pth"))
    with pytest.raises(TrainError, match="give --init WEIGHTS"):
        train(Args(config=config, run=run, init_partial=True))
    assert not run.exists()


def test_part_of_the_weights(config: Config, weights: Path) -> None:
    color = dataclasses.replace(
        config, model=dataclasses.replace(config.model, channels=3, padding_mode="reflect")
    )
    network = FunctionalNetwork(color)
    initial = read_initial(color, network, str(weights), partial=True)
    left = {"head.kernel", "tail.kernel", "tail.bias"}
    assert network.shapes.keys() - initial.arrays.keys() == left
    assert "drawn at random: head.kernel, tail.bias, tail.kernel; not used: none" in initial.note
    assert "made with other settings: channels 1 -> 3, padding_mode 'circular'" in initial.note
    assert initial.record["partial"] == f"{len(initial.arrays)} of {len(network.shapes)} arrays"
    mesh = make_mesh()
    drawn = make_state(network, make_optimizer(color.optimizer, 2), mesh)
    state = start_from(drawn, initial.arrays, mesh)
    model, _ = converse_jax.load(weights)
    assert (state.params["body.0.expand1.kernel"] == model.body[0].expand1.kernel[...]).all()
    assert (state.params["head.kernel"] == drawn.params["head.kernel"]).all()


@pytest.mark.parity
def test_from_the_authors_weights(shared: Path) -> None:
    path = shared / "weights/converse_dncnn.pth"
    config = tiny.config("unused", model=ConverseDnCNNConfig(kernel_size=7))
    network = FunctionalNetwork(config)
    initial = read_initial(config, network, str(path), partial=False)
    assert initial.arrays.keys() == network.shapes.keys()
    model, _ = converse_jax.load(path)
    x = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    graph, state = nnx.split(model)
    expected = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, x)
    found = jax.jit(network)(initial.arrays, {"input": x})
    assert (np.asarray(found) == np.asarray(expected)).all()
