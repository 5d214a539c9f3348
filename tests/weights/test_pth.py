"""The reader of PyTorch files: every good file exactly, every other one refused in one line."""

import os
import pickle
import random
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converse_jax.weights._pth import WeightsError, read_pth, read_state
from tests.weights.pth_files import (
    ORDERED_DICT,
    STORAGE_TYPES,
    Build,
    Call,
    Name,
    Ordered,
    Persistent,
    PthFile,
    Raw,
    assemble,
    reference,
    view,
    write_zip,
)

SHARED = Path(os.environ.get("CONVERSE_SHARED", Path(__file__).parents[2] / ".." / "shared"))
FLOATS = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7


def refused(path: Path, pattern: str) -> None:
    """The file is refused with a message in one line that names it and matches `pattern`."""
    with pytest.raises(WeightsError, match=pattern) as caught:
        read_pth(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Equal names in equal order, dtypes, shapes and bits; contiguous, native, owned."""
    assert list(found) == list(wanted)
    for name, array in found.items():
        assert (array.dtype, array.shape) == (wanted[name].dtype, wanted[name].shape)
        assert array.tobytes() == wanted[name].tobytes()
        assert array.flags.c_contiguous and array.flags.owndata and array.flags.writeable
        assert array.dtype.isnative


def samples() -> dict[str, np.ndarray]:
    """One array of each number type, a scalar and an empty one, NaN and infinity included."""
    values = np.array([[0, 1, 2], [3, 100, 7]])
    arrays = {dtype.name: values.astype(dtype) for dtype in STORAGE_TYPES}
    arrays["float32"][0] = [np.nan, -np.inf, -0.0]
    return {**arrays, "scalar": np.array(3, np.int64), "empty": np.zeros((0, 3), np.float32)}


def good_file(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A file such as ``torch.save(model.state_dict(), ...)`` writes, and what it holds."""
    file, arrays = PthFile(), samples()
    state = {name: file.tensor(array) for name, array in arrays.items()}
    return file.write(path, Ordered(state, {"": {"version": 1}, "a.b": {}})), arrays


# --- good files


@pytest.mark.parametrize("byteorder", ["little", "big", None])
@pytest.mark.parametrize("ordered", [False, True])
def test_every_dtype(tmp_path: Path, byteorder: str | None, ordered: bool) -> None:
    file, arrays = PthFile(byteorder), samples()
    state: Any = {name: file.tensor(array) for name, array in arrays.items()}
    top = Ordered(state, {"": Ordered({"version": 1})}) if ordered else state
    same(read_pth(file.write(tmp_path / "a.pth", top)), arrays)


def test_views(tmp_path: Path) -> None:
    file = PthFile()
    storage = file.storage(FLOATS)
    state = {
        "offset": view(storage, 12, (3, 4), (4, 1)),
        "transposed": view(storage, 0, (4, 3, 2), (1, 4, 12)),
        "strided": view(storage, 1, (2, 2), (12, 2)),
        "one element, any stride": view(storage, 23, (1, 1), (2**62, 0)),
        "whole": view(storage, 0, (24,), (1,)),
    }
    wanted = {
        "offset": FLOATS[1],
        "transposed": FLOATS.transpose(2, 1, 0),
        "strided": FLOATS[:, 0, 1::2],
        "one element, any stride": FLOATS[1:, 2, 3:],
        "whole": FLOATS.reshape(-1),
    }
    same(read_pth(file.write(tmp_path / "a.pth", state)), wanted)


@pytest.mark.parametrize("key", ["state_dict", "params", "params_ema"])
def test_nested_checkpoint(tmp_path: Path, key: str) -> None:
    file = PthFile()
    adam = {"state": {0: {"step": 3.0, "exp_avg": file.tensor(FLOATS)}}, "lr": [1e-4, None, 2**40]}
    top = {"epoch": 7, key: Ordered({"w": file.tensor(FLOATS)}), "optimizer": adam}
    same(read_pth(file.write(tmp_path / "a.pth", top)), {"w": FLOATS})


@pytest.mark.parametrize("key", ["model", "netG"])
def test_other_wrappers(tmp_path: Path, key: str) -> None:
    file = PthFile()
    path = file.write(tmp_path / "a.pth", {key: {"w": file.tensor(FLOATS)}, "epoch": 3})
    same(read_pth(path), {"w": FLOATS})


def test_of_basicsr_the_averaged_weights_are_taken(tmp_path: Path) -> None:
    file = PthFile()
    top = {"params": {"w": file.tensor(-FLOATS)}, "params_ema": {"w": file.tensor(FLOATS)}}
    arrays, chosen = read_state(file.write(tmp_path / "a.pth", top))
    same(arrays, {"w": FLOATS})
    assert chosen == "params_ema, the averaged weights, of params and params_ema"
    alone = file.write(tmp_path / "b.pth", {"params": {"w": file.tensor(FLOATS)}})
    assert read_state(alone)[1] is None


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "model.", "netG.", "module._orig_mod.", "_orig_mod.module.", "netG.module."],
)
def test_prefixes_of_frameworks(tmp_path: Path, prefix: str) -> None:
    file = PthFile()
    state = {prefix + "a": file.tensor(FLOATS), prefix + "b.c": file.tensor(FLOATS)}
    same(read_pth(file.write(tmp_path / "a.pth", state)), {"a": FLOATS, "b.c": FLOATS})


