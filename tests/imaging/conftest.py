"""Where the files of the authors' implementation lie, for the tests marked `parity`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def golden() -> Path:
    folder = Path(os.environ.get("CONVERSE_SHARED", "../shared"))
    folder = (ROOT / folder).resolve() / "golden"
    if not folder.is_dir():
        pytest.skip("the shared golden files are not here (set CONVERSE_SHARED)")
    return folder
