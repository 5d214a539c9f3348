"""README and documentation: their Python runs, links lead somewhere, nothing public is left out."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import converse_jax
from converse_jax import export_onnx, export_stablehlo, load, models, nn, ops, save
from converse_jax.weights import list_models

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "benchmarks/README.md",
]


def examples(document: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


BLOCKS = examples(README)
# Those of training.md are files of their own: tests/train/test_own.py.
PAGES = [path for path in DOCUMENTS if examples(path) and path.name != "training.md"]


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3


def test_the_examples_run_one_after_the_other() -> None:
    names: dict[str, object] = {}
    for block in BLOCKS:
        for model in re.findall(r'load\("([\w-]+)"\)', block):
            if model not in list_models():
                pytest.fail(f"README loads {model}, which the package does not have")
        exec(compile(block, str(README), "exec"), names)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")  # symbolic sizes are no numbers
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_examples_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, card = load("denoise-color")
    save("mine.safetensors", model, card)
    export_onnx(model, card, "denoise.onnx")
    if page.name == "export.md":
        export_stablehlo(load("deblur")[0], "deblur.stablehlo")
    names: dict[str, object] = {
        "image": np.random.default_rng(0).random((1032, 1026, 3)),
        "blurred": np.ones((1, 32, 40, 3), np.float32),
        "kernels": np.ones((1, 7, 7), np.float32) / 49,
    }
    for block in examples(page):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("module", [converse_jax, ops, nn, models], ids=lambda m: m.__name__)
def test_every_public_name_is_on_a_page(module: ModuleType) -> None:
    pages = "".join(path.read_text("utf-8") for path in ROOT.glob("docs/reference/*.md"))
    shown = set(re.findall(r"auto(?:function|class|data|exception):: (\w+)", pages))
    names = {n for n in module.__all__ if not isinstance(getattr(module, n), ModuleType)}
    assert names <= shown
    # All of a module at once.
    assert "automodule:: converse_jax.imaging\n   :members:\n   :imported-members:" in pages


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", [README, ROOT / "docs/map.md"], ids=lambda path: path.name)
def test_every_path_of_the_map_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+) \|", text[text.index("# Repository map") :], re.MULTILINE)
    assert rows
    for row in rows:
        folder = ""
        for path in re.findall(r"`([^`]+)`", row):
            folder = folder or path.split("/")[0]
            candidates = (ROOT / path, ROOT / folder / path)
            assert any(c.exists() for c in candidates), path