def test_data_parallel_prefix(tmp_path: Path) -> None:
    file = PthFile()
    state = {"module.a": file.tensor(FLOATS), "module.module.b": file.tensor(FLOATS)}
    same(read_pth(file.write(tmp_path / "a.pth", state)), {"a": FLOATS, "module.b": FLOATS})
    state["c"] = file.tensor(FLOATS)
    assert list(read_pth(file.write(tmp_path / "b.pth", state))) == list(state)


def test_parameter_and_tied_weights(tmp_path: Path) -> None:
    file = PthFile()
    tensor = file.tensor(FLOATS)
    parameter = Call(Name("torch._utils", "_rebuild_parameter"), (tensor, True, ORDERED_DICT))
    found = read_pth(file.write(tmp_path / "a.pth", {"a": tensor, "b": parameter}))
    same(found, {"a": FLOATS, "b": FLOATS})
    found["a"][:] = 0
    assert found["b"].any()


def test_any_byte_is_a_bool(tmp_path: Path) -> None:
    file = PthFile()
    state = {"w": file.tensor(np.array([False, True, True]))}
    file.storages["0"] = b"\x00\x01\x02"
    found = read_pth(file.write(tmp_path / "a.pth", state))
    assert found["w"].tobytes() == b"\x00\x01\x01"


def test_many_tensors_and_odd_names(tmp_path: Path) -> None:
    file = PthFile()
    arrays = {f"größe.{i}": np.full((2,), i, np.int16) for i in range(300)}
    state = {name: file.tensor(array) for name, array in arrays.items()}
    same(read_pth(file.write(tmp_path / "a b\n.pth", state, root="1075000_G")), arrays)


def test_protocol_4_opcodes(tmp_path: Path) -> None:
    code = (
        b"\x80\x04\x95\x05" + bytes(7) + b"\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94"
    )
    file = PthFile()
    tensor = assemble(file.tensor(FLOATS))[2:-1]
    members = file.members(None)
    program = code + b")R\x94(\x8c\x01w" + tensor + b"u."
    members[0] = (members[0][0], program)
    same(read_pth(write_zip(tmp_path / "a.pth", members)), {"w": FLOATS})


# --- hostile pickles


def test_nothing_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    command = (f"touch {marker}",)
    for protocol in range(6):

        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.system, command

        members = [("a/data.pkl", pickle.dumps({"w": Payload()}, protocol=protocol))]
        refused(write_zip(tmp_path / "a.pth", members), "nothing was executed")
    for name in (Name("os", "system"), Name("posix", "system"), Name("builtins", "eval")):
        path = PthFile().write(tmp_path / "b.pth", {"w": Call(name, command)})
        refused(path, rf"asks for '{name.module}\.{name.name}', which no state dict needs")
    old = Raw(b"(S'touch x'\nios\nsystem\n")
    refused(PthFile().write(tmp_path / "c.pth", {"w": old}), "the opcode INST|the opcode STRING")
    assert not marker.exists()


