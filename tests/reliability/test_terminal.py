"""What files are called, and what they say, cannot command the terminal that shows it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax import ModelCard, cli, compilation_cache
from converse_jax.imaging import Image, write_image
from converse_jax.messages import one_line, printable
from converse_jax.models import ConverseDnCNN
from train import __main__ as train_command
from train import export

CLEAR = "\x1b[2J\x07\u202e"  # clear the screen, ring, write from right to left
CONFIG = {"channels": 1, "num_features": 2, "num_blocks": 1}


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights whose card says all that a card can say with escape sequences."""
    model = ConverseDnCNN(**CONFIG, rngs=nnx.Rngs(0))
    card = ModelCard(
        CLEAR, "ConverseDnCNN", CONFIG, "denoise", 1, sigma=1.0, source=CLEAR, license=CLEAR,
        notes={"read": CLEAR},
    )  # fmt: skip
    path = tmp_path / f"{CLEAR}.safetensors"
    converse_jax.save(path, model, card)
    return path


def image(path: Path, channels: int = 3) -> Path:
    noise = np.random.default_rng(0).random((16, 16, channels), np.float32)
    write_image(path, Image(noise))
    return path


def check(capsys: pytest.CaptureFixture[str], *, said: bool = True) -> None:
    out, err = capsys.readouterr()
    assert ("\\x1b[2J\\x07\\u202e" in out + err) == said
    for line in (out + err).splitlines():
        assert line.isprintable()


def test_printable() -> None:
    assert printable("größe 大きさ") == "größe 大きさ"
    assert printable(f"a{CLEAR}b\udc80\n") == "a\\x1b[2J\\x07\\u202eb\\udc80\\n"
    assert one_line(ValueError("a\n \x1b[2J")) == "a \\x1b[2J"


@pytest.mark.skipif(os.name == "nt", reason="names with control characters")
def test_restoring_files_of_such_names(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    image(tmp_path / "in" / f"{CLEAR}.png")
    (tmp_path / "in" / f"{CLEAR}.jpg").write_bytes(b"\xff\xd8\xff damaged")
    (tmp_path / "in" / f"{CLEAR}.txt").write_text("no image")
    folders = [str(tmp_path / "in"), str(tmp_path / "out")]
    assert cli.main(["restore", *folders, "--model", str(weights)]) == 1
    check(capsys)
    one = str(tmp_path / "in" / f"{CLEAR}.png")
    assert cli.main(["restore", one, str(tmp_path / "one.png"), "--model", str(weights)]) == 0
    check(capsys)
    assert cli.main(["restore", f"{CLEAR}.png", "b.png", "--model", str(weights)]) == 2
    check(capsys)
    assert cli.main(["restore", one, "b.png", "--model", CLEAR]) == 2
    check(capsys)
    assert cli.main(["restore", one, "b.png", "--kernel", CLEAR, "--model", str(weights)]) == 2
    check(capsys)
    assert cli.main(["restore", one, "b.png", f"--{CLEAR}"]) == 2
    check(capsys)


def test_measuring_converting_and_listing(
    tmp_path: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in").mkdir()
    image(tmp_path / "in" / f"{CLEAR}.png", 1)
    data = ["--data", str(tmp_path / "in"), "--model", str(weights)]
    assert cli.main(["evaluate", *data]) == 0
    check(capsys)
    assert cli.main(["compare", str(tmp_path / "in"), str(tmp_path / "in")]) == 0
    check(capsys)
    assert cli.main(["convert", str(weights), str(tmp_path / f"{CLEAR}2.safetensors")]) == 0
    check(capsys)
    monkeypatch.setattr("converse_jax.weights._load.BUNDLED", tmp_path)
    assert cli.main(["models"]) == 0
    check(capsys)


def test_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_command.main([f"{CLEAR}.py"]) == 2
    check(capsys)
    assert export.main([str(tmp_path / CLEAR), str(tmp_path / "a.safetensors")]) == 2
    check(capsys)
