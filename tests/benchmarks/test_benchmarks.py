"""The benchmark's own arithmetic and manners; none of this needs PyTorch."""

import os
import sys

import chex
import jax
import numpy as np
import pytest

from benchmarks import __main__ as main
from benchmarks import command, compile_time, measure, methods, ours, suite
from benchmarks.measure import Turn


class Clock:
    """Time passes only where a program says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.calls = []
        for name in ("perf_counter", "process_time"):
            monkeypatch.setattr(measure.time, name, lambda: self.now)
        monkeypatch.setattr(measure.time, "sleep", lambda _: None)

    def program(self, name, *seconds):
        left = list(seconds)

        def run():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_a_race_takes_turns_and_divides_round_by_round(monkeypatch):
    clock = Clock(monkeypatch)
    # Everything is ten times as slow in the second round: the ratios are not.
    programs = {
        "ours": clock.program("ours", 1, 10, 1),
        "reference": clock.program("reference", 4, 50, 6),
        "compiled": clock.program("compiled", 2, 20, 2),
    }
    turns = measure.race(programs, seconds=0, max_rounds=9)
    assert clock.calls == ["ours", "reference", "compiled"] * 3
    found = measure.compare(turns)
    assert found["ours_ms"] == pytest.approx(1000) and found["reference_ms"] == pytest.approx(6000)
    assert (found["ratio"], found["ratio_min"], found["ratio_max"]) == pytest.approx((5, 4, 6))
    assert found["ratio_best"] == pytest.approx(4) and found["pairs"] == 3
    assert found["compiled_ms"] == pytest.approx(2000)
    assert found["ratio_compiled"] == pytest.approx(2)


def test_a_race_ends_when_its_time_is_over(monkeypatch):
    clock = Clock(monkeypatch)
    turns = measure.race({"a": clock.program("a", 1)}, seconds=4.5, max_rounds=99)
    assert len(turns["a"]) == 5
    turns = measure.race({"a": clock.program("a", 1)}, seconds=99, max_rounds=7)
    assert len(turns["a"]) == 7


def test_without_torch_compile_its_column_is_empty():
    found = measure.compare({"ours": [Turn(1, 1)], "reference": [Turn(3, 2)]})
    assert "compiled_ms" not in found and "ratio_compiled" not in found
    assert found["ratio"] == 3 and found["ratio_cpu"] == 2


@pytest.mark.parametrize(
    ("fft", "other", "side"),
    [
        ([2, 2, 2], [3, 3, 3], 16),  # faster everywhere
        ([2, 2, 2], [1, 1, 1], None),  # nowhere
        ([2, 2, 1], [1, 1, 2], 64),  # at the largest only
        ([1, 2, 1], [2, 1, 2], 64),  # a size where it happens to be faster does not count
    ],
)
def test_crossover(fft, other, side):
    assert methods.crossover([16, 32, 64], fft, other) == side


def test_a_quick_suite_has_every_row_of_the_full_one():
    full, quick = suite.suite(quick=False), suite.suite(quick=True)
    assert [type(row) for row in full] == [type(row) for row in quick]
    assert len({row.name for row in full}) == len(full)
    assert len({row.name for row in quick}) == len(quick)
    assert full[0].name == "operator forward, 1x128x256x256 k7 p6"
    assert full[-1].name == "Converse-DnCNN training step, 8x64x64"


def test_pieces_of_rows():
    row = suite.Operator("forward", 2, 3, 8, 5, 4, scale=2)
    assert ours.pieces(row) == {
        ("rfft2", (6, 16, 16)): 1,
        ("irfft2", (6, 16, 16)): 4,
    }
    pieces = ours.pieces(suite.Network("inference", "ConverseDnCNN", 16, 20))
    assert pieces[("rfft2", (128, 24, 24))] == 20
    assert pieces[("product", (256, 64, 128))] == 40
    training = ours.pieces(suite.Network("training step", "ConverseDnCNN", 16, 20, batch=2))
    assert training[("product", (512, 64, 128))] == 120
    assert training[("irfft2", (256, 24, 24))] == 40
    # An odd width has the half spectrum of the even one below.
    odd = {("irfft2", (1, 7, 9)): 1, ("product", (4, 2, 3)): 1}
    assert ours.bare_ms(odd, quick=True) > 0


def test_resident_growth_sees_what_is_asked_for_and_given_back():
    growth = measure.resident_growth(lambda: np.ones(10_000_000))
    if growth is None:
        pytest.skip("this system does not let a process count its peak anew")
    assert 70 < growth < 120


def test_a_table_prints_what_is_there(capsys):
    table = command.Table("work", {"ms": ".1f", "ratio": ".2f"})
    table.add("a row", [3.14, None], "a note")
    table.add("another", [])
    assert capsys.readouterr().out.splitlines() == [
        f"{'work':<56}      ms   ratio",
        f"{'a row':<56}     3.1       -  a note",
        f"{'another':<56}       -       -",
    ]


def test_circumstances():
    told = command.circumstances(2)
    assert told["versions"]["jax"] == jax.__version__ and told["threads"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "many"], "argument --threads: invalid int value: 'many'"),
        (["--json", "absent/out.json"], "--json: absent/out.json: a file cannot be written there"),
        (["--json", "."], "--json: .: a file cannot be written there"),
        (["--only", "no such row"], "--only no such row: in no row; the rows are operator"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--bad"], "unrecognized arguments: --bad"),
    ],
)
def test_bad_arguments_end_with_one_line(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in said and len(said.splitlines()) == 1


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr(main.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    with pytest.raises(SystemExit, match="2"):
        main.main()
    assert 'needs torch: pip install -e ".[bench]"' in capsys.readouterr().err


@pytest.mark.parametrize("threads", [-2, 0, 9999])
def test_more_threads_than_cores_or_none(threads, capsys):
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    with pytest.raises(SystemExit, match="2"):
        command.pin(threads, command.Parser("benchmarks", None))
    assert f"--threads {threads}: give 1 to" in capsys.readouterr().err


def test_methods_agree_and_are_timed():
    row = suite.Operator("gradient", 1, 3, 6, 2, 2, scale=2)
    assert methods.measure(row, quick=True).keys() == {"fft", "dft", "direct"}
    assert suite.Operator("forward", 1, 3, 6, 5, 4).methods == ["fft", "dft"]
    for rows in methods.cases(quick=False):
        assert rows[0].size == 32 and len({row.name for row in rows}) == len(rows)


@pytest.mark.slow
def test_what_is_compiled_are_gradients() -> None:
    for gradient, arguments in compile_time.programs(blocks=1).values():
        found = jax.eval_shape(gradient, *arguments)
        wanted = arguments if isinstance(found, tuple) else arguments[0]
        chex.assert_trees_all_equal_shapes_and_dtypes(found, wanted)