STORAGE = reference("FloatStorage", "0", 24)
SIZE, STRIDE = (2, 3, 4), (12, 4, 1)
FRACTION = 1.5
HOSTILE_TENSORS = {
    "storage too short": (view(STORAGE, 0, (5, 5), (5, 1)), "needs element 24 of storage '0'"),
    "offset too large": (view(STORAGE, 1, SIZE, STRIDE), "needs element 24 of storage '0'"),
    "huge size": (view(STORAGE, 0, (2**62, 2**62), (1, 1)), "needs element"),
    "huge stride": (view(STORAGE, 0, (2, 1), (2**70, 1)), "needs element"),
    "overlapping": (view(STORAGE, 0, (5, 5), (1, 1)), "needs element 24"),
    "negative offset": (view(STORAGE, -1, SIZE, STRIDE), "offset is not"),
    "negative stride": (view(STORAGE, 23, (24,), (-1,)), "stride is not"),
    "negative size": (view(STORAGE, 0, (-1, 2), (1, 1)), "size is not"),
    "size of floats": (view(STORAGE, 0, (FRACTION,), (1,)), "size is not"),
    "size of bools": (view(STORAGE, 0, (True,), (1,)), "size is not"),
    "size a list": (view(STORAGE, 0, [24], (1,)), "size is not"),
    "ranks differ": (view(STORAGE, 0, (24,), (1, 1)), "1 sizes and 2 strides"),
    "too many axes": (view(STORAGE, 0, (1,) * 33, (1,) * 33), "33 sizes"),
    "expanded": (view(STORAGE, 0, (10**6, 10**6), (0, 0)), r"stride 0\): save tensor.contiguous"),
    "huge and empty": (view(STORAGE, 0, (0, 2**62), (1, 1)), "not a readable PyTorch file"),
    "negated": (view(STORAGE, 0, (24,), (1,), {"neg": True}), "extra metadata"),
    "no storage": (view("0", 0, SIZE, STRIDE), "lies in '0', not in a storage"),
    "no arguments": (Call(Name("torch._utils", "_rebuild_tensor_v2"), ()), "unexpected arguments"),
    "called storage": (Call(Name("torch", "FloatStorage"), (3,)), "unexpected arguments"),
    "called text": (Call("eval", ("1",)), "calls 'eval'"),
    "arguments a list": (Call(Name("collections", "OrderedDict"), []), "calls a _Global"),
    "bare global": (Name("torch", "FloatStorage"), "'w' is a _Global, not a tensor"),
    "climbing key": (
        view(reference("FloatStorage", "../../evil", 24), 0, SIZE, STRIDE),
        "plain name",
    ),
    "absolute key": (
        view(reference("FloatStorage", "/etc/passwd", 24), 0, SIZE, STRIDE),
        "plain name",
    ),
    "backslash key": (view(reference("FloatStorage", "..\\x", 24), 0, SIZE, STRIDE), "plain name"),
    "dots key": (view(reference("FloatStorage", "..", 24), 0, SIZE, STRIDE), "key '..' is not"),
    "key with newline": (view(reference("FloatStorage", "0\n", 24), 0, SIZE, STRIDE), "plain name"),
    "key a number": (view(reference("FloatStorage", 0, 24), 0, SIZE, STRIDE), "key 0 is not"),
    "missing member": (view(reference("FloatStorage", "7", 24), 0, SIZE, STRIDE), "not there"),
    "false length": (view(reference("FloatStorage", "0", 25), 0, SIZE, STRIDE), "96 bytes where"),
    "negative length": (view(reference("FloatStorage", "0", -1), 0, SIZE, STRIDE), "has -1 elem"),
    "wrong type": (view(reference("DoubleStorage", "0", 24), 0, SIZE, STRIDE), "96 bytes where"),
    "unknown type": (view(reference("QInt8Storage", "0", 24), 0, SIZE, STRIDE), "QInt8Storage"),
    "no storage type": (Persistent(("storage", "x", "0", "cpu", 24)), "no known storage"),
    "other reference": (
        Persistent(("module", Name("torch", "FloatStorage"), "0", "", 1)),
        "refers",
    ),
    "short reference": (Persistent(("storage",)), "refers to a tuple, no storage"),
    "other attributes": (Build(ORDERED_DICT, {"__class__": 1}), "sets attributes"),
    "built label": (Build(Name("torch", "FloatStorage"), {"name": "x"}), "sets attributes"),
    "built tensor": (Build(view(STORAGE, 0, SIZE, STRIDE), {}), "sets attributes of a TensorView"),
    "append to dict": (Raw(b"}K\x01a"), "appends to a dict"),
    "set on list": (Raw(b"]K\x01K\x01s"), "sets items of a list"),
    "odd items": (Raw(b"}(K\x01u"), "sets items of"),
    "list as key": (Raw(b"}]K\x01s"), "a list as a key"),
    "text escape": ("\x1b[31m\n", r"is '\\x1b\[31m\\n', not a tensor"),
    "long text": ("x" * 10**5, "x{70,80}'?"),
    "unknown opcode": (Raw(b"\xfe"), "not a readable PyTorch file"),
    "extension registry": (Raw(b"\x82\x01"), "the opcode EXT1"),
    "new object": (Raw(b"ccollections\nOrderedDict\n)\x81"), "the opcode NEWOBJ"),
    "empty stack": (Raw(b"0000"), "opcode POP"),
    "unset memo": (Raw(b"j\xff\xff\xff\x7f"), "not a readable PyTorch file"),
    "unmatched mark": (Raw(b"N("), "sets items of a NoneType"),
    "false string length": (Raw(b"X\xff\xff\xff\x7fabc"), "not a readable PyTorch file"),
    "not utf-8": (Raw(b"X\x02\x00\x00\x00\xff\xfe"), "not a readable PyTorch file"),
}


