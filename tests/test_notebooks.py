"""The notebooks are what their sources say, use public names alone, and run from top to bottom."""

import ast
import importlib
import json
import os
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.glob("notebooks/[0-9]*.py"))
each = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def cells(source: Path) -> list[dict]:
    return json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]


def text(cell: dict) -> str:
    return "".join(cell["source"])


def test_there_are_four() -> None:
    assert [source.stem[:2] for source in SOURCES] == ["01", "02", "03", "04"]


@each
def test_the_notebook_is_what_its_source_says(source: Path) -> None:
    pytest.importorskip("jupytext", reason="of the extra: notebooks")
    from notebooks.__main__ import as_notebook

    written = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert written == as_notebook(source), "run `make notebooks`"


@each
def test_it_has_no_outputs_and_is_small(source: Path) -> None:
    notebook = source.with_suffix(".ipynb")
    assert notebook.stat().st_size < 20_000
    code = [cell for cell in cells(source) if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@each
def test_it_begins_with_its_badge_and_one_setup(source: Path) -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = metadata["urls"]["Repository"]
    on_colab = repository.replace("https://github.com", "https://colab.research.google.com/github")
    head, setup, *_ = cells(source)
    assert f"({on_colab}/blob/main/notebooks/{source.stem}.ipynb)" in text(head)
    assert f'"{repository}"' in text(setup)
    assert setup["source"] == cells(SOURCES[0])[1]["source"]
    assert "constraints" not in text(setup)  # Colab's own JAX stays
    (extra,) = re.findall(r'"\.\[(\w+)\]"', text(setup))
    assert extra in metadata["optional-dependencies"]


@each
def test_it_imports_public_names_alone(source: Path) -> None:
    imported = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            imported += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            imported += [(alias.name, None) for alias in node.names]
    ours = [(module, name) for module, name in imported if module.startswith("converse_jax")]
    assert ours
    for module, name in ours:
        assert not any(part.startswith("_") for part in module.split("."))
        assert name is None or name in importlib.import_module(module).__all__, (module, name)


@each
def test_it_takes_public_names_from_the_package(source: Path) -> None:
    used = re.findall(r"(?<![\w.])converse_jax\.(\w+)", source.read_text(encoding="utf-8"))
    package: ModuleType = importlib.import_module("converse_jax")
    assert set(used) - {"imaging"} <= set(package.__all__)


@pytest.mark.slow
@each
def test_it_runs_from_top_to_bottom_without_a_warning(source: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="of the extra: notebooks")
    pytest.importorskip("ipykernel", reason="of the extra: notebooks")
    import nbformat

    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    strict = "import warnings\nwarnings.simplefilter('error')"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(strict))
    # As a reader runs it: without this suite's flags of XLA.
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(source.parent)}}
    )
    client.execute(env=environment | {"PYTHONPATH": str(ROOT)})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
