"""`python -m train.figures`: what is drawn is what the network computes; mistakes are one line."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from converse_jax import ModelCard, models, save
from converse_jax.imaging import Image, write_image
from converse_jax.nn import Converse2D
from train import block_figure, figures, panel_figure


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "a.png"
    pixels = np.random.default_rng(0).random((48, 40, 3), np.float32)
    write_image(path, Image(pixels))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small networks of the three tasks."""
    folder = tmp_path_factory.mktemp("weights")
    small = {"num_features": 4, "num_blocks": 2}
    kinds = {
        "ConverseDnCNN": ("denoise", small),
        "ConvDnCNN": ("denoise", small),
        "ConverseSRResNet": ("sr", {**small, "scale": 2}),
        "ConverseNet": ("deblur", small),
    }
    found = {}
    for name, (task, config) in kinds.items():
        model = models.registered()[name].make(**config, rngs=nnx.Rngs(0))
        channels = 1 if task == "denoise" else 3
        card = ModelCard(name, name, config, task, channels, scale=config.get("scale", 1))
        found[name] = str(folder / f"{name}.safetensors")
        save(found[name], model, card)
    return found


@pytest.mark.parametrize("mode", ["circular", "replicate", "constant"])
def test_a_solution_is_what_the_layer_returns(mode: str) -> None:
    layer = Converse2D(3, 5, padding_mode=mode, rngs=nnx.Rngs(0))
    y = jax.random.uniform(jax.random.key(1), (12, 9, 3))
    found = block_figure.solutions(layer, y, [2, 0])
    for one, channel in zip(found, (2, 0), strict=True):
        np.testing.assert_allclose(one.result, layer(y)[..., channel], atol=1e-5)
        np.testing.assert_array_equal(one.given, y[..., channel])
        np.testing.assert_array_equal(one.kernel, layer.kernel[..., channel])


def test_what_is_left_grows_with_lambda_and_is_small_without() -> None:
    y = jax.random.uniform(jax.random.key(1), (12, 9, 1))
    small, large = (
        block_figure.solutions(
            Converse2D(1, 3, eps=eps, lam_init=eps + 1e-5, rngs=nnx.Rngs(0)), y, [0]
        )
        for eps in (1e-6, 0.1)
    )
    assert small[0].left < 0.02 < large[0].left
    np.testing.assert_allclose(small[0].explained, y[..., 0], atol=0.1)


def test_the_network_is_as_before_after_it_was_watched() -> None:
    model = models.ConverseDnCNN(num_features=4, num_blocks=2, rngs=nnx.Rngs(0))
    x = jax.random.uniform(jax.random.key(0), (8, 8, 1))
    layer, before = model.body[1].spatial, model(x)
    seen = block_figure.recorded_input(model, model.body[1], lambda: model(x))
    assert seen.shape == (8, 8, 8)
    assert model.body[1].spatial is layer
    np.testing.assert_array_equal(model(x), before)


def test_noise_rises_from_left_to_right() -> None:
    clean = np.full((400, 51, 1), 128, np.uint8)
    noisy, level = panel_figure.rising_noise(clean)
    measured = (noisy - 128 / 255).std(axis=(0, 2)) * 255
    np.testing.assert_allclose(measured, np.arange(51.0), rtol=0.2, atol=1e-4)
    np.testing.assert_allclose(level[7] * 255, np.arange(51.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("figure", "network", "more"),
    [
        pytest.param(
            *(2, "ConverseDnCNN", ["--block", "2", "--channels", "1", "5"]), marks=pytest.mark.slow
        ),
        (4, "ConverseDnCNN", ["--detail", "4", "6", "12"]),
        pytest.param(5, "ConverseSRResNet", [], marks=pytest.mark.slow),
        pytest.param(6, "ConverseNet", ["--kernel", "box:3"], marks=pytest.mark.slow),
    ],
)
def test_a_figure_is_two_files_which_are_not_overwritten(
    figure: int,
    network: str,
    more: list[str],
    weights: dict[str, str],
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib", reason='pip install -e ".[figures]"')
    out = tmp_path / "new" / "figure"
    command = [str(figure), "--weights", f"Ours={weights[network]}", "--image", str(image), *more]
    command += ["--out", str(out)]
    assert figures.main(command) == 0
    assert out.with_name("figure.png").read_bytes().startswith(b"\x89PNG")
    assert out.with_name("figure.pdf").read_bytes().startswith(b"%PDF")
    assert figures.main(command) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("2 --weights DnCNN --image IMAGE --block 3", "--block: got 3; expected 1 to 2"),
        ("2 --weights DnCNN --image IMAGE --channels 8", "--channels: got [8]; expected 0 to 7"),
        ("2 --weights DnCNN Net --image IMAGE", "figure 2 shows one network"),
        ("2 --weights Net --image IMAGE", "is a network for 'deblur'"),
        ("2 --weights Conv --image IMAGE", "has no Converse blocks, which figure 2 shows"),
        ("4 --weights Net --image IMAGE", "is a network for 'deblur'"),
        ("4 --weights DnCNN denoise-color --image IMAGE", "expected one kind"),
        ("4 --weights DnCNN --image IMAGE --kernel box:3", "belongs to figure 6"),
        ("4 --weights DnCNN --image IMAGE --detail 40 0 9", "outside of 40x48 pixels"),
        ("4 --weights DnCNN --image missing.png", "missing.png"),
        ("4 --weights missing.pth --image IMAGE", "missing.pth"),
        ("6 --weights Net --image IMAGE", "give the kernel"),
        ("6 --weights Net --image IMAGE --kernel missing.npy", "--kernel: missing.npy"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str,
    said: str,
    weights: dict[str, str],
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib", reason='pip install -e ".[figures]"')
    places = {
        "IMAGE": str(image),
        "DnCNN": weights["ConverseDnCNN"],
        "Conv": weights["ConvDnCNN"],
        "Net": weights["ConverseNet"],
    }
    words = [places.get(word, word) for word in arguments.split()]
    assert figures.main([*words, "--out", str(tmp_path / "figure")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_line_says_what_to_install(
    weights: dict[str, str],
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ["2", "--weights", weights["ConverseDnCNN"], "--image", str(image)]
    assert figures.main(words) == 2
    assert 'pip install -e ".[figures]"' in capsys.readouterr().err
