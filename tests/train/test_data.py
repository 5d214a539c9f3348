"""Examples: the right degradation, and the same ones however they are computed."""

import dataclasses
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from converse_jax import imaging
from tests.train import tiny
from train import prepare
from train.config import Config
from train.data import example, held_out_examples, host_batches, open_images
from train.errors import TrainError
from train.networks import ConverseDnCNNConfig, ConverseSRResNetConfig, ConverseUSRNetConfig
from train.sources import ImageFiles, Images, open_source
from train.tasks import Deblur, Denoise, Example, Paired, SuperResolve


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


@pytest.mark.slow
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


def flat(folder: Path, levels: range) -> str:
    folder.mkdir()
    for level in levels:
        PilImage.fromarray(np.full((16, 16), level, np.uint8)).save(folder / f"{level:03}.png")
    return str(folder)


def test_sources_have_the_shares_of_their_weights(tmp_path: Path) -> None:
    """Three images with weight 3 and thirty with 1, each in shuffled epochs of its own."""
    few, many = flat(tmp_path / "few", range(3)), flat(tmp_path / "many", range(100, 130))
    held_out = flat(tmp_path / "held_out", range(1))
    config = tiny.config(
        "", task=Denoise(sigma=0), steps=30, data_train=(few, many), data_weights=(3.0, 1.0),
        data_validation=(held_out,),
    )  # fmt: skip
    batches = first(config, 30)
    levels = [round(float(t[0, 0, 0]) * 255) for b in batches for t in b["target"]]
    of_few, of_many = ([x for x in levels if (x < 100) is low] for low in (True, False))
    assert len(of_few) == 180 and len(of_many) == 60
    assert all(sum(t[0, 0, 0] * 255 < 99 for t in b["target"]) == 6 for b in batches)
    assert all(sorted(of_few[i : i + 3]) == [0, 1, 2] for i in range(0, 180, 3))
    assert len({tuple(of_few[i : i + 3]) for i in range(0, 180, 3)}) == 6
    assert sorted(of_many[:30]) == sorted(of_many[30:]) == list(range(100, 130))
    assert of_many[:30] != of_many[30:]
    assert_same(first(config, 30, start=25), batches[25:])
    shares = [first(config, 3, process=p, processes=2) for p in range(2)]
    for p, step in itertools.product(range(2), range(3)):
        np.testing.assert_array_equal(shares[p][step]["input"], batches[step]["input"][p::2])


def test_weights_with_workers(folder: Path, tmp_path: Path) -> None:
    other = tiny.folder(tmp_path / "other", [(40, 40)] * 3)
    changes = {"data_train": (str(folder), str(other)), "data_weights": (1.0, 2.5)}
    expected = first(tiny.config("", **changes), 6)
    assert_same(first(tiny.config("", **changes, data_workers=2), 2, start=4), expected[4:])


@pytest.mark.parametrize(
    ("weights", "text"),
    [((1.0,), "data.weights: got 1 for the 2"), ((1.0, 0.0), "got 1.0, 0.0; expected positive")],
)
def test_weights_that_cannot_be(weights: tuple[float, ...], text: str) -> None:
    with pytest.raises(TrainError, match=text):
        tiny.config("", data_train=("a", "b"), data_weights=weights).check()


def test_weight_of_what_is_not_there(folder: Path, tmp_path: Path) -> None:
    small = tiny.folder(tmp_path / "small", [(8, 9)] * 3)
    train = (str(folder), str(small))
    text = refused(tiny.config("", data_train=train, data_weights=(1.0, 1.0)))
    assert f"no image of {small} is left" in text