@pytest.mark.parametrize("case", HOSTILE_TENSORS)
def test_hostile_tensor(tmp_path: Path, case: str) -> None:
    value, pattern = HOSTILE_TENSORS[case]
    file = PthFile()
    file.storage(FLOATS)
    refused(file.write(tmp_path / "a.pth", {"w": value}), pattern)


HOSTILE_TOPS = {
    "a list": ([1], "holds a list, not a state dict"),
    "a tensor": (view(reference("FloatStorage", "0", 1), 0, (), ()), "holds a TensorView"),
    "empty": (Ordered({}), "the state dict is empty"),
    "several": ({"params": {}, "state_dict": {}}, r"several state dicts \(state_dict, params\)"),
    "a number": ({"w": 3}, "entry 'w' is 3, not a tensor"),
    "number as name": ({1: 2}, "entry 1 is 2"),
    "deep tuples": (Raw(b"N" + b"\x85" * 3 * 10**5), "holds a tuple"),
    "deep lists": (Raw(b"]" + b"(]" * 10**5 + b"e" * 10**5), "holds a list"),
    "deep marks": (Raw(b"(" * 3 * 10**5 + b"N"), "in disorder"),
    "itself as value": (Raw(b"}q\x00X\x01\x00\x00\x00wh\x00s"), "entry 'w' is a dict"),
    "itself in a list": (Raw(b"]q\x00h\x00a"), "holds a list"),
    "endless hash": (Raw(b"}Nq\x00" + b"h\x00\x86q\x00" * 99 + b"K\x01s"), "tuple as a key"),
    "large memo": (Raw(b"}r\xff\xff\xff\xff"), "the state dict is empty"),
    "large number as key": ({2**70: 1}, "as a key"),
    "no end": (Raw(b"}\x8a\xff"), "not a readable PyTorch file"),
    "too long": (Raw(b"N" * 2**21), "data.pkl is over"),
}


