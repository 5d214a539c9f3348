"""The folder of a run: one run at a time, deleted and damaged under its feet."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path

import pytest

from tests.train import tiny
from train import run_folder
from train.config import Args, Config
from train.errors import TrainError, TrainStopped
from train.log import Log
from train.loop import train

DEEP = b"[" * 100_000


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return tiny.config(tiny.folder(tmp_path_factory.mktemp("data") / "images"))


@pytest.mark.parametrize("flag", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_two_runs_never_share_a_folder(
    config: Config, tmp_path: Path, flag: dict[str, bool]
) -> None:
    run = tmp_path / "run"
    with run_folder.Lock(run), pytest.raises(TrainError, match="another process is training in it"):
        train(Args(config=config, run=run, **flag))
    assert [path.name for path in run.iterdir()] == ["run.lock"]
    with run_folder.Lock(run):  # it is free again
        pass


def test_a_run_that_ended_meanwhile_is_not_overwritten(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lock = tmp_path / "run", run_folder.Lock

    def late(run: Path) -> run_folder.Lock:
        mine = lock(run)
        (run / "config.json").write_text(json.dumps(config.to_dict()))
        (run / "metrics.jsonl").write_text('{"step": 6}\n')
        return mine

    monkeypatch.setattr(run_folder, "Lock", late)
    with pytest.raises(TrainError, match="holds an earlier run"):
        train(Args(config=config, run=run))
    assert (run / "metrics.jsonl").read_text() == '{"step": 6}\n'


def test_a_lock_knows_its_folder(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    with run_folder.Lock(run) as lock:
        lock.check()
        run.rename(other)
        for again in (False, True):
            if again:
                run_folder.Lock(run).__exit__()
            with pytest.raises(TrainStopped, match="deleted, moved or replaced during the run"):
                lock.check()


# Of a checkpoint that is being written into the folder, Orbax leaves coroutines behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("action", ["deleted", "moved", "replaced"])
def test_a_folder_that_is_lost_stops_its_run(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    run, metrics = tmp_path / "run", Log.metrics

    def lose(self: Log, step: int, *rest) -> None:
        metrics(self, step, *rest)
        if step == 4:  # a checkpoint of step 3 was saved, or is being saved
            if action == "moved":
                run.rename(tmp_path / "elsewhere")
            else:
                shutil.rmtree(run, ignore_errors=True)
            if action == "replaced":
                shutil.rmtree(run, ignore_errors=True)
                run_folder.Lock(run).__exit__()

    monkeypatch.setattr(Log, "metrics", lose)
    with pytest.raises(TrainStopped, match="run: was deleted, moved or replaced during the run"):
        train(Args(config=config, run=run))
    monkeypatch.setattr(Log, "metrics", metrics)
    gc.collect()  # of those coroutines, within this test
    if action == "moved":
        assert train(Args(config=config, run=tmp_path / "elsewhere", resume=True)) == 0
        assert (tmp_path / "elsewhere" / "summary.md").is_file()


@pytest.mark.parametrize("damage", [DEEP, b"\xff\xfe", b"[1]", b"null", b"", b'{"model": 3}'])
def test_a_damaged_configuration_is_one_line(config: Config, tmp_path: Path, damage: bytes) -> None:
    run = tmp_path / "run"
    run_folder.claim(run, config, overwrite=False)
    (run / "config.json").write_bytes(damage)
    with pytest.raises(TrainError, match=r"config.json: cannot be read") as caught:
        train(Args(config=config, run=run, resume=True))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [DEEP, b"\xff\xfe", b"[1]", b'{"a": "b"}'])
def test_a_damaged_record_of_the_start_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "init.json").write_bytes(damage)
    found = run_folder.read_init(tmp_path)
    assert found is None or found == {"a": "b"}


def test_damaged_lines_of_metrics_are_dropped(tmp_path: Path) -> None:
    good = b'{"step": 1, "loss": 0.5}\n'
    bad = b'\xff\xfe{"step": 1}\n' + DEEP + b'\n[1]\nnull\n{"step": "x"}\n{"step": 1, "lo'
    (tmp_path / "metrics.jsonl").write_bytes(bad + b"\n" + good)
    with Log(tmp_path, start=1, steps=2, leader=True):
        pass
    assert (tmp_path / "metrics.jsonl").read_bytes() == good
