"""Killed at any file operation, full and read-only disks, damaged caches, too little memory."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax import ModelCard
from converse_jax.atomic import is_leftover
from converse_jax.imaging import Image, read_image, write_image
from converse_jax.models import ConverseDnCNN
from tests.train import tiny

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CONVERSE_KILLS", "6"))
"""How often a training run is killed, and how often an export; the suite has little time."""

STEPS = 12
EVERY = ["--steps", STEPS, "--save-every", 1, "--eval-every", STEPS]
CONFIG = {"channels": 1, "num_features": 2, "num_blocks": 1}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One device, and programs that are compiled once for all processes."""
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
    cache = tmp_path_factory.mktemp("cache")
    changes = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    return os.environ | changes


def run(
    environment: dict[str, str], *command: object, kilobytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module, with at most so many kilobytes of addresses."""
    limit = "unlimited" if kilobytes is None else kilobytes
    shell = ["sh", "-c", f'ulimit -v {limit}; exec "$@"', "sh", sys.executable, "-m"]
    return subprocess.run(
        [*shell, *map(str, command)],
        cwd=tiny.ROOT,
        env=environment,
        text=True,
        capture_output=True,
        timeout=500,
    )


def said(process: subprocess.CompletedProcess, status: int) -> str:
    """The last line on standard error of a process that ended with this status."""
    assert process.returncode == status, process.stderr[-3000:]
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return tiny.config_file(folder / "tiny_config.py", tiny.folder(folder / "images"))


@pytest.fixture(scope="module")
def reference(
    config_file: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run in one go."""
    place = tmp_path_factory.mktemp("runs") / "reference"
    said(run(environment, "train", config_file, *EVERY, "--run", place), 0)
    return place


def test_restoring_a_folder_survives_a_fault_at_every_operation(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    process = run(environment, "tests.reliability.restore_faults", tmp_path)
    assert process.returncode == 0, process.stderr
    counts = re.fullmatch(r"killed (\d+)(, E\w+ \d+){5}\n", process.stdout)
    assert counts is not None and int(counts[1]) > 20


def test_training_killed_at_any_operation_is_as_in_one_go(
    config_file: Path, reference: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    rng, kills, runs, at = random.Random(KILLS), 0, 0, 0
    while True:
        place = tmp_path / str(runs)
        newest = 0
        while True:
            # Most operations are those of checkpoints, of which each has about thirty.
            at = rng.randrange(1, 40) if rng.random() < 0.5 else rng.randrange(1, 300)
            if kills >= KILLS:
                at = 0
            process = run(
                environment,
                *("tests.reliability.faults", place, at, "train", config_file),
                *(*EVERY, "--run", place, "--resume"),
            )
            folder = place / "checkpoints"
            done = [int(p.name) for p in folder.glob("*") if p.name.isdigit()]
            if done:  # those that were there are still there, or better ones
                assert max(done) >= newest
                newest = max(done)
                tiny.saved(place, newest)
            if process.returncode == 0:
                break
            kills += 1
            assert process.returncode == -9, process.stderr[-3000:]
        # Only old ones may be incomplete, which were being deleted.
        for line in re.findall(r"^checkpoint .* is damaged.*", process.stderr, re.M):
            assert "as if a run was killed while deleting it" in line
        tiny.assert_equal(tiny.saved(place, STEPS), tiny.saved(reference, STEPS))
        leftovers = [p for p in place.rglob("*") if is_leftover(p.name) or "-tmp" in p.name]
        assert not leftovers
        shutil.rmtree(place)
        runs += 1
        if kills >= KILLS:
            break
    print(f"{kills} kills, {runs} runs")


def test_export_killed_at_any_operation_leaves_no_half_file(
    reference: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    def export(target: Path, at: int) -> subprocess.CompletedProcess:
        return run(
            environment,
            *("tests.reliability.faults", target.parent, at, "export", reference, target),
        )

    process = export(tmp_path / "whole" / "w.safetensors", 0)
    assert process.returncode == 2  # there is no such folder
    (tmp_path / "whole").mkdir()
    process = export(tmp_path / "whole" / "w.safetensors", 0)
    count = int(said(process, 0).removeprefix("operations: "))
    whole = (tmp_path / "whole" / "w.safetensors").read_bytes()
    assert count >= 4
    for at in range(1, min(count, KILLS) + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        target = folder / "w.safetensors"
        assert export(target, at).returncode == -9
        if not target.exists():
            said(export(target, 0), 0)
            assert [path.name for path in folder.iterdir()] == [target.name]
        assert target.read_bytes() == whole


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    card = ModelCard("tiny", "ConverseDnCNN", CONFIG, "denoise", 1, sigma=25.0)
    converse_jax.save(path, ConverseDnCNN(**CONFIG, rngs=nnx.Rngs(0)), card)
    return path


def photographs(folder: Path, count: int, side: int = 16) -> Path:
    """Images of a format that takes a byte a pixel."""
    folder.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).random((side, side, 1), np.float32)
        write_image(folder / f"{number}.bmp", Image(noise))
    return folder


def test_a_full_disk_keeps_what_was_restored(
    disk: Path, weights: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    source = photographs(tmp_path / "in", 6, 600)
    command = ["converse_jax", "restore", source, disk / "out", "--model", weights]
    process = run(environment, *command)
    assert said(process, 1) == "2 restored, 0 skipped (there already), 4 failed"
    failed = [x for x in process.stderr.splitlines() if x.startswith("failed: ")]
    assert len(failed) == 4 and all("No space left on device" in line for line in failed)
    made = sorted((disk / "out").iterdir())
    assert len(made) == 2
    for path in made:
        assert read_image(path).pixels.shape == (600, 600, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    process = run(environment, *command)
    assert said(process, 1) == "0 restored, 2 skipped (there already), 4 failed"
    assert process.stderr.count("may not be written to") == 4
    subprocess.run(["mount", "-o", "remount,rw,size=8m", str(disk)], check=True)
    assert said(run(environment, *command), 0) == "4 restored, 2 skipped (there already), 0 failed"


def test_a_full_disk_stops_training_and_loses_nothing(
    disk: Path, config_file: Path, reference: Path, environment: dict[str, str]
) -> None:
    place = disk / "run"
    command = ["train", config_file, *EVERY, "--run", place, "--resume"]
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(2**20 - 150_000))
    process = run(environment, *command)
    assert process.returncode in (1, 2) and "Traceback" not in process.stderr
    line = process.stderr.splitlines()[-1]
    assert "make room" in line or "No space left" in line
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    said(run(environment, *command), 0)
    tiny.assert_equal(tiny.saved(place, STEPS), tiny.saved(reference, STEPS))


def test_a_damaged_cache_is_no_hindrance(
    weights: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    source = photographs(tmp_path / "in", 1)
    cache = tmp_path / "cache"

    def restored(name: str, folder: Path = cache) -> bytes:
        target = tmp_path / name
        changed = environment | {"JAX_COMPILATION_CACHE_DIR": str(folder)}
        process = run(
            changed, "converse_jax", "restore", source / "0.bmp", target, "--model", weights
        )
        assert process.returncode == 0 and "Traceback" not in process.stderr, process.stderr
        return target.read_bytes()

    whole = restored("whole.bmp")
    programs = [p for p in cache.iterdir() if p.is_file()]
    assert programs
    for path in programs:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    assert restored("cut.bmp") == whole
    for path in programs:
        path.write_bytes(b"\xff" * 100)
    assert restored("noise.bmp") == whole
    (tmp_path / "file").touch()
    assert restored("no-folder.bmp", tmp_path / "file") == whole


def test_too_little_memory_is_one_line(
    weights: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    source = photographs(tmp_path / "in", 1, 3000)
    command = ["converse_jax", "restore", source / "0.bmp", tmp_path / "out.bmp"]
    # With less than 1.5 GiB of addresses the libraries themselves abort.
    process = run(environment, *command, "--model", weights, kilobytes=2**21)
    if process.returncode == 0:  # in tiles
        assert read_image(tmp_path / "out.bmp").pixels.shape == (3000, 3000, 1)
    else:
        assert "memory" in said(process, 2)
        assert not (tmp_path / "out.bmp").exists()