@pytest.mark.parametrize("case", HOSTILE_TOPS)
def test_hostile_top(tmp_path: Path, case: str) -> None:
    value, pattern = HOSTILE_TOPS[case]
    start = time.monotonic()
    refused(PthFile().write(tmp_path / "a.pth", value), pattern)
    assert time.monotonic() - start < 30  # of course far less: but not for ever


def test_many_copies_of_one_storage(tmp_path: Path) -> None:
    file = PthFile()
    storage = file.storage(np.zeros(10**5, np.float32))
    state = {str(i): view(storage, 0, (10**5,), (1,)) for i in range(1000)}
    refused(file.write(tmp_path / "a.pth", state), "tensors of 400000000 bytes in all")


def test_any_damage_in_the_pickle(tmp_path: Path) -> None:
    """Behind a right checksum, any program is refused or makes arrays; nothing else escapes."""
    file, chance = PthFile(), random.Random(0)
    state = {name: file.tensor(array) for name, array in samples().items()}
    (name, program), *others = file.members(Ordered(state, {"": {"version": 1}}))
    for _ in range(300):
        damaged = bytearray(program)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path = write_zip(tmp_path / "a.pth", [(name, bytes(damaged)), *others])
        try:
            found = read_pth(path)
        except WeightsError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert all(isinstance(array, np.ndarray) for array in found.values())


# --- hostile archives


@pytest.mark.parametrize(
    "name", ["archive/../../evil", "/archive/evil", "archive//evil", "archive/..\\evil", "C:/evil"]
)
def test_member_outside_the_archive(tmp_path: Path, name: str) -> None:
    file = PthFile()
    members = file.members({"w": file.tensor(FLOATS)})
    refused(write_zip(tmp_path / "a.pth", [*members, (name, b"")]), "is not a plain path")


def test_member_name_with_a_null(tmp_path: Path) -> None:
    path, _ = good_file(tmp_path / "a.pth")
    path.write_bytes(path.read_bytes().replace(b"archive/version", b"archive/versi\0n"))
    refused(path, "is not a plain path")


def test_duplicate_member(tmp_path: Path) -> None:
    file = PthFile()
    members = file.members({"w": file.tensor(FLOATS)})
    twice = [*members, ("archive/data/0", bytes(FLOATS.nbytes))]
    refused(write_zip(tmp_path / "a.pth", twice), "member 'archive/data/0' is there twice")


def test_two_roots_or_none(tmp_path: Path) -> None:
    members = PthFile().members({})
    refused(write_zip(tmp_path / "a.pth", [*members, ("other/data.pkl", b"")]), "no <folder>/data")
    refused(write_zip(tmp_path / "b.pth", [("data.pkl", b"")]), "no <folder>/data.pkl")
    refused(write_zip(tmp_path / "c.pth", [("a/b", b"")]), "no <folder>/data.pkl")


def test_unknown_byteorder(tmp_path: Path) -> None:
    file = PthFile("middle")
    path = file.write(tmp_path / "a.pth", {"w": file.tensor(FLOATS)})
    refused(path, "neither little nor big")