def pairs(root: Path, scale: int, count: int = 5, end: str = "") -> dict[str, tuple[str, ...]]:
    """Folders of targets, and of inputs that are each target's every so many-th pixel, plus one."""
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 255, (24 + scale * i, 31, 3), dtype=np.uint8)
        small = pixels[: pixels.shape[0] // scale * scale : scale, : 31 // scale * scale : scale]
        for side, name, image in (
            ("target", f"{i}.png", pixels),
            ("input", f"{i}{end}.png", small),
        ):
            (root / side / "below").mkdir(parents=True, exist_ok=True)
            plus = side == "input"
            PilImage.fromarray(image + np.uint8(plus)).save(root / side / "below" / name)
    return {"data_train": (str(root / "target"),), "data_inputs": (str(root / "input"),)}


@pytest.mark.parametrize(("scale", "end"), [(1, ""), (2, "x2")])
def test_pairs_stay_together(tmp_path: Path, scale: int, end: str) -> None:
    model = ConverseDnCNNConfig(channels=3) if scale == 1 else ConverseSRResNetConfig()
    task = Denoise() if scale == 1 else SuperResolve(scale)
    config = tiny.config("", model=model, task=task, **pairs(tmp_path, scale, end=end))
    config.check()
    assert config.task == Paired(task.name, scale)
    corners = set()
    for batch in first(config, 6):
        assert batch["target"].shape == (8, 16, 16, 3)
        difference = batch["input"][..., None, :] - batch["target"].reshape(
            8, 16 // scale, scale, 16 // scale, scale, 3
        ).transpose(0, 1, 3, 2, 4, 5).reshape(8, 16 // scale, 16 // scale, scale**2, 3)
        # Of the pixels of each block, the one in the corner that the turn has made first.
        matches = (np.abs(difference * 255 - 1) < 1e-3).all((1, 2, 4))
        assert matches.any(-1).all()
        corners |= {int(np.argmax(m)) for m in matches}
    assert corners == set(range(scale**2))
    (held_out,) = held_out_examples(config, open_images(config, print)[1])[""]
    assert held_out["input"].shape == (16 // scale, 16 // scale, 3)
    shown = held_out["input"] - held_out["target"][::scale, ::scale]
    np.testing.assert_allclose(shown * 255, 1, atol=1e-3)


def test_pairs_of_validation(tmp_path: Path) -> None:
    changes = pairs(tmp_path / "train", 1)
    others = pairs(tmp_path / "validation", 1, count=2)
    config = tiny.config(
        "", model=ConverseDnCNNConfig(channels=3), **changes, data_num_validation=2,
        data_validation=others["data_train"], data_validation_inputs=others["data_inputs"],
    )  # fmt: skip
    config.check()
    train, sets = open_images(config, print)
    assert (len(train), len(sets[""])) == (5, 2)
    for example_ in held_out_examples(config, sets)[""]:
        np.testing.assert_allclose((example_["input"] - example_["target"]) * 255, 1, atol=1e-3)


def test_pairs_that_are_none(tmp_path: Path) -> None:
    changes = pairs(tmp_path, 2, end="_LR2")
    config = tiny.config("", model=ConverseSRResNetConfig(), task=SuperResolve(2), **changes)
    open_images(config, print)
    inputs = tmp_path / "input" / "below"
    (inputs / "3_LR2.png").rename(inputs / "other.png")
    text = refused(config)
    assert f"data.inputs: {tmp_path}/input, of {tmp_path}/target: no counterpart of " in text
    assert "below/other.png" in text and "below/3.png" in text and "0.png" not in text
    (inputs / "other.png").rename(inputs / "2.png")
    assert "several counterparts of" in refused(config)
    (inputs / "2.png").rename(inputs / "3_LR2.png")
    PilImage.new("RGB", (14, 12)).save(inputs / "0_LR2.png")
    text = refused(config)
    assert "0_LR2.png: got 14x12, with a target" in text and "of 31x24" in text
    # As if turned by a camera; that it is not is known once it is decoded.
    PilImage.new("RGB", (12, 15)).save(inputs / "0_LR2.png")
    with pytest.raises(TrainError, match=r"0_LR2\.png: got 12x15, with a target"):
        first(config, 6)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"data_inputs": ("a", "b")}, "data.inputs: got 2 for the 1 of data.train"),
        ({"data_validation_inputs": ("a",)}, "data.validation-inputs: got 1; expected 0"),
        (
            {"data_inputs": ("a",), "data_validation": ("b",)},
            "data.validation-inputs: got 0; expected 1",
        ),
        ({"task": Paired()}, "data.inputs: got nothing"),
        ({"data_inputs": ("a",), "task": SuperResolve(2)}, "learns denoise, and Paired is sr"),
        (
            {"data_inputs": ("a",), "task": Paired(scale=2)},
            "task.scale: got 2; expected 1 for denoise",
        ),
        (
            {"data_inputs": ("a",), "model": ConverseUSRNetConfig(), "task": Deblur()},
            "pairs hold no kernel, which ConverseUSRNetConfig needs",
        ),
        (
            {"data_inputs": ("a",), "model": ConverseDnCNNConfig(noise_level=True)},
            "pairs hold no sigma",
        ),
    ],
)
def test_pairs_that_cannot_be(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(TrainError, match=text):
        tiny.config("x", **changes).check()


def test_patches_are_turned_in_eight_ways() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    rng = np.random.default_rng(0)
    seen = {example(Denoise(sigma=0), image, 4, rng)["target"].tobytes() for _ in range(200)}
    assert len(seen) == 8


def test_patch_with_most_detail_of_several() -> None:
    """One candidate draws as before; of many, the one that holds the most of the texture."""
    image = np.full((40, 200, 3), 90, np.uint8)
    rng = np.random.default_rng(0)
    image[:, 120:150] = rng.integers(0, 256, (40, 30, 3))
    textured = {}
    for detail in (1, 40):
        patches = [
            example(Denoise(sigma=0), image, 16, np.random.default_rng(seed), detail=detail)
            for seed in range(50)
        ]
        textured[detail] = np.mean([p["target"].std() > 0.2 for p in patches])
    assert textured[1] < 0.3
    assert textured[40] == 1
    one = example(Denoise(), image, 16, np.random.default_rng(3), detail=1)
    assert_same([one], [example(Denoise(), image, 16, np.random.default_rng(3))])


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
    train, sets = open_images(config, print)
    held_out = sets[""]
    levels = [
        {int(p[0, 0, 0]) for p in map(s.__getitem__, range(len(s)))} for s in (train, held_out)
    ]
    assert len(levels[0]) == 4
    assert len(levels[1]) == 2
    assert not levels[0] & levels[1]
    a, b = (held_out_examples(c, sets)[""] for c in (config, tiny.config(folder, seed=5)))
    assert_same(a, b)
    assert a[0]["target"].shape == (16, 16, 1)


def test_sets_of_validation(folder: Path, tmp_path: Path) -> None:
    """Each has its name, its own size, and as many as asked for, spread over it."""
    large = tiny.folder(tmp_path / "a=b", [(40, 50)] * 6)
    small = tiny.folder(tmp_path / "Set5", [(17, 20)])
    values = (f"Set12={large}", str(small), str(large))
    config = tiny.config(
        folder, data_validation=values, data_num_validation=3, data_validation_size=32
    )
    config.check()
    train, sets = open_images(config, print)
    assert len(train) == 5
    assert {name: len(s) for name, s in sets.items()} == {"Set12": 3, "Set5": 1, "a=b": 3}
    said: list[str] = []
    examples = held_out_examples(config, sets, said.append)
    assert {name: e[0]["target"].shape[0] for name, e in examples.items()} == {
        "Set12": 32, "Set5": 17, "a=b": 32
    }  # fmt: skip
    assert said == ["held-out images of Set5 are measured in their middle 17x17: one is no larger"]
    assert_same(examples["Set12"], examples["a=b"])
    same = dataclasses.replace(config.data, validation=(f"Set5={large}", str(small)))
    with pytest.raises(TrainError, match="sets are called Set5, Set5; name them NAME=SOURCE"):
        dataclasses.replace(config, data=same).check()
    _, sets = open_images(tiny.config(folder, data_validation=values[:1]), print)
    assert list(sets) == ["Set12"]
    text = refused(tiny.config(folder, data_validation=(str(large), f"x={folder}/no")))
    assert f"{folder}/no: there is no such folder" in text


def test_tiles_of_a_photograph_are_held_out_together(tmp_path: Path) -> None:
    """Each photograph has a color of its own: none may be on both sides."""
    source = tmp_path / "source"
    source.mkdir()
    for i in range(5):
        PilImage.fromarray(np.full((40, 56), 40 * i, np.uint8)).save(source / f"{i}.png")
    place = tmp_path / "tfds"
    tiling = ["--name", "tiled", "--tile", "24", "--step", "8", "--data-dir", str(place)]
    assert prepare.main(["folder", str(source), *tiling]) == 0
    cut = tmp_path / "cut"
    cut.mkdir()
    for i, k in itertools.product(range(5), range(15)):
        PilImage.fromarray(np.full((24, 24), 40 * i, np.uint8)).save(cut / f"{i}_s{k:03}.png")
    for name, left in (("tfds:tiled", 45), ("tfds:tiled@train[20:]", 25), (str(cut), 45)):
        config = tiny.config(name, data_num_validation=2, data_tfds_dir=str(place))
        train, sets = open_images(config, print)
        levels = [{int(s[i][0, 0, 0]) for i in range(len(s))} for s in (train, sets[""])]
        assert len(sets[""]) == len(levels[1]) == 2
        assert not levels[0] & levels[1]
        assert len(train) == left
    halves = ("tfds:tiled@train[:20]", "tfds:tiled@train[20:]")
    config = tiny.config("", data_train=halves, data_num_validation=2, data_tfds_dir=str(place))
    assert len(open_images(config, print)[0]) == 45
    assert "5 photographs are to be held out of the 5" in refused(
        tiny.config("tfds:tiled", data_num_validation=5, data_tfds_dir=str(place))
    )


def test_embedded_images_need_no_download() -> None:
    train, sets = open_images(tiny.config("embedded", data_num_validation=8), print)
    names = [{s.name(i) for i in range(len(s))} for s in (train, sets[""])]
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
