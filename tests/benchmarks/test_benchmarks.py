"""The benchmark's own arithmetic and manners; none of this needs PyTorch."""

import argparse
import io
import json
import os
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import arguments, limits, memory, methods, process, report, scaling, suite, timing
from benchmarks.timing import Turn


class Clock:
    """Time passes only where a program says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.calls = []
        for name in ("perf_counter", "process_time"):
            monkeypatch.setattr(timing.time, name, lambda: self.now)
        monkeypatch.setattr(timing.time, "sleep", lambda _: None)

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
    turns = timing.race(programs, seconds=0, min_rounds=3, max_rounds=9)
    assert clock.calls == ["ours", "reference", "compiled"] * 3
    found = timing.compare(turns)
    assert found["ours_ms"] == pytest.approx(1000) and found["reference_ms"] == pytest.approx(6000)
    assert (found["ratio"], found["ratio_min"], found["ratio_max"]) == pytest.approx((5, 4, 6))
    assert found["ratio_best"] == pytest.approx(4) and found["pairs"] == 3
    assert found["compiled_ms"] == pytest.approx(2000)
    assert found["ratio_compiled"] == pytest.approx(2)


def test_a_race_ends_when_its_time_is_over(monkeypatch):
    clock = Clock(monkeypatch)
    turns = timing.race({"a": clock.program("a", 1)}, seconds=4.5, min_rounds=2, max_rounds=99)
    assert len(turns["a"]) == 5
    turns = timing.race({"a": clock.program("a", 1)}, seconds=99, min_rounds=2, max_rounds=7)
    assert len(turns["a"]) == 7


def test_without_torch_compile_its_column_is_empty():
    found = timing.compare({"ours": [Turn(1, 1)], "reference": [Turn(3, 2)]})
    assert found["compiled_ms"] is None and found["ratio_compiled"] is None
    assert found["ratio"] == 3 and found["ratio_cpu"] == 2


def test_exponent_of_the_larger_half():
    sizes = [8, 16, 32, 64, 128, 256]
    times = [5.0, 5.0, 5.0, *(1e-3 * n**2.3 for n in sizes[3:])]
    assert scaling.exponent(sizes, times) == pytest.approx(2.3)


@pytest.mark.parametrize(
    ("fft", "other", "side"),
    [
        ([2, 2, 2], [3, 3, 3], 16),  # faster everywhere
        ([2, 2, 2], [1, 1, 1], None),  # nowhere
        ([2, 2, 1], [1, 1, 2], 45),  # from half-way, in logarithms, between 32 and 64
        ([1, 2, 1], [2, 1, 2], 45),  # a size where it happens to be faster does not count
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
    assert limits.operator_pieces(row) == {
        limits.Piece("rfft2", (6, 16, 16)): 1,
        limits.Piece("irfft2", (6, 16, 16)): 4,
    }
    assert limits.moved_mb(row) == pytest.approx(4 * 2 * 3 * 64 * (1 + 4) / 1e6)
    pieces = limits.inference_pieces(suite.Inference("ConverseDnCNN", 16, 20))
    assert pieces[limits.Piece("rfft2", (128, 24, 24))] == 20
    assert pieces[limits.Piece("product", (256, 64, 128))] == 40
    training = limits.training_pieces(suite.Training(2, 16, 20))
    assert training[limits.Piece("product", (512, 64, 128))] == 120
    assert training[limits.Piece("irfft2", (256, 24, 24))] == 40
    # An odd width has the half spectrum of the even one below.
    odd = {limits.Piece("irfft2", (1, 7, 9)): 1, limits.Piece("product", (4, 2, 3)): 1}
    assert limits.bare_ms(odd, quick=True) > 0


def test_resident_peak_sees_what_is_asked_for_and_given_back():
    peak = memory.ResidentPeak()
    if peak.growth() is None:
        pytest.skip("this system does not let a process count its peak anew")
    np.ones(10_000_000)
    assert 70 < peak.growth() < 120


def _report(path, rows):
    args = argparse.Namespace(threads=2, tf32=False, quick=True, json=path)
    return report.Report(args, "cpu", ["pinned"], rows)


def _row():
    turns = {"ours": [Turn(1, 1)], "reference": [Turn(3, 2)]}
    return {
        "work": "an operator",
        "method": "auto",
        **timing.compare(turns),
        "peak_mb": None,
        "reference_peak_mb": 3.5,
        "compiled_note": "no compiler",
        "error": 1e-7,
        "reference_error": 1e-5,
        "share": 0.5,
        "roofline": None,
    }


def test_report(tmp_path):
    found = _report(tmp_path / "out.json", [_row()])
    found.write()
    written = json.loads((tmp_path / "out.json").read_text())
    assert {"rows", "machine", "threads", "commit", "versions"} <= written.keys()
    wanted = {"work", "ours_ms", "reference_ms", "ratio", "ratio_min", "ratio_max", "peak_mb"}
    assert wanted <= written["rows"][0].keys()
    assert written["versions"]["jax"] == jax.__version__
    assert "no compiler" in report.line(_row())
    console = Console(width=160, file=io.StringIO())
    report.show(console, found)
    assert "an operator" in console.file.getvalue()


def test_without_json_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _report(None, [_row()]).write()
    assert not list(tmp_path.iterdir())


def test_image(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: make bench")
    ms = {"ours": [1.0, 2.0, 8.0], "reference": [5.0, 9.0, 40.0]}
    axis = {
        "values": [32, 45, 64],
        "padded": [40, 53, 72],
        "ms": ms,
        "exponents": {"ours": 2.0, "reference": 2.1},
    }
    found = {"kernel": 5, "padding": 4, "side": {**axis, "channels": 32}}
    found["channels"] = {**axis, "side": 64}
    scaling.draw(found, tmp_path / "cost.png", "a machine")
    assert (tmp_path / "cost.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "--threads: got 0; give 1 or more"),
        (["--json", "absent/out.json"], "--json absent/out.json: there is no folder absent"),
        (["--png", "absent/out.png"], "--png absent/out.png: there is no folder absent"),
        (["--png", "."], "--png .: is a folder; give a file"),
        (["--only", "no such row"], "--only no such row: in no row; the rows are operator"),
        (["--only", "scaling"], "--only scaling: in no row"),
        (["--tf32", "--device", "cpu"], "--tf32: processors have none"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--bad"], "unrecognized arguments: --bad"),
    ],
)
def test_bad_arguments_end_with_one_line(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in said and len(said.splitlines()) == 1


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr(arguments.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert 'needs torch: pip install -e ".[bench]"' in capsys.readouterr().err


def test_more_threads_than_cores():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    with pytest.raises(process.BadSetting, match="--threads 9999: this process may use"):
        process.pin(9999)


def test_methods_agree_and_are_timed():
    case = methods.Case("forward", 2, 2, 2, 1, 3)
    assert methods.measure(case, 6, quick=True).keys() == {"fft", "dft", "direct"}
    assert methods.valid_methods(1, 5) == ["fft", "dft"]
    for case, sides in methods.cases(quick=False):
        assert sides[0] == 32, case
