"""What type checkers see of the package from outside."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import numpy as np
from flax import nnx
from converse_jax import apply_transfer, blur_downsample, converse2d, converse2d_transfer
from converse_jax.models import ConverseDnCNN
from converse_jax.nn import Converse2D, prepare

x, kernel = np.ones((8, 8, 3), np.float32), np.ones((3, 3, 3), np.float32)
for lam in (0.1, np.float32(0.1), np.ones(3, np.float32)):
    reveal_type(converse2d(x, kernel, lam, scale=2))
apply_transfer(x, converse2d_transfer(kernel, np.float32(0.1), (8, 8)))
blur_downsample(x, kernel)
reveal_type(prepare(ConverseDnCNN(3, rngs=nnx.Rngs(0)), x))
converse2d(x, kernel, 0.1, method="dct")
"""


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_program_of_a_user(checker: str, tmp_path: Path) -> None:
    if not (command := shutil.which(checker)):
        pytest.skip(f"{checker} is not installed")
    (tmp_path / "program.py").write_text(PROGRAM)
    paths = dict.fromkeys(("MYPYPATH", "PYTHONPATH"), str(ROOT))
    options = ["--python-version", "3.12"] if checker == "mypy" else ["--pythonversion", "3.12"]
    result = subprocess.run(
        [command, *options, "program.py"],
        cwd=tmp_path, env={**os.environ, **paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [line for line in result.stdout.splitlines() if "program.py" in line]
    (error,) = [line for line in found if "error" in line]
    assert "method" in error
    assert sum(line.endswith('Array"') for line in found) == 1
    assert sum(line.endswith('ConverseDnCNN"') for line in found) == 1
