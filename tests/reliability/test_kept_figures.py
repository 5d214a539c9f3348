"""Figures that are kept between runs of the tables: damaged by anything, they are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from train import tables
from train.errors import TrainError
from train.json_file import read_object, write_object
from train.measurements import Measurements

WHOLE = {
    "set": "Set12",
    "of": 1,
    "protocol": {"kernel": None},
    "images": {"a.png": {"sha256": "0", "psnr": 30.0, "ssim": 0.9}},
}
NO_JSON = [b"", b"{", b"\xff\xfe", b"[" * 100_000]
NO_OBJECT = {b"null": "NoneType", b"[1]": "list", b"3": "int"}


def changed(**image: object) -> bytes:
    return json.dumps(WHOLE | {"images": {"a.png": WHOLE["images"]["a.png"] | image}}).encode()


def test_whole_figures_are_read(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "Set12.json").write_bytes(json.dumps(WHOLE).encode())
    assert Measurements(tmp_path).of("w")["Set12"].psnr == 30.0


@pytest.mark.parametrize(
    "damage",
    [
        *NO_JSON,
        *NO_OBJECT,
        b"{}",
        json.dumps(WHOLE | {"images": [1]}).encode(),
        json.dumps({k: v for k, v in WHOLE.items() if k != "protocol"}).encode(),
        changed(psnr="30"),
        changed(psnr=float("nan")),
        changed(ssim=None),
        changed(sha256=None),
    ],
)
def test_damaged_figures_are_never_taken(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "Set12.json").write_bytes(damage)
    with pytest.raises(
        TrainError, match=r"Set12.json: cannot be read .*; delete it to measure"
    ) as e:
        Measurements(tmp_path).of("w")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("damage", [*NO_JSON, *NO_OBJECT])
def test_damaged_records_are_named(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "authors.json"
    path.write_bytes(damage)
    said = "cannot be read as JSON"
    if damage in NO_OBJECT:
        said = f"got a {NO_OBJECT[damage]}; expected a JSON object"
    with pytest.raises(TrainError, match=f"authors.json: {said}"):
        read_object(path)
    assert tables.main(["--list", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: {said}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("when", ["write", "fsync", "rename"])
def test_a_full_disk_keeps_the_earlier_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = tmp_path / "Set12.json"
    write_object(path, WHOLE)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    place = {"fsync": "os.fsync", "rename": "os.replace", "write": "builtins.open"}[when]
    monkeypatch.setattr(place, full)
    with pytest.raises(TrainError, match=r"Set12.json: cannot be written \(No space left"):
        write_object(path, WHOLE | {"of": 2})
    monkeypatch.undo()
    assert json.loads(path.read_bytes()) == WHOLE
    assert [p.name for p in tmp_path.iterdir()] == ["Set12.json"]
