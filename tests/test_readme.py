"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

from converse_jax.weights import list_models

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "benchmarks/README.md",
]
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3


def test_the_examples_run_one_after_the_other() -> None:
    names: dict[str, object] = {}
    for block in BLOCKS:
        for model in re.findall(r'load\("([\w-]+)"\)', block):
            if model not in list_models():
                pytest.fail(f"README loads {model}, which the package does not have")
        exec(compile(block, str(README), "exec"), names)


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
