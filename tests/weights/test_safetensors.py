"""Safetensors: the same bits back, the same bytes each time, and no half-written file."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converse_jax.weights import ModelCard
from converse_jax.weights._pth import WeightsError
from converse_jax.weights._safetensors import read_safetensors, write_safetensors

METADATA = {"name": "größe", "task": "denoising\nsigma 25", "z": "", "a": '"quoted"'}


def samples() -> dict[str, np.ndarray]:
    """Arrays of awkward layouts, types and shapes."""
    base = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    base[0, 0, 0] = np.nan
    return {
        "plain": base,
        "transposed": base.transpose(2, 0, 1),
        "fortran": np.asfortranarray(base),
        "strided": base[:, ::2, ::-1],
        "broadcast": np.broadcast_to(base[:1, :1], (2, 3, 5)),
        "big endian": base.astype(">f4"),
        "big endian transposed": base.astype(">f8").T,
        "read only": np.frombuffer(b"abcd", np.uint8),
        "scalar": np.array(1.5),
        "empty": np.zeros((0, 3), np.float16),
        "bfloat16": base.astype(ml_dtypes.bfloat16).T,
        "bool": base[..., 0].T > 0,
        **{f"int{n}": (base[1:] * 9).astype(f"int{n}")[..., ::2] for n in (8, 16, 32, 64)},
    }


def refused(path: Path, pattern: str) -> None:
    """The file cannot be read, for one reason, in one line that names the file."""
    with pytest.raises(WeightsError, match=pattern) as caught:
        read_safetensors(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("metadata", [{}, METADATA], ids=["none", "some"])
def test_round_trip(tmp_path: Path, metadata: dict[str, str]) -> None:
    path, arrays = tmp_path / "a.safetensors", samples()
    write_safetensors(path, arrays, metadata)
    found, words = read_safetensors(path)
    assert words == metadata and set(found) == set(arrays)
    for name, array in arrays.items():
        wanted = array.astype(array.dtype.newbyteorder("="))
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), name
        assert found[name].tobytes() == wanted.tobytes(), name
        assert found[name].flags.c_contiguous and found[name].flags.owndata, name


def test_file_may_be_replaced_while_arrays_are_held(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.ones(1000)}, {})
    found, _ = read_safetensors(path)
    path.write_bytes(b"")
    assert (found["w"] == 1).all()


def test_same_bytes_each_time(tmp_path: Path) -> None:
    metadata = {str(i): str(i) for i in range(20)}
    digests = set()
    for i in range(4):
        path = tmp_path / f"{i}.safetensors"
        shuffled = dict(sorted(metadata.items(), key=lambda item: hash((i, item))))
        write_safetensors(path, samples(), shuffled)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_numbers_start_at_a_multiple_of_eight(tmp_path: Path) -> None:
    for length in range(9):
        path = tmp_path / f"{length}.safetensors"
        write_safetensors(path, {"w": np.arange(3.0)}, {"k": "ü" * length})
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
        assert read_safetensors(path)[0]["w"].tolist() == [0, 1, 2]


def test_overwrite_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.zeros(2)}, {})
    before = path.read_bytes()
    with pytest.raises(WeightsError, match="already exists: name another file or pass overwrite"):
        write_safetensors(path, {"w": np.ones(2)}, {})
    assert path.read_bytes() == before
    write_safetensors(path, {"w": np.ones(2)}, {}, overwrite=True)
    assert read_safetensors(path)[0]["w"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_failure_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.zeros(2)}, {})
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(WeightsError, match=r"cannot be written \(No space left on device"):
                write_safetensors(path, {"w": np.ones(2)}, {}, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write_safetensors(tmp_path / "a", {"w": np.zeros(2)}, {})
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("arrays", "metadata", "pattern"),
    [
        ({}, {}, "no arrays to write"),
        ({"w": np.array([None])}, {}, r"cannot hold this \(.*object"),
        ({"w": np.array(["text"])}, {}, r"cannot hold this \(.*str"),
        ({"w": np.zeros(2, np.complex128)}, {}, r"cannot hold this \(.*complex128"),
        ({"__metadata__": np.zeros(2)}, {}, "'__metadata__' cannot name an array"),
        ({3: np.zeros(2)}, {}, "3 cannot name an array"),
        ({"w": np.zeros(2)}, {"a": 1}, "metadata 'a' is 1: pass strings only"),
        ({"w": np.zeros(2)}, {"a": "\ud800"}, "cannot hold this"),
        ({"\ud800": np.zeros(2)}, {}, "cannot hold this"),
    ],
)
def test_refused_content(tmp_path: Path, arrays: Any, metadata: Any, pattern: str) -> None:
    with pytest.raises(WeightsError, match=pattern) as caught:
        write_safetensors(tmp_path / "a", arrays, metadata)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "a", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(WeightsError, match="cannot be written"):
            write_safetensors(path, {"w": np.zeros(2)}, {}, overwrite=True)
    with pytest.raises(WeightsError, match=r"cannot be written \(Is a directory"):
        write_safetensors(tmp_path, {"w": np.zeros(2)}, {}, overwrite=True)


def test_cannot_be_read(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such file")
    refused(tmp_path, "is a folder")
    path = tmp_path / "a.safetensors"
    path.touch()
    refused(path, "the file is empty")
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    refused(path, "not a readable safetensors file")
    path.write_bytes(
        b"\x40" + bytes(7) + b'{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'.ljust(65)
    )
    refused(path, "not a readable safetensors file")


def test_large_headers_and_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((2**23 + 8).to_bytes(8, "little"))
        file.truncate(2**24)
    refused(path, "a header of 8388616 bytes, more than 8388608")
    with path.open("wb") as file:
        file.truncate(2**32 + 1)  # sparse
    refused(path, "4294967297 bytes, more than 4294967296")


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, samples(), METADATA)
    content = path.read_bytes()
    for length in {*range(12), *range(12, len(content), len(content) // 20), len(content) - 1}:
        path.write_bytes(content[:length])
        refused(path, "not a readable safetensors file|the file is empty")


def test_any_damage_in_the_header(tmp_path: Path) -> None:
    path, chance = tmp_path / "a.safetensors", np.random.default_rng(0)
    write_safetensors(path, samples(), METADATA)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(300):
        damaged = bytearray(content)
        damaged[chance.integers(header)] = chance.integers(256)
        path.write_bytes(damaged)
        try:
            read_safetensors(path)
        except WeightsError as error:
            assert len(str(error).splitlines()) == 1


def test_cards_of_the_first_files_still_load() -> None:
    values = {"name": "a", "architecture": "B", "config": {}, "task": "sr", "channels": 3}
    metadata = {"format": "converse-jax/1", "card": json.dumps({**values, "licence": "MIT"})}
    assert ModelCard.from_metadata(metadata).license == "MIT"
