"""Write `NAME.ipynb` of each `NAME.py` here: `python -m notebooks`, or `make notebooks`.

The `.py` files (jupytext's "percent" format) are the source; `.ipynb` files have no outputs.
"""

from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("[0-9]*.py"))


def as_notebook(source: Path) -> str:
    """The text of the notebook of a source; the same for the same source."""
    notebook = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # jupytext draws them at random
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main() -> None:
    """Write all of them."""
    for source in SOURCES:
        source.with_suffix(".ipynb").write_text(as_notebook(source), encoding="utf-8")


if __name__ == "__main__":
    main()
