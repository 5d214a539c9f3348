"""A network and a task from a file outside of the package: trained, exported, loaded, used."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import converse_jax
from converse_jax import models
from converse_jax.cli import main as converse_jax_command
from converse_jax.plugins import PluginError, load_plugin
from tests.train import tiny
from train import __main__ as command
from train import export
from train.config import parse_args, read_config
from train.errors import TrainError
from train.state import FunctionalNetwork

README = tiny.ROOT / "docs" / "training.md"

NETWORK = '''
from flax import nnx
from converse_jax import models

@models.register(task="denoise", inputs=lambda config: ("sigma",) if config["told"] else ())
class {name}(nnx.Module):
    """A filter."""

    def __init__(self, channels, width, told=False, *, rngs):
        self.told = told
        self.conv = nnx.Conv(channels, channels, (width, width), rngs=rngs)

    def __call__(self, x, sigma=None):
        y = x + self.conv(x)
        return y if sigma is None else y * (1 - sigma[..., None, None, None])
'''

CONFIG = '''
"""A network and a task of my own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import {module}
from tests.train import tiny
from train.networks import NetworkConfig
from train.tasks import Example, Task


@dataclass(frozen=True)
class Filter(NetworkConfig):
    """A filter.

    Attributes:
      width: taps on each side of the filter.
      told: the network is told the noise level.
    """

    architecture: ClassVar[str] = "{name}"
    channels: int = 1
    width: int = 3
    told: bool = False


@dataclass(frozen=True)
class Gaps(Task):
    """Pixels that are missing.

    Attributes:
      part: how many of them.
    """

    name: ClassVar[str] = "denoise"
    part: float = 0.1

    def degrade(self, clean: np.ndarray, rng: np.random.Generator) -> Example:
        target = clean.astype(np.float32) / np.float32(255)
        return {{"input": target * (rng.random(clean.shape) > self.part), "target": target}}


