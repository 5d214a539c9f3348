"""Checkpoints: damage is noticed, the one before is used, devices may change, disks may be full."""

import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.checkpoint import Checkpoints
from train.errors import TrainError, TrainStopped

# Where a file is damaged, Orbax leaves coroutines behind that it never waits for.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

State = dict[str, object]


def whole(devices: int) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(jax.devices()[:devices]), ("data",)), PartitionSpec())


def state(step: int, devices: int = 1, size: int = 3000) -> State:
    rng = np.random.default_rng(step)
    values = {
        "params": {"a.kernel": rng.random((size,), np.float32), "b": np.float32(step)},
        "step": np.int32(step),
    }
    return jax.device_put(values, whole(devices))


def abstract(devices: int = 1) -> State:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole(devices)), state(0)
    )


def assert_is(found: State, step: int) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state(step)), strict=True):
        np.testing.assert_array_equal(a, b)


def save(run: Path, steps: range, *, keep: int = 3, psnr: dict[int, float] | None = None) -> None:
    with Checkpoints(run, keep=keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), {"card": {"n": step}}, (psnr or {}).get(step))


def test_last_and_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, range(1, 8), keep=2, psnr={2: 30.0, 4: 29.0, 6: float("nan")})
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.steps == [2, 6, 7]
        assert checkpoints.best == 2
        assert checkpoints.details(7)["card"] == {"n": 7}
        assert_is(checkpoints.load(2, abstract()), 2)


@pytest.mark.parametrize("devices", [(8, 1), (8, 4), (1, 8)], ids=str)
def test_other_number_of_devices(tmp_path: Path, devices: tuple[int, int]) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state(1, devices[0]), {}, None)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        found = checkpoints.load(1, abstract(devices[1]))
    assert_is(found, 1)
    assert all(len(x.sharding.device_set) == devices[1] for x in jax.tree.leaves(found))


def data_files(step: Path) -> list[Path]:
    files = [p for p in step.rglob("*") if p.is_file() and "/d/" in p.as_posix()]
    assert files
    return files


def flip(step: Path) -> None:
    largest = max(data_files(step), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def cut(step: Path) -> None:
    for path in data_files(step):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(step: Path) -> None:
    for path in step.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def lose(step: Path) -> None:
    shutil.rmtree(step / "state")


@pytest.mark.parametrize("damage", [flip, cut, empty, lose], ids=lambda f: f.__name__)
def test_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path: Path, damage) -> None:
    save(tmp_path, range(1, 4))
    damage(tmp_path / "checkpoints" / "3")
    warnings: list[str] = []
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        found, step = checkpoints.load_latest(abstract(), warnings.append)
        assert step == 2
        assert_is(found, 2)
        assert len(warnings) == 1
        assert str(tmp_path / "checkpoints" / "3") in warnings[0]
        assert "is damaged" in warnings[0]
        # It is out of the way of the next of that step.
        checkpoints.save(3, state(3), {}, None)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        assert checkpoints.steps == [1, 2, 3]
        assert_is(checkpoints.load(3, abstract()), 3)
    assert (tmp_path / "damaged" / "3").is_dir()


DEEP = b"[" * 100_000 + b"]" * 100_000
SMALL_FILES = ("_CHECKPOINT_METADATA", "metrics/metrics", "state/_METADATA")


def damages(data: bytes) -> list[bytes | None]:
    """What a small file may become; None: it is gone. Every flip is of another bit."""
    flips = np.linspace(0, 8 * len(data) - 1, 5, dtype=int)
    flipped = [bytearray(data) for _ in flips]
    for copy, bit in zip(flipped, flips, strict=True):
        copy[bit // 8] ^= 1 << bit % 8
    others = [b"", data[: len(data) // 2], b"[1]", b"null", b"{}", DEEP, b"\xff\xfe\x00", None]
    return [*others, *map(bytes, flipped)]


@pytest.mark.parametrize(
    "name", [SMALL_FILES[0], *(pytest.param(f, marks=pytest.mark.slow) for f in SMALL_FILES[1:])]
)
def test_damaged_small_files_neither_end_a_run_nor_change_numbers(
    tmp_path: Path, name: str
) -> None:
    save(tmp_path / "good", range(1, 4), psnr={1: 20.0, 3: 30.0})
    for number, damage in enumerate(damages((tmp_path / "good/checkpoints/3" / name).read_bytes())):
        run = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", run)
        path = run / "checkpoints" / "3" / name
        path.unlink() if damage is None else path.write_bytes(damage)
        warnings: list[str] = []
        with Checkpoints(run, keep=1, read_only=True) as checkpoints:  # as an export does
            step, details, arrays = checkpoints.last_whole(warnings.append)
            assert details["card"] == {"n": step} and int(arrays["step"]) == step
            assert checkpoints.best in (1, 3)
        with Checkpoints(run, keep=3) as checkpoints:
            found, step = checkpoints.load_latest(abstract(), warnings.append)
            assert_is(found, step)
            assert step == 3 or "is damaged" in warnings[-1]
            assert all(len(line) < 700 and "\n" not in line for line in warnings)
            checkpoints.save(4, state(4), {}, None)  # and goes on
        shutil.rmtree(run)


def test_another_number_in_the_details_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, range(1, 3))
    path = tmp_path / "checkpoints/2/_CHECKPOINT_METADATA"
    changed = path.read_text().replace('"n": 2', '"n": 3')
    assert changed != path.read_text()
    path.write_text(changed)
    warnings: list[str] = []
    with Checkpoints(tmp_path, keep=3, read_only=True) as checkpoints:
        assert checkpoints.last_whole(warnings.append)[0] == 1
    assert "its metadata is not what was written" in warnings[0]


def test_all_damaged(tmp_path: Path) -> None:
    save(tmp_path, range(1, 3))
    for step in (1, 2):
        flip(tmp_path / "checkpoints" / str(step))
    with (
        Checkpoints(tmp_path, keep=3) as checkpoints,
        pytest.raises(TrainError, match="all checkpoints are damaged"),
    ):
        checkpoints.load_latest(abstract(), print)
    # Nor does the next try start anew.
    with (
        Checkpoints(tmp_path, keep=3) as checkpoints,
        pytest.raises(TrainError, match="all checkpoints are damaged"),
    ):
        checkpoints.load_latest(abstract(), print)


def test_other_arrays_are_named(tmp_path: Path) -> None:
    save(tmp_path, range(1, 2))
    other = abstract() | {"extra": abstract()["step"]}
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        with pytest.raises(TrainError, match="state differs in extra"):
            checkpoints.load_latest(other, print)
        assert checkpoints.steps == [1]  # it is whole, and stays


def test_full_disk_leaves_the_earlier_ones(tmp_path: Path) -> None:
    save(tmp_path, range(1, 2))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, hard))
        try:
            checkpoints.save(2, state(2, size=1_000_000), {}, None)
            with pytest.raises(TrainStopped, match="cannot be written .*make room"):
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        assert checkpoints.steps == [1]
        assert_is(checkpoints.load(1, abstract()), 1)


def test_half_written_rest_is_removed(tmp_path: Path) -> None:
    save(tmp_path, range(1, 2))
    rest = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "checkpoints" / "1", rest)
    with Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints:
        assert checkpoints.steps == [1]
    assert rest.exists()
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.steps == [1]
    assert not rest.exists()
