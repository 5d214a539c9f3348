"""Examples: the right degradation, and the same ones however they are computed."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from converse_jax import imaging
from tests.train import tiny
from train import prepare
from train.config import Config
from train.data import example, held_out_examples, host_batches, open_images
from train.errors import TrainError
from train.sources import ImageFiles, Images, open_source
from train.tasks import Deblur, Denoise, Example, SuperResolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "images")


def first(config: Config, count: int, **share: int) -> list[Example]:
    images, _ = open_images(config, print)
    with host_batches(config, images, **share) as batches:
        return list(itertools.islice(batches, count))


def assert_same(a: list[Example], b: list[Example]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])


@pytest.mark.parametrize("changes", [{"data_threads": 0}, {"data_workers": 2}], ids=str)
def test_batches_do_not_depend_on_workers(folder: Path, changes: dict[str, int]) -> None:
    expected = first(tiny.config(folder), 5)
    assert_same(first(tiny.config(folder, **changes), 5), expected)
    assert_same(first(tiny.config(folder, **changes), 2, start=3), expected[3:])


def test_batches_depend_on_the_seed_and_never_repeat(folder: Path) -> None:
    batches = first(tiny.config(folder), 6)
    patches = {patch.tobytes() for b in batches for patch in b["input"]}
    assert len(patches) == 6 * 8
    other = first(tiny.config(folder, seed=1), 6)
    assert not patches & {patch.tobytes() for b in other for patch in b["input"]}


def test_batches_last_exactly_for_the_run(folder: Path) -> None:
    for size in (1, 5, 8):
        batches = first(tiny.config(folder, batch_size=size, steps=7), 100)
        assert [len(b["input"]) for b in batches] == [size] * 7


def test_processes_share_each_batch(folder: Path) -> None:
    config = tiny.config(folder)
    whole = first(config, 3)
    shares = [first(config, 3, process=p, processes=4) for p in range(4)]
    for step, batch in enumerate(whole):
        for p in range(4):
            np.testing.assert_array_equal(shares[p][step]["input"], batch["input"][p::4])


def test_every_image_is_seen_once_an_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(9):
        PilImage.fromarray(np.full((16, 16), 20 * i, np.uint8)).save(folder / f"{i}.png")
    config = tiny.config(folder, batch_size=4, task=Denoise(sigma=0))
    levels = [round(float(t.mean()) * 255) // 20 for b in first(config, 4) for t in b["target"]]
    assert len(set(levels[:8])) == len(set(levels[8:])) == 8
    assert levels[:8] != levels[8:]


def test_patches_are_turned_in_eight_ways() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    rng = np.random.default_rng(0)
    seen = {example(Denoise(sigma=0), image, 4, rng)["target"].tobytes() for _ in range(200)}
    assert len(seen) == 8


def test_noise_has_its_level() -> None:
    image = np.full((64, 64, 1), 128, np.uint8)
    rng = np.random.default_rng(0)
    fixed = example(Denoise(sigma=25), image, 64, rng)
    noise = (fixed["input"] - fixed["target"]) * 255
    assert noise.std() == pytest.approx(25, rel=0.05)
    assert abs(noise.mean()) < 1.5
    blind = [example(Denoise(sigma=0, sigma_max=50), image, 64, rng) for _ in range(100)]
    levels = [float((e["input"] - e["target"]).std() * 255) for e in blind]
    assert min(levels) < 10
    assert max(levels) > 40
    assert np.mean(levels) == pytest.approx(25, abs=5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_small_patch_is_part_of_the_small_image(scale: int) -> None:
    """A margin around the patch is down-sampled with it, so that its border is not reflected."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (53, 47, 3), dtype=np.uint8)
    small, target = imaging.degrade_sr(image, scale=scale)
    turns = [(k, m) for k in range(4) for m in (False, True)]
    for _ in range(10):
        found = example(SuperResolve(scale), image, 6 * scale, rng)
        assert found["input"].shape == (6, 6, 3)
        matches = 0
        for quarters, mirror in turns:
            # Undo the turn: mirror first, as it was done last.
            back = {k: np.rot90(v[:, ::-1] if mirror else v, -quarters) for k, v in found.items()}
            for y, x in np.ndindex(small.shape[0] - 5, small.shape[1] - 5):
                if np.allclose(small[y : y + 6, x : x + 6], back["input"], atol=1e-5):
                    rows = slice(scale * y, scale * (y + 6))
                    clean = target[rows, scale * x : scale * (x + 6)] / np.float32(255)
                    np.testing.assert_allclose(back["target"], clean, atol=1e-6)
                    matches += 1
        assert matches == 1