config = tiny.config({images!r}, name="own-{{part}}", model=Filter(), task=Gaps())
config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, warmup=0))
'''


def files(folder: Path, name: str) -> Path:
    """A configuration, its network in a module beside it, and images."""
    module = f"network_of_{name.lower()}"
    (folder / f"{module}.py").write_text(NETWORK.format(name=name))
    path = folder / f"config_of_{name.lower()}.py"
    images = tiny.folder(folder / "images")
    path.write_text(CONFIG.format(name=name, module=module, images=str(images)))
    return path


def converse_jax_process(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, where nothing has been registered before."""
    return subprocess.run(
        [sys.executable, "-m", "converse_jax", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(tiny.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_own_network_from_training_to_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files(tmp_path, "FirstFilter")
    network = tmp_path / "network_of_firstfilter.py"
    run = tmp_path / "run"
    process = tiny.start(path, "--steps", 2, "--model.width", 5, "--task.part", 0.3, "--run", run)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "26 parameters" in errors
    # This process has not run the file.
    target = tmp_path / "own.safetensors"
    assert "FirstFilter" not in models.registered()
    assert export.main([str(run), str(target)]) == 2
    error = capsys.readouterr().err
    assert "unknown architecture 'FirstFilter', known are ConverseDnCNN" in error
    assert f"give '{network}' (--plugin)" in error
    assert export.main([str(run), str(target), "--plugin", str(network)]) == 0
    assert models.registered()["FirstFilter"].tasks == ("denoise",)
    model, card = converse_jax.load(target)
    assert (card.name, card.architecture, card.task) == ("own-0.3", "FirstFilter", "denoise")
    assert card.config == {"channels": 1, "width": 5, "told": False}
    assert (card.defined_in, card.needs_sigma, card.sigma) == (str(network), False, None)
    image = np.random.default_rng(0).random((8, 9, 1), np.float32)
    assert model(image[None]).shape == (1, 8, 9, 1)

    clean = tmp_path / "clean.png"
    restore = ["restore", tmp_path / "images/0.png", clean, "--model", target]
    found = converse_jax_process(*restore, cwd=tmp_path)
    assert found.returncode == 2
    assert "(--plugin)" in found.stderr
    assert found.stderr.count("\n") == 1
    found = converse_jax_process(*restore, "--plugin", network.name, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert clean.is_file()


def test_evaluate_takes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files(tmp_path, "SecondFilter")
    network = tmp_path / "network_of_secondfilter.py"
    module = load_plugin(network)
    arguments = {"channels": 1, "width": 3}
    model = module.SecondFilter(**arguments, rngs=converse_jax.models.dncnn.nnx.Rngs(0))
    card = converse_jax.ModelCard("second", "SecondFilter", arguments, "denoise", 1)
    converse_jax.save(tmp_path / "second.safetensors", model, card)
    line = ["evaluate", "--model", tmp_path / "second.safetensors", "--task", "denoise"]
    line += ["--data", tmp_path / "images", "--plugin", network]
    assert converse_jax_command([str(a) for a in line]) == 0
    assert "mean of 5" in capsys.readouterr().out
    line[-1] = tmp_path / "nothing.py"
    assert converse_jax_command([str(a) for a in line]) == 2
    assert "nothing.py: no such file" in capsys.readouterr().err


def test_help_has_the_fields_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files(tmp_path, "ThirdFilter")
    with pytest.raises(SystemExit) as done:
        command.main([str(path), "--help"])
    assert done.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("--model.width INT", "taps on each side of the filter", "--task.part FLOAT"):
        assert words in text
    config = read_config(str(path))
    told = parse_args(config, ["--model.told"]).config
    assert type(told) is type(config)
    assert told.model.inputs == ("input", "sigma")
    with pytest.raises(TrainError, match="Filter is called with sigma, which Gaps does not give"):
        told.check()
    config.check()
    half = parse_args(config, ["--dtype", "bfloat16"]).config
    with pytest.raises(TrainError, match=r"ThirdFilter.__init__ takes no `dtype`"):
        FunctionalNetwork(half)
    again = parse_args(config, ["--remat"]).config
    with pytest.raises(TrainError, match="--remat: ThirdFilter.__init__ takes no `block`"):
        FunctionalNetwork(again)
    example = {"input": np.zeros((8, 8, 1), np.float32), "target": np.zeros((4, 4, 1))}
    FunctionalNetwork(config).check_output({"input": example["input"], "target": example["input"]})
    with pytest.raises(TrainError, match=r"makes \[1, 8, 8, 1\] from an .* are \[1, 4, 4, 1\]"):
        FunctionalNetwork(config).check_output(example)


def test_example_of_the_readme(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n# (my_\w+\.py)\n(.*?)```", README.read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["my_network.py", "my_config.py"]
    for name, block in blocks:
        (tmp_path / name).write_text(block)
    config = read_config(str(tmp_path / "my_config.py"))
    config = parse_args(config, ["--model.width", "4"]).config.named()
    config.check()
    assert config.name == "plain-15"
    rng = np.random.default_rng(0)
    example = config.task.degrade(rng.integers(0, 256, (8, 9, 1), dtype=np.uint8), rng)
    network = FunctionalNetwork(config)
    assert network.shapes["head.kernel"] == (3, 3, 1, 4)
    network.check_output(example)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import nowhere_at_all\n", "line 1: ModuleNotFoundError: No module named"),
        ("x = (\n", "line 1: SyntaxError"),
        (
            "from converse_jax import models\n@models.register(task='paint')\nclass A: ...\n",
            "line 2: ValueError: task: got 'paint'; expected one or more of denoise, sr, deblur",
        ),
        (
            (
                "from converse_jax import models as m\n@m.register(task='sr', name='ConverseNet')\n"
                "class A: ...\n"
            ),
            "line 2: ValueError: name: 'ConverseNet' is taken by a network of converse_jax",
        ),
        (
            (
                "from converse_jax import models as m\n@m.register(task='sr', inputs=('depth',))\n"
                "class A: ...\n"
            ),
            "line 2: ValueError: inputs: got ('depth',); expected a tuple of some of sigma, kernel",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_files_that_do_not_run(source: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(PluginError) as caught:
        load_plugin(path)
    assert f"{path}, {text}" in str(caught.value)
    assert "broken" not in sys.modules
    with pytest.raises(PluginError, match="no_such.module: cannot be imported"):
        load_plugin("no_such.module")


def test_a_file_may_be_called_like_a_module(tmp_path: Path) -> None:
    path = tmp_path / "json.py"
    path.write_text("mine = 3\n")
    assert load_plugin(path).mine == 3
    import json

    assert json.loads("3") == 3
