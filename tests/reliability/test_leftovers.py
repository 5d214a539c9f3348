"""What killed processes leave behind is removed by the next, and nothing that is being written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from converse_jax import atomic
from converse_jax.atomic import is_leftover, write_bytes

# Waits for ever once its file is half written.
HALF_WRITTEN = """
import os, sys, time, pathlib
from converse_jax import atomic
def wait(descriptor):
    print("written", flush=True)
    time.sleep(600)
atomic.os.fsync = wait
atomic.write_bytes(pathlib.Path(sys.argv[1]), b"half", overwrite=False)
"""


@pytest.fixture(autouse=True)
def _each_folder_again() -> None:
    """As in a new process."""
    atomic.remove_leftovers.cache_clear()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".converse-0.tmp").write_bytes(b"of one that was killed")
    (tmp_path / ".converse-link.tmp").symlink_to("a")
    os.mkfifo(tmp_path / ".converse-pipe.tmp")
    for stranger in (".converse-notes", "converse-0.tmp", ".tmp"):
        (tmp_path / stranger).touch()
    stay = sorted({*names(tmp_path), "a"} - {".converse-0.tmp"})
    write_bytes(tmp_path / "a", b"data", overwrite=False)
    assert names(tmp_path) == stay


def test_a_new_file_that_was_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, removed = atomic.lock, []

    def late(file) -> None:
        if not removed:  # removed by another process before it is locked
            removed.append(file.name)
            os.unlink(file.name)
        lock(file)

    monkeypatch.setattr(atomic, "lock", late)
    write_bytes(tmp_path / "a", b"data", overwrite=False)
    assert removed and names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"data"


def test_without_locks_files_are_written_and_leftovers_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(file) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(atomic, "lock", no_locks)
    (tmp_path / ".converse-0.tmp").touch()
    write_bytes(tmp_path / "a", b"data", overwrite=False)
    assert names(tmp_path) == [".converse-0.tmp", "a"]


@pytest.mark.slow
def test_a_file_is_no_leftover_while_its_process_lives(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HALF_WRITTEN, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "written\n"
            (half,) = names(tmp_path)
            assert is_leftover(half)
            process.send_signal(signal.SIGSTOP)
            write_bytes(tmp_path / "b", b"data", overwrite=False)
            assert names(tmp_path) == sorted([half, "b"])
        finally:
            process.kill()
    atomic.remove_leftovers.cache_clear()
    write_bytes(tmp_path / "c", b"data", overwrite=False)
    assert names(tmp_path) == ["b", "c"]
