"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

from converse_jax.weights import list_models

README = Path(__file__).parents[1] / "README.md"
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


def test_every_path_of_the_map_exists() -> None:
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (README.parent / target).exists(), target
    rows = re.findall(r"^\| (`[^|]+) \|", text[text.index("## Repository map") :], re.MULTILINE)
    for row in rows:
        folder = ""
        for path in re.findall(r"`([^`]+)`", row):
            folder = folder or path.split("/")[0]
            candidates = (README.parent / path, README.parent / folder / path)
            assert any(c.exists() for c in candidates), path
