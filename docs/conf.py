"""How Sphinx makes the documentation: `make docs`. Nothing is fetched while it is made, or read."""

import inspect
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes
from flax import nnx
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxTranslator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from converse_jax import __version__  # noqa: E402

project, author = "converse-jax", "the authors of converse-jax"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "notebooks/*.py"]
html_theme, html_title = "furo", "converse-jax"
html_static_path = ["_static"]
html_css_files = ["style.css"]
templates_path: list[str] = []

# Words in docstrings between single backquotes are code, as in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autoclass_content = "both"  # of a class and of how it is made
autodoc_typehints = "none"  # shapes are said in words; the signature would drown in them
napoleon_google_docstring, napoleon_numpy_docstring = True, False
maximum_signature_line_length = 80

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
# Files of the repository that are no pages.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]

# Notebooks are shown as they are, or run while the site is made: EXECUTE=1 make docs.
nb_execution_mode = "force" if os.environ.get("EXECUTE") else "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True

html_math_renderer = "mathml"


def _mathml(source: str, display: str) -> str:
    return str(latex2mathml.converter.convert(source, display=display))


def _inline(self: SphinxTranslator, node: nodes.math) -> None:
    self.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(self: SphinxTranslator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def _equations(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Indented lines of a docstring are equations or code: shown as they stand."""
    before = ""
    for i, line in enumerate(lines):
        indented = line.startswith("    ")
        if indented and not before.strip() and i and not _in_section(lines, i):
            lines[i - 1] = "\n.. code-block:: text\n"
        before = lines[i] if not indented else line
    lines[:] = "\n".join(lines).split("\n")


def _signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returned: Any
) -> tuple[str, Any] | None:
    """Of Flax's modules, which hide how they are made behind a metaclass."""
    if what != "class" or not issubclass(thing, nnx.Module):
        return None
    _, *rest = inspect.signature(thing.__init__).parameters.values()
    bare = [
        parameter.replace(annotation=parameter.empty, default=_Named(parameter.default))
        if callable(parameter.default) and parameter.default is not parameter.empty
        else parameter.replace(annotation=parameter.empty)
        for parameter in rest
    ]
    return str(inspect.Signature(bare)), None


class _Named:
    """A function or class as a default: shown by its name."""

    def __init__(self, thing: Any) -> None:
        self.name = getattr(thing, "__name__", repr(thing))

    def __repr__(self) -> str:
        return self.name


def _in_section(lines: list[str], i: int) -> bool:
    """Whether an indented line belongs to "Args:" or another heading of Google's style."""
    above = next((line for line in reversed(lines[:i]) if line[:1].strip()), "")
    return above.endswith(":") and above[0].isupper() and " " not in above


def _bring_notebooks(app: Sphinx) -> None:
    target = Path(app.srcdir) / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        # Colab's badge is an image of another host: a link in words does.
        text = notebook.read_text(encoding="utf-8")
        text = re.sub(r"\[!\[Open in Colab\]\([^)]*\)\]", "[Open in Colab]", text)
        (target / notebook.name).write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Formulas as MathML, which browsers draw by themselves; notebooks from beside this folder."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("builder-inited", _bring_notebooks)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _equations, priority=100)  # before napoleon
