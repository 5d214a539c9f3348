"""Programs for accelerators that are not there: what is made, what is read from it, and manners."""

import re

import jax
import pytest

from benchmarks import aot
from benchmarks.suite import Operator

COMPILED = """HloModule jit_f

%body (x: f32[4]) -> f32[4] {
  ROOT %inside = f32[1000]{0} fusion(%x), kind=kLoop
}

ENTRY %main.1 (a: f32[2,3]) -> f32[6] {
  %a = f32[2,3]{1,0} parameter(0)
  %b = c64[5]{0} constant({...})
  %free = f32[6]{0} bitcast(%a)
  %fusion.1 = (f32[6]{0}, f32[7]{0}) fusion(%free, %b), kind=kLoop, calls=%body
  %part = f32[7]{0} get-tuple-element(%fusion.1), index=1
  %call = (f32[8]{0}, s8[4096]{0}) custom-call(%part, %a), custom_call_target="gemm"
  %all-reduce-start = f32[8]{0} all-reduce-start(%part), replica_groups={}
  ROOT %done = f32[8]{0} all-reduce-done(%all-reduce-start)
}
"""


def test_bytes_that_kernels_read_and_write() -> None:
    fusion = (6 + 7) * 4 + 6 * 4 + 5 * 8
    call = 8 * 4 + 7 * 4 + 6 * 4  # without the workspace of the library
    reduce = 8 * 4 + 7 * 4
    assert aot.traffic(COMPILED) == fusion + call + reduce


def test_the_least_that_an_operator_moves() -> None:
    row = Operator("forward", 2, 3, 8, 5, 4, scale=2)
    assert aot.least_moved(row) == 4 * 2 * 3 * 64 * (1 + 4)


def test_exchanges_between_devices() -> None:
    assert aot.collectives(COMPILED) == {"all-reduce": 1}


def test_every_kind_of_program_is_made_for_a_gpu() -> None:
    found = list(aot.programs(jax.devices()[:2], quick=True))
    names = [program.name for program in found]
    assert len(set(names)) == len(names)
    operator = next(p for p in found if p.name.endswith("dft"))
    network = next(p for p in found if "USRNet" in p.name)
    training = found[-1]
    assert training.name.endswith("2 devices")
    for program, held in ((operator, "dot_general"), (network, "dot_general"), (training, "dot")):
        traced = jax.jit(program.fn).trace(*program.args)
        assert held in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["h900"], "target: got h900; give h100, h200, or a TPU slice as v5e:2x4"),
        (["v5e:2x4"], r'v5e:2x4: not installed; its compiler comes with "jax\[tpu\]"'),
        (["h200:8"], r'h200:8: not installed; its compiler comes with "jax\[cuda13\]"'),
    ],
)
def test_what_cannot_be_compiled_is_told_in_one_line(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(kind: str, shape: str) -> list[object]:
        raise RuntimeError("not installed")

    monkeypatch.setattr(aot, "_devices", missing)
    monkeypatch.setattr("os.environ", {})
    monkeypatch.setattr("sys.argv", ["aot", *arguments])
    with pytest.raises(SystemExit) as stopped:
        aot.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m benchmarks.aot: ")
    assert re.search(said, line)