def test_compressed_bomb(tmp_path: Path) -> None:
    members = PthFile().members({})
    bomb = [*members, ("archive/data/0", bytes(10**8))]
    path = write_zip(tmp_path / "a.pth", bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    refused(path, "is compressed, which torch.save never does")


def test_overlapping_members(tmp_path: Path) -> None:
    """Two entries of the directory for the same bytes, each announcing all of them."""
    members = [("a/data.pkl", assemble({})), ("a/data/0", bytes(10**4)), ("a/data/1", b"")]
    path = write_zip(tmp_path / "a.pth", members)
    content = bytearray(path.read_bytes())
    first, second = (content.rindex(name) - 46 for name in (b"a/data/0", b"a/data/1"))
    content[second + 16 : second + 28] = content[first + 16 : first + 28]  # crc and sizes
    content[second + 42 : second + 46] = content[first + 42 : first + 46]  # where it starts
    path.write_bytes(content)
    refused(path, "members overlap")


def test_encrypted_member(tmp_path: Path) -> None:
    path, _ = good_file(tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "is encrypted")


def test_checksums_guard_every_member(tmp_path: Path) -> None:
    """A big-endian file whose byteorder cannot be found must not be read as little-endian."""
    file = PthFile("big")
    path = file.write(tmp_path / "a.pth", {"w": file.tensor(FLOATS)})
    content = path.read_bytes()
    where = content.rindex(b"archive/byteorder")
    path.write_bytes(content[:where] + b"archive/byteordes" + content[where + 17 :])
    refused(path, "member 'archive/byteordes' fails its checksum: fetch the file again")
    path.write_bytes(content.replace(FLOATS.astype(">f4").tobytes(), bytes(FLOATS.nbytes)))
    refused(path, "member 'archive/data/0' fails its checksum")
    longer = bytearray(content)
    longer[content.rindex(b"archive/data/0") - 46 + 24] += 1  # the size, but not the stored size
    path.write_bytes(longer)
    refused(path, "member 'archive/data/0' is compressed")


def test_truncated(tmp_path: Path) -> None:
    path, _ = good_file(tmp_path / "a.pth")
    content = path.read_bytes()
    for length in {*range(6), *range(6, len(content), len(content) // 30), len(content) - 1}:
        path.write_bytes(content[:length])
        refused(path, "the file is empty|not a PyTorch zip file|incomplete or damaged")


def test_any_flipped_bits(tmp_path: Path) -> None:
    """A damaged byte is refused, or lies where nothing depends on it (a date, a comment)."""
    path, wanted = good_file(tmp_path / "a.pth")
    content, chance, reasons = path.read_bytes(), random.Random(1), set()
    for _ in range(300):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            same(read_pth(path), wanted)
        except WeightsError as error:
            reasons.add(re.sub(r".*: ", "", str(error)))
            assert len(str(error).splitlines()) == 1
    assert reasons


# --- no file, or another one


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.pth", "no such file")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.pth").touch()
    refused(tmp_path / "empty.pth", "the file is empty")
    refused(tmp_path / ("x" * 300), "cannot be read|no such file")
    if hasattr(os, "mkfifo"):  # not on Windows
        os.mkfifo(tmp_path / "pipe.pth")
        refused(tmp_path / "pipe.pth", "not a regular file")


def test_another_format(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001))
    refused(path, r"before PyTorch 1\.6: re-save it .* torch\.save\(torch\.load\(f, weights_only")
    path.write_text("<html>\nnot found\n</html>")
    refused(path, r"not a PyTorch zip file \(starts with b'<htm'\)")
    with zipfile.ZipFile(path, "w"):
        pass
    refused(path, "not a PyTorch zip file")


def test_path_is_shown_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\\nb\.pth: no such file") as caught:
        read_pth(tmp_path / "a\nb.pth")
    assert "\n" not in str(caught.value)


def test_string_path_and_bfloat16(tmp_path: Path) -> None:
    path, arrays = good_file(tmp_path / "a.pth")
    assert read_pth(str(path))["bfloat16"].dtype == ml_dtypes.bfloat16
    assert issubclass(WeightsError, ValueError) and len(arrays) == 12


# --- the authors' files


@pytest.mark.parity
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder CONVERSE_SHARED is absent")
@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("converse_dncnn", 284, 796353),
        ("converse_srresnet", 273, 699072),
        ("converse_usrnet", 133, 307987),
        ("conversenet", 102, 243267),
    ],
)
def test_released_weights(name: str, tensors: int, parameters: int) -> None:
    state = read_pth(SHARED / "weights" / f"{name}.pth")
    assert len(state) == tensors
    assert sum(array.size for array in state.values()) == parameters
    for array in state.values():
        assert array.dtype == np.float32 and np.isfinite(array).all()
