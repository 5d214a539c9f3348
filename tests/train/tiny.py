"""A network and a folder small enough to train in a test."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from train.checkpoint import Checkpoints
from train.config import Config, Data, Optimizer
from train.networks import ConverseDnCNNConfig
from train.tasks import Denoise

ROOT = Path(__file__).parents[2]


def folder(path: Path, sizes: Sequence[tuple[int, int]] = ((24, 30),) * 5) -> Path:
    """A folder of gray images, each another, of these (height, width)."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    return path


def config(images: Path | str, **changes: Any) -> Config:
    """A run of a minute network; changes to data with the prefix `data_`."""
    data = Data(
        train=(str(images),), num_validation=1, validation_size=16, patch_size=16, threads=2
    )
    of_data = {k.removeprefix("data_"): changes.pop(k) for k in list(changes) if k[:5] == "data_"}
    base = Config(
        name="tiny",
        model=ConverseDnCNNConfig(num_features=2, num_blocks=1, kernel_size=3),
        task=Denoise(),
        data=dataclasses.replace(data, **of_data),
        optimizer=Optimizer(learning_rate=1e-3, warmup=2),
        steps=6,
        batch_size=8,
        ema=0.9,
        log_every=1,
        eval_every=3,
        save_every=3,
    )
    return dataclasses.replace(base, **changes)


def config_file(path: Path, images: Path) -> Path:
    """The same as a file for the command line."""
    path.write_text(
        "import pathlib\nfrom tests.train import tiny\n"
        f"config = tiny.config(pathlib.Path({str(images)!r}))\n"
    )
    return path


def start(
    *arguments: object,
    program: Sequence[object] = ("-m", "train"),
    devices: int = 1,
    dump: Path | None = None,
    **environment: str,
) -> subprocess.Popen[str]:
    """`python -m train ...` in a process of its own; compiled programs as text into `dump`."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    if dump is not None:
        flags += f" --xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_step"
    return subprocess.Popen(
        [sys.executable, *map(str, [*program, *arguments])],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_only_gradients_are_exchanged(program: str, parameter_sizes: Collection[int]) -> None:
    """No collective in a compiled step but sums, each of the size of a parameter or one number."""
    for exchange in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert exchange not in program
    sums = [x for x in program.splitlines() if re.search(r"\ball-reduce(-start)?\(", x)]
    assert sums
    for line in sums:
        result = line.split("all-reduce(")[0].split("=", 1)[1]
        for shape in re.findall(r"\w+\[([\d,]*)\]", result):
            assert math.prod(int(n) for n in shape.split(",") if n) in {1, *parameter_sizes}, line


def saved(run: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint."""
    with Checkpoints(run, keep=1, read_only=True) as checkpoints:
        return {name: np.asarray(x) for name, x in checkpoints.load_arrays(step).items()}


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Bit by bit."""
    assert a.keys() == b.keys()
    different = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    assert not different
