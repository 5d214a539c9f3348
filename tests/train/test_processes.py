"""Runs in processes of their own: killed, pre-empted, two at a time."""

import dataclasses
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.train import tiny
from train import run_folder
from train.config import Args, read_config
from train.errors import TrainError
from train.loop import train

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CONVERSE_KILLS", "2"))
"""How often to kill a run at a random moment; the suite has little time."""

STEPS = 20 + 10 * KILLS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return tiny.config_file(folder.parent / "tiny_config.py", folder)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All steps in one go, in this process, on eight devices."""
    run = tmp_path_factory.mktemp("runs") / "reference"
    config = tiny.config(folder, steps=STEPS, save_every=STEPS, eval_every=STEPS)
    assert train(Args(config=config, run=run)) == 0
    return run


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are not left behind by a test that fails."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(text, line):
            return
    pytest.fail(f"the process ended without {text!r}")


def test_killed_and_preempted_is_as_in_one_go(
    file: Path,
    environment: dict[str, str],
    reference: Path,
    tmp_path: Path,
    started: list[subprocess.Popen[str]],
) -> None:
    run = tmp_path / "run"
    every = ["--steps", STEPS, "--save-every", 1, "--eval-every", STEPS, "--run", run, "--resume"]

    def start() -> subprocess.Popen[str]:
        started.append(tiny.start(file, *every, devices=8, **environment))
        return started[-1]

    rng = random.Random(0)
    for _ in range(KILLS):
        process = start()
        # From the first step on, at any moment of a step or of a checkpoint.
        wait_for(process, r"step \d+/")
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait()
        done = [int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
        # The newest is whole; of those before it, one may be half deleted.
        if done:
            tiny.saved(run, max(done))
    process = start()
    wait_for(process, r"step \d+/")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert f"stopped after step {lines(run)[-1]['step']} and saved" in process.stderr.read()
    assert lines(run)[-1]["step"] < STEPS
    process = start()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "damaged" not in errors
    tiny.assert_equal(tiny.saved(run, STEPS), tiny.saved(reference, STEPS))
    assert [line["loss"] for line in lines(run)] == [line["loss"] for line in lines(reference)]
    # All these processes found the program that the first had compiled.
    cache = Path(environment["JAX_COMPILATION_CACHE_DIR"])
    assert (
        len(
            [
                p
                for p in cache.iterdir()
                if p.name.startswith("jit_step-") and "-atime" not in p.name
            ]
        )
        == 1
    )


COMPILES_FOR_EVER = """
import time
import train.step

class Slow:
    def lower(self, *arguments):
        return self

    def compile(self):
        print("compiling now", file=__import__("sys").stderr, flush=True)
        time.sleep(300)

train.step.jit_step = lambda *arguments: Slow()
"""


def test_asked_to_stop_while_compiling(
    file: Path, tmp_path: Path, started: list[subprocess.Popen[str]], environment: dict[str, str]
) -> None:
    run, slow = tmp_path / "run", tmp_path / "slow.py"
    slow.write_text(file.read_text() + COMPILES_FOR_EVER)
    for number, status in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        process = tiny.start(slow, "--run", run, **environment)
        started.append(process)
        wait_for(process, "compiling now")
        process.send_signal(number)
        assert process.wait(20) == status
        errors = process.stderr.read()
        assert "stopped before the first step; give the same command again" in errors
        assert "Traceback" not in errors
    # Nothing was lost: the same run may start, with --resume and without. Another is refused.
    assert {"config.json"} < {p.name for p in run.iterdir()}
    config = read_config(str(file))
    run_folder.check(run, config, resume=True, overwrite=False, say=print)
    other = dataclasses.replace(config, steps=7)
    with pytest.raises(TrainError, match="holds an earlier run"):
        run_folder.check(run, other, resume=False, overwrite=False, say=print)
    process = tiny.start(file, "--run", run, **environment)
    started.append(process)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TrainError, match="holds an earlier run"):
        run_folder.check(run, config, resume=False, overwrite=False, say=print)


TABLES = """
import atexit, runpy, sys
atexit.register(print, "the interpreter is taken down", file=sys.stderr)
sys.argv = ["train.tables", *sys.argv[1:]]
runpy.run_module("train.tables", run_name="__main__")
"""


def test_tables_asked_to_stop_while_compiling(
    folder: Path, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """The compiler's thread is not waited for, nor is the interpreter taken down beneath it."""
    slow = tmp_path / "slow.py"
    slow.write_text(COMPILES_FOR_EVER + TABLES)
    command = ["--table", "4", "--rows", "DnCNN", "--train", folder, "--out", tmp_path / "tables"]
    command += ["--budget", "2steps", "--width", 2, "--blocks", 2, "--patch-size", 16]
    process = tiny.start(*command, program=[slow], PYTHONPATH=str(tiny.ROOT))
    started.append(process)
    wait_for(process, "compiling now")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    errors = process.stderr.read()
    assert "train.tables: stopped before the first step; give the same command again" in errors
    assert "taken down" not in errors


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def two(
    started: list[subprocess.Popen[str]], *arguments: object, dump: Path, **environment: str
) -> list[subprocess.Popen[str]]:
    address = f"127.0.0.1:{free_port()}"
    for number in range(2):
        joined = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
        }
        started.append(tiny.start(*arguments, devices=4, dump=dump, **joined, **environment))
    return started[-2:]


def test_two_processes_are_one(
    file: Path,
    environment: dict[str, str],
    reference: Path,
    tmp_path: Path,
    started: list[subprocess.Popen[str]],
) -> None:
    run = tmp_path / "run"
    every = ["--steps", STEPS, "--save-every", 10, "--eval-every", STEPS, "--run", run]
    # No cache: what is found there is not compiled, and leaves no text.
    leader, other = two(
        started, file, *every, dump=tmp_path / "dump", JAX_ENABLE_COMPILATION_CACHE="false"
    )
    wait_for(leader, r"step 12/")
    # One of them is pre-empted: both save the same step.
    other.send_signal(signal.SIGTERM)
    assert [p.wait(120) for p in (leader, other)] == [75, 75]
    assert other.stderr.read().count("step") == 0  # only process 0 speaks
    stopped = int(lines(run)[-1]["step"])
    assert 12 <= stopped < STEPS
    losses, expected = ([line["loss"] for line in lines(r)] for r in (run, reference))
    np.testing.assert_allclose(losses, expected[:stopped], rtol=1e-6)

    programs = list((tmp_path / "dump").glob("*jit_step*cpu_after_optimizations.txt"))
    assert programs
    sizes = {x.size for k, x in tiny.saved(run, stopped).items() if k.startswith("params.")}
    for program in programs:
        tiny.assert_only_gradients_are_exchanged(program.read_text(), sizes)

    # Another number of processes and devices goes on.
    process = tiny.start(file, *every, "--resume", devices=1, **environment)
    started.append(process)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"resuming after step {stopped}" in errors
    losses = [line["loss"] for line in lines(run)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
