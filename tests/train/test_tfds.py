"""TFDS data sets without TensorFlow: what `train.prepare` writes, `TfdsImages` reads."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image as PilImage

from converse_jax.imaging import read_image, to_uint8
from train import prepare
from train.errors import TrainError
from train.tfds_source import TfdsImages, prepared_in

HEIGHT, WIDTH = 20, 30


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (HEIGHT, WIDTH, 3), np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(pixels).save(path)


def pixels_of(images: TfdsImages, index: int) -> np.ndarray:
    return to_uint8(read_image(images.encoded(index)).pixels)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with every kind of pixel, names in several folders."""
    folder = tmp_path / "source"
    write(folder / "a.png", noise(0))
    write(folder / "b" / "gray.png", noise(1, HEIGHT, WIDTH))
    write(folder / "b" / "rgba.png", noise(2, HEIGHT, WIDTH, 4))
    PilImage.fromarray(noise(3)).quantize(8).save(folder / "b" / "palette.png")
    write(folder / "c" / "a.bmp", noise(4))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Prepare into `data`; what is printed, or, of a failure, its message."""

    def run(*args: object) -> str:
        status = prepare.main([*map(str, args), "--data-dir", str(data)])
        out, err = capsys.readouterr()
        assert status == (2 if "error" in err else 0)
        if status:
            assert out == ""
            assert err.startswith("train.prepare: error: ")
            assert err.count("\n") == 1
            return err
        return out

    return run


@pytest.fixture
def div2k(tmp_path: Path) -> Path:
    """A DIV2K of three and two images, as its archives are extracted."""
    root = tmp_path / "DIV2K"
    for split, numbers in (("train", (1, 2, 3)), ("valid", (801, 802))):
        for n in numbers:
            write(root / f"DIV2K_{split}_HR" / f"{n:04}.png", noise(n))
            low = root / f"DIV2K_{split}_LR_bicubic" / "X2" / f"{n:04}x2.png"
            write(low, noise(n, HEIGHT // 2, WIDTH // 2, 3))
    return root


def spec_in(line: str) -> str:
    return line.split()[1].removeprefix("tfds:")


def failure(spec: str, data: Path) -> str:
    with pytest.raises(TrainError) as caught:
        TfdsImages(spec, str(data))
    return str(caught.value)


def test_pixels_come_back(source: Path, data: Path, run: Callable[..., str]) -> None:
    line = run("folder", source, "--name", "five")
    config = prepared_in(data)[0].config
    assert line == f"--data.train tfds:five/{config} --data.tfds-dir {data}\n"
    images = TfdsImages(spec_in(line), str(data))
    files = ["a.png", "b/gray.png", "b/palette.png", "b/rgba.png", "c/a.bmp"]
    assert len(images) == len(files)
    for i, file in enumerate(files):
        np.testing.assert_array_equal(
            pixels_of(images, i), to_uint8(read_image(source / file).pixels)
        )
    assert pixels_of(images, 1).shape == (HEIGHT, WIDTH, 1)
    with PilImage.open(source / "b" / "palette.png") as palette:
        np.testing.assert_array_equal(pixels_of(images, 2), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(pixels_of(images, 3), noise(2, HEIGHT, WIDTH, 4)[..., :3])
    # TFDS itself agrees, with gray as three channels.
    stock = tfds.data_source(
        spec_in(line), data_dir=data, split="train", download=False, decoders=None
    )
    assert [example["name"].decode() for example in stock] == files
    for i, example in enumerate(stock):
        np.testing.assert_array_equal(
            example["image"], np.broadcast_to(pixels_of(images, i), (HEIGHT, WIDTH, 3))
        )


def test_source_is_a_sequence_of_named_files(
    source: Path, data: Path, run: Callable[..., str]
) -> None:
    spec = spec_in(run("folder", source, "--name", "five"))
    images = TfdsImages(f"{spec}@train[1:3]", str(data))
    assert len(images) == 2
    assert images.name(1) == f"{spec} train[1:3] 1"
    with images.open(1) as file:
        assert file.name == images.name(1)
        assert file.read() == images.encoded(1) == TfdsImages(spec, str(data)).encoded(2)
    for index in (-1, 2):
        with pytest.raises(IndexError, match="of 2 images"):
            images.encoded(index)
    assert len(TfdsImages(f"{spec}@train[:40%]", str(data))) == 2
    assert len(TfdsImages(f"{spec}:1.0.0@@image", str(data))) == 5
    # The only config need not be named.
    assert TfdsImages("five", str(data)).name(0) == f"{spec} train 0"


def test_source_is_pickled_and_read_in_threads(
    source: Path, data: Path, run: Callable[..., str]
) -> None:
    spec = spec_in(run("folder", source, "--name", "five"))
    images = TfdsImages(spec, str(data))
    expected = [images.encoded(i) for i in range(5)]
    copy = pickle.loads(pickle.dumps(images))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(copy.encoded, [*range(5)] * 20)) == expected * 20


def test_default_data_dir(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    assert prepare.main(["folder", str(source), "--name", "five"]) == 0
    line = capsys.readouterr().out
    assert "--data.tfds-dir" not in line
    assert len(TfdsImages(spec_in(line))) == 5
    assert (tmp_path / "elsewhere" / "five").is_dir()


def test_tiles_cover_an_image_and_end_at_its_edge(
    tmp_path: Path, data: Path, run: Callable[..., str]
) -> None:
    large, small = noise(0, 20, 33, 3), noise(1, 8, 8, 3)
    write(tmp_path / "source" / "large.png", large)
    write(tmp_path / "source" / "small.png", small)
    args = ("folder", tmp_path / "source", "--name", "tiled", "--tile", 16, "--step", 8)
    spec = spec_in(run(*args))
    assert spec.startswith("tiled/tile16-step8-")
    corners = [(y, x) for y in (0, 4) for x in (0, 8, 16, 17)]
    stock = tfds.data_source(spec, data_dir=data, split="train", download=False)
    names = [f"large.png[{y}:,{x}:]" for y, x in corners] + ["small.png"]
    assert [example["name"].decode() for example in stock] == names
    images = TfdsImages(spec, str(data))
    for i, (y, x) in enumerate(corners):
        np.testing.assert_array_equal(pixels_of(images, i), large[y : y + 16, x : x + 16])
    np.testing.assert_array_equal(pixels_of(images, len(corners)), small)


def test_flat_image_is_cut_in_one_direction(
    tmp_path: Path, data: Path, run: Callable[..., str]
) -> None:
    write(tmp_path / "source" / "flat.png", noise(0, 4, 20, 3))
    args = ("folder", tmp_path / "source", "--name", "tiled", "--tile", 16, "--step", 16)
    images = TfdsImages(spec_in(run(*args)), str(data))
    assert [pixels_of(images, i).shape for i in range(len(images))] == [(4, 16, 3)] * 2


def test_stock_tfds_reads_our_div2k(div2k: Path, data: Path, run: Callable[..., str]) -> None:
    line = run("div2k", div2k, "--config", "bicubic_x2")
    assert line == f"--data.train tfds:div2k/bicubic_x2 --data.tfds-dir {data}\n"
    for split, numbers in (("train", (1, 2, 3)), ("validation", (801, 802))):
        stock = tfds.data_source(
            "div2k/bicubic_x2", data_dir=data, split=split, download=False, decoders=None
        )
        ours = TfdsImages(f"div2k@{split}", str(data))
        assert len(stock) == len(ours) == len(numbers)
        for i, n in enumerate(numbers):
            np.testing.assert_array_equal(stock[i]["hr"], noise(n))
            np.testing.assert_array_equal(stock[i]["lr"], noise(n, HEIGHT // 2, WIDTH // 2, 3))
            # The high resolution by default, and as it was stored.
            folder = "DIV2K_train_HR" if split == "train" else "DIV2K_valid_HR"
            assert ours.encoded(i) == (div2k / folder / f"{n:04}.png").read_bytes()
    low = TfdsImages("div2k/bicubic_x2:2.0.0@train@lr", str(data))
    assert pixels_of(low, 0).shape == (HEIGHT // 2, WIDTH // 2, 3)


@pytest.mark.parametrize("config", list(tfds.builder_cls("div2k").builder_configs))
def test_div2k_says_which_folder_it_looked_for(
    config: str, div2k: Path, run: Callable[..., str]
) -> None:
    names = {
        "bicubic_x3": "DIV2K_train_LR_bicubic/X3",
        "bicubic_x8": "DIV2K_train_LR_x8",
        "unknown_x4": "DIV2K_train_LR_unknown/X4",
        "realistic_mild_x4": "DIV2K_train_LR_mild",
    }
    if config in names:
        message = run("div2k", div2k, "--config", config)
        assert f"{div2k / names[config]}: there is no such folder" in message


def test_div2k_wants_both_partners(div2k: Path, run: Callable[..., str]) -> None:
    low = div2k / "DIV2K_train_LR_bicubic" / "X2"
    (low / "0002x2.png").rename(low / "0004x2.png")
    missing = div2k / "DIV2K_train_HR" / "0004.png"
    assert f"its original {missing} is missing" in run("div2k", div2k, "--config", "bicubic_x2")
    (low / "0004x2.png").unlink()
    message = run("div2k", div2k, "--config", "bicubic_x2")
    assert f"{div2k / 'DIV2K_train_HR' / '0002.png'}: nothing in {low} belongs to it" in message
    assert "expected one of bicubic_x2, " in run("div2k", div2k, "--config", "bicubic_x5")


def test_unchanged_folder_is_prepared_once(
    source: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["folder", str(source), "--name", "five", "--data-dir", str(data)]
    assert prepare.main(args) == 0
    first = capsys.readouterr()
    assert first.err == f"prepared: {prepared_in(data)[0].folder}\n"
    monkeypatch.setattr(prepare, "_builder", None)
    assert prepare.main(args) == 0
    second = capsys.readouterr()
    assert second.err == f"already there: {prepared_in(data)[0].folder}\n"
    assert first.out == second.out


def test_changed_folder_is_prepared_anew(
    source: Path, data: Path, run: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = spec_in(run("folder", source, "--name", "five"))
    write(source / "a.png", noise(9))
    os.utime(source / "a.png", ns=(0, 0))
    args = ["folder", str(source), "--name", "five", "--data-dir", str(data)]
    assert prepare.main(args) == 0
    out, err = capsys.readouterr()
    after = spec_in(out)
    assert f"prepared: {data / after}" in err
    assert f"prepared earlier by this name: {data / before}" in err
    np.testing.assert_array_equal(pixels_of(TfdsImages(before, str(data)), 0), noise(0))
    np.testing.assert_array_equal(pixels_of(TfdsImages(after, str(data)), 0), noise(9))
    assert "holds five/whole-" in failure("five", data)


def test_changed_div2k_replaces_what_was_prepared(
    div2k: Path, data: Path, run: Callable[..., str]
) -> None:
    run("div2k", div2k, "--config", "bicubic_x2")
    path = div2k / "DIV2K_train_HR" / "0001.png"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert f"{path}: the PNG file is damaged" in run("div2k", div2k, "--config", "bicubic_x2")
    assert TfdsImages("div2k", str(data)).encoded(0) == good  # still the earlier one
    write(path, noise(9))
    run("div2k", div2k, "--config", "bicubic_x2")
    np.testing.assert_array_equal(pixels_of(TfdsImages("div2k", str(data)), 0), noise(9))
    assert [path.name for path in data.iterdir()] == ["div2k"]


def test_foreign_data_set_is_left_alone(div2k: Path, data: Path, run: Callable[..., str]) -> None:
    run("div2k", div2k, "--config", "bicubic_x2")
    (data / "div2k" / "bicubic_x2" / "2.0.0" / "metadata.json").write_text("{}")
    message = run("div2k", div2k, "--config", "bicubic_x2")
    assert "is there already, and not from train.prepare" in message


def test_interrupted_preparation_is_none(
    source: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "SHARD_BYTES", 1)
    plan = prepare.plan_folder(source, "five")
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(plan, data, interrupt)
    assert list(data.iterdir()) == []
    # One that was killed cannot clean up; nor is TFDS's own ever taken for finished.
    done, _ = prepare.prepare(plan, data)
    shutil.move(data / "five", data / ".incomplete-abc")
    shutil.copytree(data / ".incomplete-abc" / plan.config, data / "six")
    (data / "six" / "1.0.0").rename(data / "six" / "incomplete.ABC_1.0.0")
    assert prepared_in(data) == []
    assert "TFDS knows no 'five'" in failure("five", data)
    assert "TFDS knows no 'six'" in failure("six", data)
    assert prepare.prepare(plan, data) == (done, True)

    monkeypatch.setattr(prepare, "plan_folder", interrupt_now)
    assert prepare.main(["folder", str(source), "--name", "five"]) == 130
    assert "interrupted" in capsys.readouterr().err


def interrupt_now(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_more_than_tfds_holds_in_memory(
    source: Path, data: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beyond this limit TFDS spills to files that it opens with TensorFlow.
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 1)
    monkeypatch.setattr(prepare, "SHARD_BYTES", 1)
    spec = spec_in(run("folder", source, "--name", "five"))
    assert len(list((data / spec / "1.0.0").glob("*.array_record-*-of-00005"))) == 5
    images = TfdsImages(spec, str(data))
    np.testing.assert_array_equal(pixels_of(images, 4), noise(4))


def test_full_disk_leaves_nothing_behind(source: Path, data: Path, run: Callable[..., str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        message = run("folder", source, "--name", "five")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{data}: cannot be written (" in message
    assert "File too large" in message
    assert list(data.iterdir()) == []


def test_preparing_says_what_is_wrong(
    source: Path, tmp_path: Path, run: Callable[..., str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty}: holds no images" in run("folder", empty, "--name", "x")
    gone = tmp_path / "gone"
    assert f"{gone}: there is no such folder" in run("folder", gone, "--name", "x")
    assert f"{gone / 'DIV2K_train_HR'}: there is no such folder" in run("div2k", gone)
    assert "--name: got 'B-1'; expected a-z" in run("folder", source, "--name", "B-1")
    assert "got 8 and 0; expected both" in run("folder", source, "--name", "x", "--tile", 8)
    assert "got 0 and 8; expected both" in run("folder", source, "--name", "x", "--step", 8)
    assert "required: --name" in run("folder", source)
    (source / "b" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert f"{source / 'b' / 'broken.png'}: " in run("folder", source, "--name", "x")
    (tmp_path / "data").rmdir()
    (tmp_path / "data").write_text("a file")
    (source / "b" / "broken.png").unlink()
    assert f"{tmp_path / 'data'}: cannot be written" in run("folder", source, "--name", "x")


@pytest.mark.parametrize(
    "spec", ["", "@train", "a b", "div2k/", "div2k:2", "x@train@hr@lr", "a/b/c"]
)
def test_spec_that_is_none(spec: str, data: Path) -> None:
    assert "cannot be understood; write tfds:NAME[/CONFIG]" in failure(spec, data)


def test_data_set_that_is_not_there(source: Path, data: Path, run: Callable[..., str]) -> None:
    message = failure("div2", data)
    assert "TFDS knows no 'div2'" in message
    assert "did you mean div2k" in message
    assert "train.prepare folder SOURCE_DIR --name div2" in message
    message = failure("mnist", data)
    assert f"mnist: is not prepared in {data}" in message
    assert "tfds.builder('mnist', file_format='array_record').download_and_prepare()" in message
    assert f"copy ~/tensorflow_datasets/mnist to {data / 'mnist'}" in message
    message = failure("div2k/bicubic_x4@validation", data)
    assert f"div2k EXTRACTED_DIR --config bicubic_x4 --data-dir {data}" in message
    spec = spec_in(run("folder", source, "--name", "five"))
    message = failure("five/whole-0", data)
    assert f"which holds {spec}:1.0.0; name one of these" in message
    assert f"which holds {spec}:1.0.0; " in failure("five:2.0.0", data)
    assert "did you mean five" in failure("fiv", data)


def test_wrong_split_or_feature(
    source: Path, div2k: Path, data: Path, run: Callable[..., str]
) -> None:
    run("div2k", div2k, "--config", "bicubic_x2")
    message = failure("div2k@test", data)
    assert "there is no split 'test'" in message
    assert "give one of train, validation" in message
    assert "incompatible with 3 examples" in failure("div2k@train[:9]", data)
    assert "the split 'train[1:1]' is empty" in failure("div2k@train[1:1]", data)
    assert "called 'image'; give one of hr, lr" in failure("div2k@train@image", data)
    folder = data / "div2k" / "bicubic_x2" / "2.0.0"
    features = folder / "features.json"
    text = features.read_text()
    features.write_text(text.replace('"hr"', '"sr"'))
    assert "has several images in an example, lr, sr" in failure("div2k", data)
    features.write_text(text.replace("image_feature.Image", "text_feature.Text"))
    assert "has no images, only hr, lr" in failure("div2k", data)
    features.write_text("{")
    assert f"{folder} cannot be opened (" in failure("div2k", data)


def test_data_set_of_tensorflow(source: Path, data: Path, run: Callable[..., str]) -> None:
    spec = spec_in(run("folder", source, "--name", "five"))
    path = data / spec / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    message = failure(spec, data)
    assert "is prepared as tfrecord" in message
    assert f"--out_file_format=array_record --dataset_version_dir={path.parent}" in message
    assert f"tfds.builder('{spec}', file_format='array_record')" in message


def test_incomplete_or_damaged_data_set(source: Path, data: Path, run: Callable[..., str]) -> None:
    spec = spec_in(run("folder", source, "--name", "five"))
    [records] = (data / spec / "1.0.0").glob("*.array_record-*")
    whole = records.read_bytes()
    for damaged in (whole.replace(b"IDAT", b"IDOT"), whole[: len(whole) // 2]):
        records.write_bytes(damaged)
        images = TfdsImages(spec, str(data))
        with pytest.raises(TrainError, match=r"five/whole-\w+ train \d: cannot be read .*again"):
            [images.encoded(i) for i in range(5)]
    records.unlink()
    assert f"there is no file {records}; copy or prepare it again" in failure(spec, data)


def test_without_tfds(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "TFDS is not installed" in failure("div2k", data)
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "array_record, which exists for Linux only" in failure("div2k", data)


def test_terminal_gets_a_bar(
    source: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert prepare.main(["folder", str(source), "--name", "five", "--data-dir", str(data)]) == 0
    assert "five" in terminal.getvalue().split("prepared:")[0]
    assert "100%" in terminal.getvalue()
    assert capsys.readouterr().out.startswith("--data.train tfds:five/whole-")


def test_neither_tensorflow_nor_the_network_is_needed(
    source: Path, div2k: Path, data: Path
) -> None:
    code = f"""if True:
        import socket, sys
        import train.tfds_source
        assert "tensorflow_datasets" not in sys.modules
        def refuse(*args, **options):
            raise AssertionError("network")
        socket.getaddrinfo = socket.socket.connect = refuse
        from train.prepare import main
        there = ["--data-dir", {str(data)!r}]
        assert main(["folder", {str(source)!r}, "--name", "five", *there]) == 0
        assert main(["div2k", {str(div2k)!r}, "--config", "bicubic_x2", *there]) == 0
        from train.tfds_source import TfdsImages, TrainError
        assert len(TfdsImages("five", {str(data)!r})) == 5
        assert len(TfdsImages("div2k@train+validation", {str(data)!r})) == 5
        for name in ("mnist", "no_such_thing"):
            try:
                TfdsImages(name, {str(data)!r})
            except TrainError:
                continue
            raise AssertionError(name)
        assert "tensorflow" not in sys.modules
    """
    root = Path(prepare.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "".join(
        f"prepared: {prepared_in(data, name)[0].folder}\n" for name in ("five", "div2k")
    )
    assert done.stdout.startswith("--data.train tfds:five/whole-")
