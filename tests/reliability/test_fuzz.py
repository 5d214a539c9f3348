"""A short run of the fuzzer, and every file that ever failed in a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability import fuzz

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())

# Seconds for each kind on an idle machine.
CASES = {"image": 400, "kernel": 600, "weights": 100, "card": 100, "run": 200, "command": 30}


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_damaged_files_give_a_whole_result_or_a_documented_error(kind: str) -> None:
    outcomes = {fuzz.read(kind, fuzz.make(kind, number)) for number in range(CASES[kind])}
    assert len(outcomes) > 1  # some are refused, some are not


def test_cases_are_the_same_each_time() -> None:
    for kind in fuzz.KINDS:
        assert fuzz.make(kind, 3) == fuzz.make(kind, 3) != fuzz.make(kind, 4)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_failed_once(path: Path) -> None:
    kind, _, name = path.name.split("-", 2)
    fuzz.read(kind, fuzz.Case(name, path.read_bytes()))
