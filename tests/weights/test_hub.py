"""Weights from the Hub, from a stand-in on this machine, and the folder for it."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax import ModelCard, WeightsError, cli
from converse_jax.models import ConverseDnCNN
from converse_jax.weights import write_hub_folder

ROOT = Path(__file__).parents[2]
CONFIG = {"channels": 3, "num_features": 4, "num_blocks": 1, "kernel_size": 3, "noise_level": True}
CARD = ModelCard(
    "tiny",
    "ConverseDnCNN",
    CONFIG,
    "denoise",
    3,
    sigma_range=(0, 50),
    needs_sigma=True,
    source='a "test": of | cells\nand lines',
    license="Apache-2.0",
    notes={"measured": {"Set5": 30.0}, "trained_on": ["one", "two"], "not": "for: use"},
)
COMMIT = "a" * 40


def tiny() -> ConverseDnCNN:
    return ConverseDnCNN(**CONFIG, rngs=nnx.Rngs(0))


class Hub(http.server.BaseHTTPRequestHandler):
    """The two requests with which a file is fetched, for one repository."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    seen: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.seen.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/(\w+/[\w-]+)/resolve/([^/]+)/(.+)", self.path)
        code, content = None, b""
        if not found or found[1] == "owner/none":
            code = "RepoNotFound"
        elif found[1] == "owner/gated":
            code = "GatedRepo"
        elif found[2] not in ("main", "v1", COMMIT):
            code = "RevisionNotFound"
        elif found[1] == "owner/empty" or found[3] not in self.files:
            code = "EntryNotFound"
        else:
            content = self.files[found[3]]
        self.send_response(404 if code not in (None, "GatedRepo") else 403 if code else 200)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address, and `huggingface_hub` set to it."""
    constants = pytest.importorskip("huggingface_hub.constants")
    write_hub_folder(tiny(), CARD, tmp_path / "folder")
    files = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    monkeypatch.setattr(Hub, "files", files)
    monkeypatch.setattr(Hub, "seen", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    yield address
    server.shutdown()
    server.server_close()


def test_load(hub: str) -> None:
    model, card = converse_jax.load("hf:owner/tiny")
    assert card == CARD
    np.testing.assert_array_equal(model.head.kernel[...], tiny().head.kernel[...])
    assert any(path.endswith("/owner/tiny/resolve/main/model.safetensors") for path in Hub.seen)
    # Nothing else of a repository is asked for.
    files = [path for path in Hub.seen if "owner" in path]
    assert {path.rpartition("/")[2] for path in files} == {"model.safetensors"}


def test_a_revision(hub: str) -> None:
    assert converse_jax.load("hf:owner/tiny@v1")[1].name == "tiny"
    assert any("/resolve/v1/" in path for path in Hub.seen)


def test_from_the_cache(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    converse_jax.load("hf:owner/tiny")
    from huggingface_hub import constants

    Hub.seen.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert converse_jax.load("hf:owner/tiny")[1].name == "tiny"
    assert Hub.seen == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf:owner/none", "no such repository"),
        ("hf:owner/gated", "grants access one by one"),
        ("hf:owner/tiny@v2", "has no revision v2"),
        ("hf:owner/empty", r"holds no model\.safetensors"),
        ("hf:owner", "expected hf:OWNER/NAME"),
        ("hf:owner/../etc", "expected hf:OWNER/NAME"),
        ("hf:owner/a--b", "Cannot have -- or"),
    ],
)
def test_what_is_missing(hub: str, name: str, said: str) -> None:
    with pytest.raises(WeightsError, match=f"^{re.escape(name)}: .*{said}") as error:
        converse_jax.load(name)
    assert "\n" not in str(error.value)


def test_offline(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="cannot be reached, and the file is not in its cache"):
        converse_jax.load("hf:owner/tiny")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "converse-jax\[hub\]"'):
        converse_jax.load("hf:owner/tiny")
    arguments = ["restore", "in.png", str(tmp_path / "out.png"), "--model", "hf:owner/tiny"]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert 'needs the package huggingface_hub: pip install "converse-jax[hub]"' in said


@pytest.mark.slow
def test_a_process_that_is_told_where(hub: str, tmp_path: Path) -> None:
    """By the variables that the package documents, and where there is nobody."""
    program = "import converse_jax; print(converse_jax.load('hf:owner/tiny')[1].name)"
    variables = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert result.stdout.strip() == "tiny", result.stderr
    variables |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "other")}
    result = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert "hf:owner/tiny: the Hub cannot be reached" in result.stderr.splitlines()[-1]


def test_a_folder_for_the_hub(tmp_path: Path) -> None:
    converse_jax.save(tmp_path / "mine.safetensors", tiny(), CARD)
    folder = tmp_path / "folder"
    command = ["card", str(tmp_path / "mine.safetensors"), str(folder), "--repository", "me/tiny"]
    assert cli.main(command) == 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert converse_jax.load(folder / "model.safetensors")[1].name == "tiny"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["ConverseDnCNN"]
    assert config["config"] == CONFIG
    text = (folder / "README.md").read_text()
    assert 'converse_jax.load("hf:me/tiny")' in text
    assert r'| source | a "test": of \| cells and lines |' in text
    assert "| measured | Set5: 30.0 |" in text


def test_the_yaml_is_the_hubs(tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    write_hub_folder(tiny(), CARD, tmp_path)
    data = huggingface_hub.ModelCard.load(tmp_path / "README.md").data
    assert data.license == "apache-2.0"
    assert data.library_name == "converse-jax"
    assert data.pipeline_tag == "image-to-image"
    assert {"image-restoration", "image-denoising"} <= set(data.tags)
    own = dataclasses.replace(CARD, license='Ours: "1"')
    write_hub_folder(tiny(), own, tmp_path, overwrite=True)
    data = huggingface_hub.ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.license_name) == ("other", 'Ours: "1"')


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(WeightsError, match=r"config\.json: exists already"):
        write_hub_folder(tiny(), CARD, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "mine"
    write_hub_folder(tiny(), CARD, tmp_path, overwrite=True)
    assert json.loads((tmp_path / "config.json").read_text())["name"] == "tiny"


def test_weights_without_a_license_are_not_published(tmp_path: Path) -> None:
    card = dataclasses.replace(CARD, license="unknown: the authors' release carries none")
    with pytest.raises(WeightsError, match="^tiny: got weights of license .unknown: the authors"):
        write_hub_folder(tiny(), card, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