def test_blur_is_circular_and_known() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    for seed in range(6):
        found = example(Deblur(sigma=0), image, 24, np.random.default_rng(seed))
        assert found["kernel"].shape == (7, 7)
        assert found["kernel"].sum() == pytest.approx(1, abs=1e-5)
        assert found["kernel"].min() >= 0
        blurred = imaging.circular_blur(found["target"], found["kernel"])
        # Truncated to 8 bits, as in the evaluation protocol; turned with its kernel.
        difference = (blurred - found["input"]) * 255
        assert difference.min() > -1e-3
        assert difference.max() < 1 + 1e-3


def test_held_out_images_are_not_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(6):
        PilImage.fromarray(np.full((16, 20), 40 * i, np.uint8)).save(folder / f"{i}.png")
    config = tiny.config(folder, data_num_validation=2)
    train, held_out = open_images(config, print)
    levels = [
        {int(p[0, 0, 0]) for p in map(s.__getitem__, range(len(s)))} for s in (train, held_out)
    ]
    assert len(levels[0]) == 4
    assert len(levels[1]) == 2
    assert not levels[0] & levels[1]
    a, b = (held_out_examples(c, held_out) for c in (config, tiny.config(folder, seed=5)))
    assert_same(a, b)
    assert a[0]["target"].shape == (16, 16, 1)


def test_embedded_images_need_no_download() -> None:
    train, held_out = open_images(tiny.config("embedded", data_num_validation=8), print)
    names = [{s.name(i) for i in range(len(s))} for s in (train, held_out)]
    assert len(names[0]) >= 10
    assert len(names[1]) >= 3
    assert not names[0] & names[1]
    assert train[0].dtype == np.uint8


def test_cache_keeps_within_its_limit(folder: Path) -> None:
    source = open_source(str(folder))
    images = Images([source], 1, cache_mb=2.5 * 24 * 30 / 1e6)
    once = [images[i] for i in range(5)]
    again = [images[i] for i in range(5)]
    assert [a is b for a, b in zip(once, again, strict=True)] == [True, True, False, False, False]
    copy = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(copy[4], once[4])


def test_color_and_gray(tmp_path: Path) -> None:
    PilImage.new("RGB", (9, 8), (255, 0, 0)).save(tmp_path / "red.png")
    files = ImageFiles([tmp_path / "red.png"])
    assert Images([files], 3)[0].shape == (8, 9, 3)
    assert Images([files], 1)[0][0, 0].tolist() == [76]


def test_small_images_are_named_and_skipped(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path, [(24, 30)] * 3 + [(15, 40)])
    said: list[str] = []
    train, _ = open_images(tiny.config(folder), said.append)
    assert len(train) == 2
    assert len(said) == 1
    assert "1 of 3 images, smaller than 16x16" in said[0]
    assert "3.png (40x15)" in said[0]


def refused(config: Config) -> str:
    with pytest.raises(TrainError) as caught:
        open_images(config, print)
    return str(caught.value)


def test_what_is_no_source(tmp_path: Path) -> None:
    assert "nowhere: there is no such folder" in refused(tiny.config("nowhere"))
    assert "holds no images" in refused(tiny.config(tmp_path))
    folder = tiny.folder(tmp_path / "small", [(8, 9)] * 3)
    text = refused(tiny.config(folder))
    assert "data.patch-size: all 2 images are smaller than 16x16" in text
    assert "0.png (9x8)" in text
    folder = tiny.folder(tmp_path / "one", [(24, 30)])
    assert "1 images are to be held out of the 1" in refused(tiny.config(folder))
    small = tiny.folder(tmp_path / "validation", [(7, 30)])
    text = refused(tiny.config(folder, data_validation=(str(small),)))
    assert "data.validation: all 1 images are smaller than 16x16" in text
    (folder / "empty.png").touch()
    assert "empty.png: not an image that can be read" in refused(tiny.config(folder))


def test_damaged_image_is_named(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path)
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainError, match=r"0\.png.*take it out"):
        first(tiny.config(folder), 4)


def test_tfds_gives_what_its_folder_gives(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "tfds"
    arguments = ["folder", str(folder), "--name", "mine", "--data-dir", str(place)]
    assert prepare.main(arguments) == 0
    config = tiny.config("tfds:mine@train", data_tfds_dir=str(place))
    assert_same(first(config, 3), first(tiny.config(folder), 3))
