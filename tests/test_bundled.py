"""The command without a model: the network of the package for the task and the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax import ModelCard, cli, compilation_cache
from converse_jax.bundled import BundledRestorer
from converse_jax.imaging import Image, estimate_noise, read_image, write_image
from converse_jax.models import ConverseDnCNN, ConverseSRResNet
from converse_jax.restore import RestoreError
from converse_jax.weights import _load


def add(folder: Path, name: str, channels: int, gain: float, **more: Any) -> None:
    """A network that adds `gain` times the level it is told."""
    config = {
        "channels": channels,
        "num_features": 2,
        "num_blocks": 0,
        "noise_level": True,
        "residual": True,
    }
    model = ConverseDnCNN(**config, rngs=nnx.Rngs(0))
    model.head.kernel.set_value(jnp.zeros((channels + 1, 2)).at[-1, 0].set(1))
    model.tail.kernel.set_value(jnp.zeros((2, channels)).at[0].set(gain))
    card = ModelCard(
        *(name, "ConverseDnCNN", config, "denoise", channels),
        sigma_range=(0.0, 50.0),
        needs_sigma=True,
        **more,
    )
    converse_jax.save(folder / f"{name}.safetensors", model, card)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with three denoisers and one network that enlarges."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(_load, "BUNDLED", folder)
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)
    add(folder, "photo", 3, 1.0, estimate_share=0.85)
    add(folder, "denoise-color", 3, 2.0)
    add(folder, "denoise-gray", 1, 3.0)
    config = {"scale": 2, "num_features": 2, "num_blocks": 0}
    model = ConverseSRResNet(**config, rngs=nnx.Rngs(0))
    card = ModelCard("sr-x2", "ConverseSRResNet", config, "sr", 3, scale=2)
    converse_jax.save(folder / "sr-x2.safetensors", model, card)
    return folder


def image(path: Path, channels: int, sigma: float = 10) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma / 255, (40, 48, channels))
    write_image(path, Image(np.asarray(np.clip(0.5 + noise, 0, 1), np.float32)))
    return read_image(path).pixels


def test_nothing_but_two_names(
    bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = image(tmp_path / "a.png", 3)
    assert cli.main(["restore", str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 0
    level = estimate_noise(given)
    assert capsys.readouterr() == (
        "",
        f"noise of {255 * level:.1f} (of 255), estimated; photo is told 0.85 of it\n",
    )
    got = read_image(tmp_path / "b.png").pixels
    np.testing.assert_allclose(got, given + 0.85 * level, atol=0.51 / 255)


@pytest.mark.parametrize(
    ("options", "gain"),
    [
        ("--task photo --sigma 20", 1.0),
        ("--task denoise --sigma 20", 2.0),
        ("--task denoise --sigma 20 --strength 0.5", 1.0),
        ("--model denoise-color --sigma 20", 2.0),
    ],
)
def test_task_level_and_strength(
    bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, gain: float
) -> None:
    given = image(tmp_path / "a.png", 3, sigma=1)
    command = ["restore", str(tmp_path / "a.png"), str(tmp_path / "b.png"), *options.split()]
    assert cli.main(command) == 0
    assert capsys.readouterr().err == "noise of 20.0 (of 255), given\n"
    got = read_image(tmp_path / "b.png").pixels
    np.testing.assert_allclose(got, given + gain * 20 / 255, atol=1.01 / 255)


def test_a_folder_of_gray_and_color(
    bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    given = {n: image(tmp_path / "in" / f"{n}.png", n, sigma=1) for n in (1, 3)}
    out = tmp_path / "out"
    assert cli.main(["restore", str(tmp_path / "in"), str(out), "--task", "denoise"]) == 0
    lines = capsys.readouterr().err.splitlines()
    for channels, pixels in given.items():
        level = estimate_noise(pixels)
        name = tmp_path / "in" / f"{channels}.png"
        assert f"{name}: noise of {255 * level:.1f} (of 255), estimated" in lines
        want = pixels + {1: 3, 3: 2}[channels] * level
        np.testing.assert_allclose(
            read_image(out / f"{channels}.png").pixels, want, atol=1.01 / 255
        )


def test_enlarging(bundled: Path, tmp_path: Path) -> None:
    image(tmp_path / "a.png", 3)
    command = ["restore", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--task", "sr"]
    assert cli.main(command) == 0
    assert read_image(tmp_path / "b.png").pixels.shape == (80, 96, 3)


def test_a_network_is_loaded_when_it_is_needed(
    bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def load(name: str) -> tuple[nnx.Module, ModelCard]:
        names.append(name)
        return converse_jax.load(name)

    monkeypatch.setattr(converse_jax.bundled, "load", load)
    restorer = BundledRestorer("denoise")
    assert restorer.prepare_kernel(None) == (None, [])
    assert names == []
    for _ in range(2):
        restorer.plan(np.zeros((8, 8, 1), np.float32))
    assert names == ["denoise-gray"]


def test_what_is_not_there(bundled: Path) -> None:
    (bundled / "denoise-gray.safetensors").unlink()
    restorer = BundledRestorer("denoise")
    assert restorer.plan(np.zeros((8, 8, 3), np.float32)).restorer.card.name == "denoise-color"
    with pytest.raises(RestoreError, match=r"no bundled network denoise-gray; there are denoise-c"):
        restorer.plan(np.zeros((8, 8, 1), np.float32))
    with pytest.raises(RestoreError, match=r"task 'sr': there is no bundled network sr-x4; there"):
        BundledRestorer("sr", scale=4)
    with pytest.raises(RestoreError, match="task: got 'dehaze'; expected photo, denoise, sr, de"):
        BundledRestorer("dehaze")
    with pytest.raises(RestoreError, match="scale: task 'photo' does not enlarge; leave it out"):
        BundledRestorer("photo", scale=2)
