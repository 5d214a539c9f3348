"""`load` and `save`: our files, the authors' files, and everything that does not fit."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax import ModelCard, WeightsError
from converse_jax.models import ConverseDnCNN, ConverseNet, ConverseSRResNet, ConverseUSRNet
from converse_jax.restore import Restorer
from converse_jax.weights import assemble
from converse_jax.weights._safetensors import read_safetensors, write_safetensors
from converse_jax.weights._torch_names import recognize, translate
from tests.weights.pth_files import PthFile

CONFIG = {"channels": 1, "num_features": 4, "num_blocks": 2, "kernel_size": 3}
CARD = ModelCard("tiny", "ConverseDnCNN", CONFIG, "denoise", 1, sigma=25.0, source="a test")


def leaves(model: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(a) for a in jax.tree.leaves(nnx.state(model))]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nnx.Module]:
    model = ConverseDnCNN(**CONFIG, rngs=nnx.Rngs(3))
    converse_jax.save(tmp_path / "tiny.safetensors", model, CARD)
    return tmp_path / "tiny.safetensors", model


def test_saved_and_loaded_bit_for_bit(saved: tuple[Path, nnx.Module]) -> None:
    path, model = saved
    loaded, card = converse_jax.load(path)
    assert card == CARD
    for a, b in zip(leaves(model), leaves(loaded), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    x = jax.random.uniform(jax.random.key(0), (1, 5, 6, 1))
    np.testing.assert_array_equal(model(x), loaded(x))


def test_nothing_is_overwritten_unasked(saved: tuple[Path, nnx.Module]) -> None:
    path, model = saved
    before = path.read_bytes()
    with pytest.raises(WeightsError, match="exists"):
        converse_jax.save(path, model, CARD)
    assert path.read_bytes() == before
    converse_jax.save(path, model, CARD, overwrite=True)


def test_all_that_does_not_fit_is_said_at_once(saved: tuple[Path, nnx.Module]) -> None:
    path, _ = saved
    arrays, metadata = read_safetensors(path)
    arrays["head.kernels"] = arrays.pop("head.kernel")
    arrays["body.0.spatial.kernel"] = arrays["body.0.spatial.kernel"][:2]
    del arrays["tail.bias"]
    write_safetensors(path, arrays, metadata, overwrite=True)
    with pytest.raises(WeightsError) as caught:
        converse_jax.load(path)
    message = str(caught.value)
    assert "2 missing (head.kernel, tail.bias)" in message
    assert "1 unexpected (head.kernels)" in message
    assert "body.0.spatial.kernel is (2, 3, 8), needs (3, 3, 8)" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "format a NoneType"),
        ({"format": "pt"}, "format 'pt', not 'converse-jax/1'"),
        ({"format": "converse-jax/1"}, "model card cannot be read"),
        ({"format": "converse-jax/1", "card": "[]"}, "model card cannot be read"),
        ({"architecture": "Popen"}, "unknown architecture 'Popen', known are ConverseDnCNN"),
        ({"config": {"scale": 4}}, "ConverseDnCNN cannot be built from .*scale"),
        ({"config": {"padding": 10**9}}, "padding': got 1000000000; expected at most 256"),
        ({"config": {"num_blocks": 10**9}}, r"num_blocks: got 1000000000, and \d+ arrays"),
        ({"config": {"num_iterations": 10**9}}, "got 1000000000; expected at most 128"),
        ({"config": {"dtype": "float16"}}, "dtype: is not for a file to choose"),
        ({"config": {"x" * 3000: 1}}, "expected at most 65536"),
        ({"config": {"channels": "x" * 300}}, "expected .* a text of at most 200 characters"),
        ({"config": {"kernel_size": [[[]]]}}, "cannot be built"),
        ({"config": None}, "config: got a NoneType; expected an object"),
        ({"scale": 4}, "card says scale 4, where ConverseDnCNN has 1"),
        ({"channels": 3}, "card says channels 3, where ConverseDnCNN has 1"),
        ({"task": "sr"}, "card says task 'sr', where ConverseDnCNN has denoise"),
        ({"estimate_share": 2}, "estimate_share: got 2; expected a number from 0 to 1"),
        ({"needs_sigma": True}, "card says needs_sigma True, where ConverseDnCNN has False"),
    ],
)
def test_bad_cards(saved: tuple[Path, nnx.Module], metadata: dict[str, str], message: str) -> None:
    path, _ = saved
    arrays, good = read_safetensors(path)
    if metadata and "format" not in metadata:
        metadata = good | {"card": json.dumps(json.loads(good["card"]) | metadata)}
    write_safetensors(path, arrays, metadata, overwrite=True)
    with pytest.raises(WeightsError, match=message):
        converse_jax.load(path)


@pytest.mark.parametrize("field", CARD.__dataclass_fields__)
def test_card_of_wrong_values_is_refused_or_harmless(
    saved: tuple[Path, nnx.Module], field: str
) -> None:
    path, _ = saved
    arrays, good = read_safetensors(path)
    card = json.loads(good["card"])
    for value in (None, True, -1, 10**9, 10**400, float("nan"), "\x1b[2J", "x" * 20_000, [1], {}):
        text = json.dumps({**card, field: value})
        # Nested as deep as JSON is read: deeper than anything recursive may go.
        for written in (text, text.replace("[1]", "[" * 900 + "]" * 900)):
            write_safetensors(path, arrays, good | {"card": written}, overwrite=True)
            try:
                model, read = converse_jax.load(path)
            except WeightsError as error:
                assert str(error).isprintable() and len(str(error)) < 3000
                continue
            dataclasses.asdict(read)
            Restorer(model, read).plan(np.full((8, 8, 1), 0.5))
            assert read.purpose.isprintable()


def test_deep_and_huge_cards_are_refused(saved: tuple[Path, nnx.Module]) -> None:
    path, _ = saved
    arrays, good = read_safetensors(path)
    for card in ("[" * 100_000, '{"a":' * 100_000, " " * (2**20 + 1)):
        write_safetensors(path, arrays, good | {"card": card}, overwrite=True)
        with pytest.raises(WeightsError, match=r"model card (cannot be read|has 1048577 char)"):
            converse_jax.load(path)


@pytest.mark.parametrize("kind", [np.int32, np.bool_, np.uint8, np.complex64])
def test_arrays_that_are_no_weights(saved: tuple[Path, nnx.Module], kind: type) -> None:
    arrays, _ = read_safetensors(saved[0])
    arrays["head.kernel"] = arrays["head.kernel"].astype(kind)
    with pytest.raises(WeightsError, match=f"head.kernel is {kind.__name__.rstrip('_')}; expected"):
        assemble(CARD, arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite(saved: tuple[Path, nnx.Module], value: float) -> None:
    arrays, _ = read_safetensors(saved[0])
    arrays["tail.bias"] = np.full_like(arrays["tail.bias"], value, np.float64)
    with pytest.raises(WeightsError, match=r"tail.bias: holds NaN or infinity"):
        assemble(CARD, arrays)


def test_names_in_files_are_shown_escaped_and_not_all(saved: tuple[Path, nnx.Module]) -> None:
    path, _ = saved
    arrays, good = read_safetensors(path)
    many = {f"\x1b[2J{n}": np.zeros(1, np.float32) for n in range(20_000)}
    write_safetensors(path, arrays | many, good, overwrite=True)
    with pytest.raises(WeightsError, match=r"20000 unexpected .*x1b\[2J0, .* and 19950 more") as it:
        converse_jax.load(path)
    assert str(it.value).isprintable() and len(str(it.value)) < 2000


def test_what_is_saved_can_be_loaded(saved: tuple[Path, nnx.Module], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="scale: got 0; expected a whole number from 1 to 16"):
        converse_jax.save(tmp_path / "b", saved[1], dataclasses.replace(CARD, scale=0))
    assert not (tmp_path / "b").exists()


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no-such-model: no such file, and no model of this"):
        converse_jax.load("no-such-model")
    with pytest.raises(WeightsError, match="no such file"):
        converse_jax.load(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("name", "card"),
    [
        # Of the network of the same name.
        pytest.param(name, card, marks=[pytest.mark.slow] * name.endswith("-free"), id=name)
        for name, card in converse_jax.list_models().items()
    ],
)
def test_listed_models_load(name: str, card: ModelCard) -> None:
    assert converse_jax.load(name)[1] == card


def torch_layout(model: nnx.Module, names: dict[str, str]) -> dict[str, np.ndarray]:
    """The arrays of a model as PyTorch has them, by the names given."""
    arrays = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        ours = ".".join(map(str, path))
        array = np.asarray(variable[...])
        if array.ndim == 3:
            array = array.transpose(2, 0, 1)[None]
        elif ours.endswith("kernel") and "fc" not in ours:
            array = array.T[:, :, None, None]
        elif ours.endswith("kernel"):
            array = array.T
        elif ours.endswith(("lam_logit", "scale1", "scale2")):
            array = array[None, :, None, None]
        for old, new in names.items():
            ours = ours.replace(old, new)
        leaf = ours.rpartition(".")[2]
        arrays[
            ours.removesuffix(leaf) + {"kernel": "weight", "lam_logit": "bias"}.get(leaf, leaf)
        ] = array
    return arrays


BLOCK = {
    "norm1.scale": "conv1.0.weight",
    "norm1": "conv1.0",
    "expand1": "conv1.1",
    "spatial": "conv1.3",
    "project1": "conv1.5",
    "norm2.scale": "conv2.0.weight",
    "norm2": "conv2.0",
    "expand2": "conv2.1",
    "project2": "conv2.3",
    "scale1": "alpha1",
    "scale2": "alpha2",
}


@pytest.mark.parametrize(
    ("make", "config", "names"),
    [
        (ConverseDnCNN, CONFIG, {"head": "m_head.0", "body": "m_body", "tail": "m_tail.0"}),
        (
            ConverseSRResNet,
            CONFIG | {"channels": 3, "scale": 4},
            {
                "head": "conv_first",
                "up_blocks.0": "upconv1",
                "up_blocks.1": "upconv2",
                "upsamplers.0": "up1",
                "upsamplers.1": "up2",
                "high_block": "conv_hres",
                "tail": "conv_last",
                "body": "conv_body",
            },
        ),
        (ConverseNet, CONFIG, {"head": "conv1", "tail": "conv2", "body": "p.m_body"}),
        (
            ConverseUSRNet,
            CONFIG | {"blur_size": 5, "num_iterations": 3},
            {
                "head": "conv1",
                "tail": "conv2",
                "body": "p.m_body",
                "kernel_net": "kernelnet",
                "kernel_maps": "convs",
            },
        ),
    ],
)
def test_pytorch_names(make: type[nnx.Module], config: dict[str, int], names: dict) -> None:
    model = make(**config, rngs=nnx.Rngs(0))
    theirs = torch_layout(model, BLOCK | names)
    if make is ConverseUSRNet:
        theirs["d.alpha"] = theirs.pop("bias")
    assert recognize(theirs) == (make.__name__, config)
    fresh = make(**config, rngs=nnx.Rngs(1))
    converse_jax.weights.load_torch_state(fresh, theirs)
    for a, b in zip(leaves(model), leaves(fresh), strict=True):
        np.testing.assert_array_equal(a, b)
    _, unknown = translate(make.__name__, theirs | {"optimizer.lr": np.zeros(1)})
    assert unknown == ["optimizer.lr"]


def test_foreign_names_are_of_no_network() -> None:
    assert recognize({"conv1.weight": np.zeros((64, 3, 7, 7)), "fc.bias": np.zeros(10)}) is None


def test_other_weights_claim_no_noise_level_and_say_which_were_taken(tmp_path: Path) -> None:
    model = ConverseDnCNN(**CONFIG, rngs=nnx.Rngs(3))
    names = {"head": "m_head.0", "body": "m_body", "tail": "m_tail.0"}
    file = PthFile()
    theirs = torch_layout(model, BLOCK | names)
    averaged = {f"module.{name}": file.tensor(array) for name, array in theirs.items()}
    other = {f"module.{name}": file.tensor(0 * array) for name, array in theirs.items()}
    path = file.write(tmp_path / "a.pth", {"params": other, "params_ema": averaged})
    loaded, card = converse_jax.load(path)
    for a, b in zip(leaves(model), leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    assert card.sigma is None and card.task == "denoise"
    assert card.notes == {"read": "params_ema, the averaged weights, of params and params_ema"}


def test_pth_of_more_blocks_than_are_built(tmp_path: Path) -> None:
    file, weight = PthFile(), np.zeros(1, np.float32)
    shapes = {"m_head.0.weight": (4, 1, 1, 1), "m_body.0.conv1.3.weight": (1, 8, 3, 3)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    arrays |= {f"m_body.{n}.x": weight for n in range(300)}
    path = file.write(tmp_path / "a.pth", {k: file.tensor(x) for k, x in arrays.items()})
    with pytest.raises(
        WeightsError, match="num_blocks': got 300; expected at most 128|num_blocks: "
    ):
        converse_jax.load(path)


def test_a_run_folder_is_told_of_the_export(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(WeightsError, match="run: is the folder of a training run.*train.export"):
        converse_jax.load(tmp_path / "run")


@pytest.mark.parity
@pytest.mark.parametrize(("name", "sigma"), [("dncnn", 25.0), ("srresnet", None), ("usrnet", 2.55)])
def test_the_authors_weights_are_known_by_their_hashes(name: str, sigma: float | None) -> None:
    path = Path(os.environ.get("CONVERSE_SHARED", "../shared"), "weights", f"converse_{name}.pth")
    if not path.exists():
        pytest.skip("the authors' weights are not here (set CONVERSE_SHARED)")
    assert converse_jax.load(path)[1].sigma == sigma
