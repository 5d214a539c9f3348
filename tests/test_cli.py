"""The command: what it writes, says and refuses."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax import ModelCard, _programs, cli, compilation_cache, demo
from converse_jax._report import METRICS
from converse_jax._sheet import write_comparison
from converse_jax.cli import _models, _restore
from converse_jax.imaging import (
    Image,
    encode_image,
    measure,
    psnr,
    read_image,
    rgb_to_y,
    ssim,
    to_uint8,
    write_image,
)
from converse_jax.models import ConverseDnCNN, ConverseUSRNet
from converse_jax.progress import progress_bar
from converse_jax.restore import Restorer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """The one line that a mistake is answered with."""

    def refused(*arguments: object) -> str:
        status, out, err = run(*arguments)
        assert status == 2 and out == ""
        assert err.startswith("converse-jax: error: ") and err.count("\n") == 1
        return err.removeprefix("converse-jax: error: ").rstrip()

    return refused


def let_through(model: Any) -> None:
    """Untrained weights make every image nearly black: pass the image on, and blocks add."""
    features = model.head.kernel.shape[-1]
    model.head.kernel.set_value(jnp.eye(1, features))
    model.tail.kernel.set_value(jnp.eye(features, 1))
    for block in model.body:
        block.project1.kernel.set_value(10 * block.project1.kernel[...])


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = {"channels": 1, "num_features": 4, "num_blocks": 1, "kernel_size": 3}
    model = ConverseDnCNN(**config, rngs=nnx.Rngs(0))
    let_through(model)
    converse_jax.save(path, model, ModelCard("tiny", "ConverseDnCNN", config, "denoise", 1))
    return path


@pytest.fixture(scope="module")
def deblurrer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "usr.safetensors"
    config = {"channels": 1, "num_features": 2, "num_blocks": 1, "num_iterations": 1}
    model = ConverseUSRNet(**config, rngs=nnx.Rngs(0))
    let_through(model)
    card = ModelCard("usr", "ConverseUSRNet", config, "deblur", 1, needs_kernel=True)
    converse_jax.save(path, model, card)
    return path


def image(*shape: int, **more: Any) -> Image:
    return Image(np.random.default_rng(0).random(shape, dtype=np.float32), **more)


def write(path: Path, *shape: int, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image(*shape, **more))
    return path


def kernel_file(path: Path, kernel: np.ndarray) -> Path:
    np.save(path, kernel)
    return path


# restore


def test_restore_an_image(tmp_path: Path, run: Run, denoiser: Path) -> None:
    source, target = write(tmp_path / "a.png", 7, 9, 1, bits=16), tmp_path / "b.tif"
    assert run("restore", source, target, "--model", denoiser) == (0, "", "")
    want = Restorer(*converse_jax.load(denoiser))(read_image(source).pixels)
    got = read_image(target)
    assert got.bits == 16
    assert np.abs(want - read_image(source).pixels).max() > 0.004  # the network does something
    np.testing.assert_allclose(got.pixels, np.clip(want, 0, 1), atol=1 / 65535)


def test_a_gray_model_on_color_images_says_so(tmp_path: Path, run: Run, denoiser: Path) -> None:
    write(tmp_path / "in" / "a.png", 5, 6, 3)
    write(tmp_path / "in" / "b.png", 5, 6, 3)
    note = "tiny is a model of gray images: each channel is restored alone\n"
    one = run("restore", tmp_path / "in" / "a.png", tmp_path / "b.png", "--model", denoiser)
    assert one == (0, "", note)
    many = run("restore", tmp_path / "in", tmp_path / "out", "--model", denoiser)
    assert many == (0, "", note + "2 restored, 0 skipped (there already), 0 failed\n")
    single, of_many = read_image(tmp_path / "b.png"), read_image(tmp_path / "out" / "a.png")
    np.testing.assert_array_equal(single.pixels, of_many.pixels)


def test_a_folder_with_a_bad_file(tmp_path: Path, run: Run, denoiser: Path) -> None:
    write(tmp_path / "in" / "sub" / "a.png", 5, 6, 1)
    (tmp_path / "in" / "b.png").write_bytes(b"")
    command = ("restore", tmp_path / "in", tmp_path / "out", "--model", denoiser)
    status, out, err = run(*command)
    assert (status, out) == (1, "")
    first, last = err.splitlines()
    assert first.startswith(f"failed: {tmp_path / 'in' / 'b.png'}: the file is empty")
    assert last == "1 restored, 0 skipped (there already), 1 failed"
    assert run(*command)[2].endswith("0 restored, 1 skipped (there already), 1 failed\n")
    again = run(*command, "--overwrite")
    assert again[2].endswith("1 restored, 0 skipped (there already), 1 failed\n")
    assert [p.name for p in (tmp_path / "out").rglob("*.*")] == ["a.png"]


def test_tiles(tmp_path: Path, run: Run, refused: Callable[..., str], denoiser: Path) -> None:
    source = write(tmp_path / "in" / "a.png", 50, 61, 1, bits=16)
    command = ("restore", source, tmp_path / "b.png", "--model", denoiser)
    assert run(*command, "--tile", 32, "--overlap", 8) == (0, "", "")
    restorer = Restorer(*converse_jax.load(denoiser))
    got, x = read_image(tmp_path / "b.png").pixels, read_image(source).pixels
    for tile, same in ((32, True), (0, False)):
        want = np.clip(restorer(x, tile=tile, overlap=8 if tile else None), 0, 1)
        assert np.allclose(got, want, atol=1 / 65535) == same
    # Before an image is read, and once for a folder.
    source.write_bytes(b"")
    text = "tile: got 7; expected at least 128 (twice the overlap of 64)"
    for given in (source, source.parent):
        assert refused("restore", given, tmp_path / "c.png", *command[3:], "--tile", 7) == text
    assert refused("restore", source, tmp_path / "c.png", "--tile", 7).startswith("tile: got 7; ")
    assert "tiles of 256" not in run("restore", source.parent, tmp_path / "out", *command[3:])[2]
    for n in range(3):
        write(tmp_path / "sizes" / f"{n}.png", 20, 20 + n, 1)
    said = run("restore", tmp_path / "sizes", tmp_path / "out", *command[3:])[2].splitlines()
    note = "images of 3 sizes: restored in tiles of 256 pixels, as each size of whole images"
    assert len(said) == 2 and said[0].startswith(note)


def test_how_files_are_read_and_written(tmp_path: Path, run: Run, denoiser: Path) -> None:
    model = ("--model", denoiser)
    (tmp_path / "in").mkdir()
    level = np.linspace(0, 0.4, 64, dtype=np.float32).reshape(8, 8, 1)
    given = Image(level, bits=16, white=4095, text={"Title": "x"})
    write_image(tmp_path / "in" / "a.png", given)
    (tmp_path / "in" / "note.txt").touch()
    guess = "values up to 1638 of 65535, so white is taken to be 4095 (--white-level N)\n"
    lost = "TIFF has no place for it, dropped: text 'Title'\n"
    one = run("restore", tmp_path / "in" / "a.png", tmp_path / "b.tif", *model, "--resize", "0.5")
    assert one == (0, "", guess + lost)
    got = read_image(tmp_path / "b.tif")
    assert got.white == 4095 and got.pixels.shape == (4, 4, 1)
    options = ("--white-level", "4095", "--format", "tiff", "--width", "5")
    folder = run("restore", tmp_path / "in", tmp_path / "out", *model, *options)
    counts = "1 restored, 0 skipped (there already), 0 failed\n"
    unread = "1 file is no image that is read: note.txt\n"
    assert folder == (0, "", f"{tmp_path / 'in' / 'a.png'}: {lost}{counts}{unread}")
    assert read_image(tmp_path / "out" / "a.tif").pixels.shape == (5, 5, 1)

    cut = encode_image(image(24, 24, 1), "jpeg")[:-2]
    (tmp_path / "cut.jpg").write_bytes(cut)
    tolerant = ("--tolerate-damage", "--quality", "40")
    status, _, err = run("restore", tmp_path / "cut.jpg", tmp_path / "d.jpg", *model, *tolerant)
    assert status == 0 and "the file is cut short" in err
    assert (tmp_path / "d.jpg").stat().st_size < len(cut)


def test_standard_input_and_output(
    tmp_path: Path,
    denoiser: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    given = image(5, 6, 3, alpha=image(5, 6, 1).pixels[..., 0])
    source = tmp_path / "a.png"
    write_image(source, given)
    model = ("--model", str(denoiser))
    assert cli.main(["restore", str(source), str(tmp_path / "b.png"), *model]) == 0
    capsysbinary.readouterr()

    def feed(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    feed(source.read_bytes())
    assert cli.main(["restore", "-", "-", *model]) == 0
    out, err = capsysbinary.readouterr()
    assert out == (tmp_path / "b.png").read_bytes()
    assert err == b"tiny is a model of gray images: each channel is restored alone\n"

    assert cli.main(["restore", str(source), "-", *model, "--format", "tiff"]) == 0
    out, _ = capsysbinary.readouterr()
    assert out.startswith(b"II*\0")
    np.testing.assert_array_equal(read_image(out).pixels, read_image(tmp_path / "b.png").pixels)

    feed(encode_image(given, "webp"))
    assert cli.main(["restore", "-", str(tmp_path / "c.png"), *model]) == 0
    assert read_image(tmp_path / "c.png").alpha is not None
    capsysbinary.readouterr()

    for data, arguments, text in [
        (b"junk", ["-", "-"], b"not an image; give a PNG"),
        (source.read_bytes(), ["-", "-", "--format", "jpeg"], b"JPEG holds no alpha channel"),
    ]:
        feed(data)
        assert cli.main(["restore", *arguments, *model]) == 2
        out, err = capsysbinary.readouterr()
        assert out == b"" and text in err and err.count(b"\n") == 1


@pytest.mark.slow
def test_a_kernel(tmp_path: Path, run: Run, refused: Callable[..., str], deblurrer: Path) -> None:
    source = write(tmp_path / "a.png", 12, 12, 1)
    model = ("--model", deblurrer)
    small = kernel_file(tmp_path / "small.npy", np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]))
    status, out, err = run("restore", source, tmp_path / "b.png", *model, "--kernel", small)
    assert (status, out) == (0, "")
    assert err.splitlines() == [
        f"{small}: the kernel was divided by its sum, 16",
        "the kernel of 3x3 was padded with zeros to 7x7",
    ]
    padded = np.pad(np.load(small) / 16, 2)
    exact = kernel_file(tmp_path / "exact.npy", padded)
    options = ("--kernel", exact, "--no-extend-borders", "--self-ensemble")
    assert run("restore", source, tmp_path / "c.png", *model, *options) == (0, "", "")
    restorer = Restorer(*converse_jax.load(deblurrer))
    for name, more in [("b", {}), ("c", {"extend_borders": False, "self_ensemble": True})]:
        want = restorer(read_image(source).pixels, kernel=padded, **more)
        got = read_image(tmp_path / f"{name}.png").pixels
        np.testing.assert_allclose(got, np.clip(want, 0, 1), atol=0.5001 / 255)

    large = kernel_file(tmp_path / "large.npy", np.ones((9, 7)) / 63)
    wrong = tmp_path / "d.png"
    assert "got 9x7, usr (ConverseUSRNet) takes at most 7x7" in refused(
        "restore", source, wrong, *model, "--kernel", large
    )
    assert "needs the blur kernel; give one (--kernel K)" in refused(
        "restore", source, wrong, *model
    )
    assert not wrong.exists()


def test_kernel_files(tmp_path: Path, refused: Callable[..., str], denoiser: Path) -> None:
    source, target = write(tmp_path / "a.png", 5, 5, 1), tmp_path / "b.png"
    arrays: dict[str, tuple[Any, str]] = {
        "flat": (np.ones(3), "kernel: got shape (3,); expected a two-dimensional [kh, kw]"),
        "zero": (np.array([[1.0, -1.0]]), "kernel: its taps sum to 0"),
        "nan": (np.full((3, 3), np.nan), "kernel: holds NaN or infinity"),
        "complex": (np.ones((3, 3), complex), "kernel: got complex128; expected real numbers"),
        "good": (np.ones((3, 3)) / 9, "kernel: tiny (ConverseDnCNN) takes none; leave it out"),
    }
    for name, (array, text) in arrays.items():
        path = kernel_file(tmp_path / f"{name}.npy", array)
        line = refused("restore", source, target, "--model", denoiser, "--kernel", path)
        assert text in line
        assert name == "good" or line.startswith(str(path))
    command = ("--model", denoiser, "--kernel")
    line = refused("restore", source, target, *command, "none.npy")
    assert line.startswith("none.npy: cannot be read (No such file or directory); check the path")
    line = refused("evaluate", "--data", source, *command, "gaussian:-1")
    assert line.startswith("gaussian:-1: is no kernel; expected motion:LENGTH:ANGLE, gaussian:SIG")
    assert not target.exists()


def test_the_same_kernels_for_restore_and_evaluate(
    tmp_path: Path, run: Run, refused: Callable[..., str], deblurrer: Path
) -> None:
    source, model = write(tmp_path / "a.png", 24, 24, 1), ("--model", deblurrer)
    rim = np.pad(np.array([[0.5, 0.75], [-0.25, 1.0]]), ((4, 7), (4, 3)))
    kernel_file(tmp_path / "k.npy", rim)
    options = ("--kernel", tmp_path / "k.npy", "--center-kernel", "--flip-kernel")
    status, out, restored = run("restore", source, tmp_path / "b.png", *model, *options)
    assert (status, out) == (0, "")
    name = tmp_path / "k.npy"
    odd = "the kernel was divided by its sum, 2; a tap is negative, down to -0.125: a blur has none"
    padded = "the kernel of 3x3 was padded with zeros to 7x7"
    assert restored.splitlines() == [f"{name}: {odd}", padded]
    path = tmp_path / "out.json"
    status, _, evaluated = run("evaluate", *model, "--data", source, *options, "--json", path)
    assert (status, evaluated) == (0, restored)
    want = np.array([[0, 0.5, -0.125], [0, 0.375, 0.25], [0, 0, 0]])
    assert json.loads(path.read_text())["kernel"] == want.tolist()
    status, _, err = run("restore", source, tmp_path / "c.png", *model, "--kernel", "motion:5:20")
    assert (status, err) == (0, "")
    for arguments, text in [
        (("--kernel", "disk:5"), "kernel: got 11x11, usr (ConverseUSRNet) takes at most 7x7; crop"),
        (("--center-kernel",), "--center-kernel is for --kernel, and there is none"),
        (("--flip-kernel",), "--flip-kernel is for --kernel, and there is none"),
    ]:
        assert text in refused("restore", source, tmp_path / "d.png", *model, *arguments)
        assert text in refused("evaluate", "--data", source, *model, *arguments)
    small = write(tmp_path / "small" / "a.png", 5, 30, 1)
    line = refused("restore", small, tmp_path / "d.png", *model, "--kernel", "motion:5:90")
    assert line == (
        f"{small}: kernel: got 7x1 for an image of 5x30; expected a kernel no larger than the image"
    )
    assert not (tmp_path / "d.png").exists()


def test_refused_restorations(
    tmp_path: Path,
    refused: Callable[..., str],
    denoiser: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write(tmp_path / "in" / "a.png", 50, 50, 1)
    old = write(tmp_path / "old.png", 2, 2, 1)
    before = old.read_bytes()
    model = ("--model", denoiser)
    folder, new = tmp_path / "in", tmp_path / "new.png"
    for arguments, text in [
        (("none.png", new, *model), "none.png: there is no such file; check the path"),
        ((source, old, *model), f"{old}: exists already; name another file, or overwrite it"),
        ((source, folder, *model), f"{folder} is a folder; name the image to make in it"),
        ((folder, "-", *model), "whose images cannot go to standard output"),
        ((folder, folder, *model), "is the folder that is read; name another one"),
        ((source, new, "--model", "none"), "none: no such file, and no model of this name"),
        ((source, new, "--model", source), "not a"),
        ((source, new, *model, "--format", "png"), "--format is for standard output"),
        ((source, new, *model, "--width", "0"), "width: got 0; expected at least 1 pixel"),
        ((source, new, *model, "--resize", "2", "--width", "9"), "width, resize: give one of"),
        ((source, new, *model, "--quality", "50"), f"{new}: quality: "),
        ((source, new, *model, "--quality", "0"), "quality: got 0; expected 1 to 100"),
        ((source, new, *model, "--white-level", "-1"), "white_level: got -1; expected a positive"),
        ((source, new, *model, "--task", "sr"), "--task chooses a bundled network: leave it out"),
        (
            (source, new, *model, "--scale", "2"),
            "--scale: --model has one of its own; leave",
        ),
        (
            (source, new, *model, "--sigma", "25"),
            "sigma: tiny (ConverseDnCNN) takes no noise level",
        ),
        ((source, new, "--sigma", "-1"), "--sigma: got '-1'; expected a noise level from 0 to 255"),
        ((source, new, "--strength", "2"), "--strength: got '2'; expected a number from 0 to 1"),
        ((source, new, "--task", "deblur"), "--task deblur needs the blur: give --kernel K"),
        ((source, new, "--kernel", "k"), "--kernel is for --task deblur and sr, got --task photo"),
        (
            (source, new, "--task", "denoise", "--scale", "2"),
            "scale: task 'denoise' does not enlarge",
        ),
        (
            (source, new, "--task", "sr", "--scale", "0"),
            "scale: got 0; expected an integer of",
        ),
        ((source, new, *model, "--kernal", "k"), "restore does not know '--kernal': did you mean"),
        ((source, new, *model, "--kernal=k"), "did you mean --kernel?"),
        ((source, new, *model, "third"), "does not know 'third'; see converse-jax restore --help"),
    ]:
        assert text in refused("restore", *arguments)
    monkeypatch.setattr(_programs, "available_memory", lambda: 10)
    line = refused("restore", source, new, *model)
    assert line.startswith(f"{source}: image: 50x50 pixels need more memory")
    assert not new.exists() and old.read_bytes() == before


def test_nothing_is_written_to_a_terminal(
    tmp_path: Path, denoiser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(cli.UsageError, match="standard output is a terminal"):
        _restore.run(cli._parse(["restore", "a.png", "-", "--model", str(denoiser)]))


def test_a_missing_package_is_named(
    tmp_path: Path, refused: Callable[..., str], denoiser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "a.png", 4, 4, 1, bits=16)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    line = refused("restore", source, tmp_path / "b.png", "--model", denoiser)
    assert line == 'this needs the package imagecodecs: pip install "converse-jax[app]"'
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.setitem(sys.modules, name, None)
    line = refused("restore", source, tmp_path / "b.png", "--model", denoiser)
    assert line == 'this needs the package pillow: pip install "converse-jax[app]"'


def test_a_defect_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> int:
        raise ModuleNotFoundError("No module named 'converse_jax.gone'", name="converse_jax.gone")

    monkeypatch.setattr(_models, "run", broken)
    with pytest.raises(ModuleNotFoundError, match="gone"):
        cli.main(["models"])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "converse-jax: interrupted\n"),
        (OSError(28, "No space left"), 2, "converse-jax: error: [Errno 28] No space left\n"),
    ],
)
def test_other_ends(
    error: BaseException, status: int, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any) -> int:
        raise error

    monkeypatch.setattr(_models, "run", end)
    assert run("models") == (status, "", said)


def test_a_reader_that_has_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "converse_jax", "models"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize(("height", "width"), [(40, 60), (5, 6), (90, 11), (9, 200)])
def test_before_and_after(
    tmp_path: Path, run: Run, denoiser: Path, height: int, width: int
) -> None:
    source, target = write(tmp_path / "a.png", height, width, 1), tmp_path / "b.png"
    sheet = tmp_path / "sheet.png"
    command = ("restore", source, target, "--model", denoiser, "--compare", sheet)
    assert run(*command) == (0, "", "")
    panel = min(640, round(960 * width / height))
    drawn = to_uint8(read_image(sheet).pixels)
    rows = round(panel * height / width)
    assert drawn.shape == (76 + rows + 54 + 20, 2 * panel + 60, 3)
    images = [to_uint8(read_image(path).pixels) for path in (source, target)]
    magnified = max(3, -(-2 * panel // width))
    side = max(1, int(0.4 * min(panel, rows) / magnified))
    # The same square of both, magnified without interpolation.
    y, x = 76 + rows - 6 - side * magnified, panel - 6 - side * magnified
    parts = []
    for left in (20, 40 + panel):
        inset = drawn[y:, x + left :][: side * magnified, : side * magnified]
        parts.append(inset[::magnified, ::magnified])
        np.testing.assert_array_equal(inset, parts[-1].repeat(magnified, 0).repeat(magnified, 1))
    places = [
        [
            (i, j)
            for i in range(0, height - side + 1, side)
            for j in range(0, width - side + 1, side)
            if (image[i : i + side, j : j + side] == part).all()
        ]
        for image, part in zip(images, parts, strict=True)
    ]
    assert set(places[0]) & set(places[1])


def test_before_and_after_of_an_enlargement(tmp_path: Path) -> None:
    small = np.zeros((16, 24, 3), np.float32)
    small[4:8, 8:12, 0] = np.kron(np.eye(2), np.ones((2, 2)))  # red where there is detail
    # The last is the result resized.
    for name, large in (
        ("x2.png", small.repeat(2, 0).repeat(2, 1)),
        ("x1.5.png", small.repeat(3, 0).repeat(3, 1)[::2, ::2]),
        ("half.png", small[::2, ::2]),
    ):
        write_comparison(tmp_path / name, small, large, "\udcff.png", "restored")
        drawn = read_image(tmp_path / name).pixels
        assert drawn.shape == (76 + 427 + 54 + 20, 2 * 640 + 60, 3)
        for left in (20, 680):
            # Three pixels of the image, each 54 times as large.
            inset = drawn[76 + 427 - 168 : 76 + 427 - 6, left + 640 - 168 : left + 640 - 6]
            assert inset[..., 0].max() > 0.5 and inset[..., 1:].max() < 0.1


def test_refused_sheets(tmp_path: Path, refused: Callable[..., str], denoiser: Path) -> None:
    source, new = write(tmp_path / "in" / "a.png", 12, 12, 1), tmp_path / "new.png"
    old, model = write(tmp_path / "old.png", 2, 2, 1), ("--model", denoiser)
    before = old.read_bytes()
    for arguments, text in [
        ((source, new, "--compare", old), f"{old}: exists already; name another file"),
        ((source, new, "--compare", new), f"--compare {new}: is IN or OUT; name another file"),
        ((source, new, "--compare", source, "--overwrite"), "is IN or OUT; name another file"),
        ((source, new, "--compare", tmp_path / "s.txt"), "the extension '.txt' is not one of"),
        ((source, new, "--compare", tmp_path / "no" / "s.png"), "there is no folder"),
        ((tmp_path / "in", tmp_path / "out", "--compare", tmp_path / "s.png"), "shows one image,"),
    ]:
        assert text in refused("restore", *arguments, *model)
    assert not new.exists() and old.read_bytes() == before


# evaluate and compare


def test_evaluate(tmp_path: Path, run: Run, refused: Callable[..., str], denoiser: Path) -> None:
    write(tmp_path / "in" / "a.png", 16, 20, 1)
    write(tmp_path / "in" / "b.png", 16, 20, 3)
    path = tmp_path / "out.json"
    command = ("evaluate", "--model", denoiser, "--task", "denoise", "--data", tmp_path / "in")
    status, out, err = run(*command, "--sigma", "15", "--json", path)
    assert status == 0
    assert err == "color images were converted to gray, as the model is gray\n"
    report = json.loads(path.read_text())
    assert (report["model"], report["task"], report["sigma"]) == ("tiny", "denoise", 15.0)
    head, *rows = (line.split() for line in out.splitlines())
    assert head == ["psnr", "ssim", "psnr_y", "ssim_y"]
    wanted = [*report["images"], {"name": "mean", **report["mean"]}]
    rows[-1] = [rows[-1][0], *rows[-1][3:]]  # "mean of 2"
    for row, want in zip(rows, wanted, strict=True):
        assert row == [
            *(want["name"], f"{want['psnr']:.2f}", f"{want['ssim']:.4f}"),
            *(f"{want['psnr_y']:.2f}", f"{want['ssim_y']:.4f}"),
        ]
    before = path.read_bytes()
    assert f"{path}: exists already" in refused(*command, "--json", path)
    assert path.read_bytes() == before
    assert run(*command, "--json", path, "--overwrite")[0] == 0
    assert json.loads(path.read_text())["sigma"] == 25.0


def test_refused_evaluations(
    tmp_path: Path, run: Run, refused: Callable[..., str], denoiser: Path
) -> None:
    data = write(tmp_path / "a.png", 16, 20, 1)
    model, denoise = ("--model", denoiser), ("--task", "denoise")
    for arguments, text in [
        ((*model, *denoise, "--data", data, "--overwrite"), "--overwrite is for the file of"),
        ((*model, *denoise), "the following arguments are required: --data"),
        ((*model, "--task", "paint", "--data", data), "invalid choice: 'paint'"),
        ((*model, "--data", data, "--sigma", "-1"), "--sigma: got '-1'; expected a noise level fr"),
        ((*model, "--data", data, "--limit", "0"), "limit: got 0; expected a number of images of"),
        ((*model, "--data", data, "--no-extend-borders"), "--no-extend-borders is for --input"),
        ((*model, "--task", "sr", "--data", data), "tiny (ConverseDnCNN) is a model for 'denoise'"),
        ((*model, *denoise, "--data", tmp_path / "none"), "there is no such file"),
    ]:
        assert text in refused("evaluate", *arguments)


def test_a_damaged_image_does_not_end_an_evaluation(
    tmp_path: Path, run: Run, denoiser: Path
) -> None:
    write(tmp_path / "in" / "a.png", 16, 20, 1)
    bad, path = tmp_path / "in" / "b.png", tmp_path / "out.json"
    bad.write_bytes(b"")
    write(tmp_path / "in" / "c.png", 16, 20, 1)
    command = ("evaluate", "--model", denoiser, "--data", tmp_path / "in", "--json", path)
    status, out, err = run(*command)
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["a.png", "c.png", "mean"]
    assert err.startswith(f"failed: {bad}: the file is empty")
    assert err.endswith("2 measured, 1 failed\n")
    report = json.loads(path.read_text())
    assert [row["name"] for row in report["failed"]] == ["b.png"] and len(report["images"]) == 2
    status, out, err = run(*command, "--limit", "1", "--overwrite")
    assert (status, err) == (0, "") and len(out.splitlines()) == 3
    assert [row["name"] for row in json.loads(path.read_text())["images"]] == ["a.png"]


def test_evaluate_pairs(tmp_path: Path, run: Run, denoiser: Path) -> None:
    clean = write(tmp_path / "hr" / "a.png", 16, 20, 1)
    write(tmp_path / "lr" / "a.png", 16, 20, 1)
    status, out, err = run(
        "evaluate", "--model", denoiser, "--data", clean.parent, "--input", tmp_path / "lr"
    )
    assert (status, err) == (0, "")
    run("restore", clean, tmp_path / "out.png", "--model", denoiser)
    assert run("compare", tmp_path / "out.png", clean)[1].split()[5:9] == out.split()[5:9]


def test_compare(tmp_path: Path, run: Run, refused: Callable[..., str]) -> None:
    a, b, path = tmp_path / "a", tmp_path / "b", tmp_path / "out.json"
    noise = np.random.default_rng(1).normal(0, 0.05, (20, 24, 3)).astype(np.float32)
    for name in ("x.png", "sub/y.png", "z.png", "only.png"):
        write(a / name, 20, 24, 3)
    (b / "sub").mkdir(parents=True)
    noisy = Image(np.clip(image(20, 24, 3).pixels + noise, 0, 1))
    write_image(b / "x.png", noisy)
    write_image(b / "sub" / "y.tif", noisy)
    write(b / "z.png", 24, 20, 3)
    write(b / "other.png", 20, 24, 3)
    status, out, err = run("compare", a, b, "--border", "2", "--json", path)
    assert status == 1
    assert err.splitlines() == [
        f"failed: {a / 'only.png'}: no image of this name in {b}",
        f"failed: {b / 'z.png'}: got 20x24; expected 24x20, as {a / 'z.png'} has",
        f"failed: {b / 'other.png'}: no image of this name in {a}",
        "2 measured, 3 failed",
    ]
    x, y = (to_uint8(read_image(f / "x.png").pixels) for f in (a, b))
    want: Any = measure(x, y, border=2)
    assert (want["psnr"], want["ssim_y"]) == (
        psnr(x, y, border=2),
        ssim(rgb_to_y(x), rgb_to_y(y), border=2),
    )
    figures = [f"{want[m]:.{4 if 'ssim' in m else 2}f}" for m in METRICS]
    head, *rows = (line.split() for line in out.splitlines())
    assert head == list(METRICS)
    assert rows == [["sub/y.png", *figures], ["x.png", *figures], ["mean", "of", "2", *figures]]
    report = json.loads(path.read_text())
    assert report["images"][1] == {"name": "x.png", **want} and report["border"] == 2
    assert len(report["failed"]) == 3
    assert f"{path}: exists already" in refused("compare", a, b, "--json", path)

    gray = write(tmp_path / "gray.png", 20, 24, 1, bits=16)
    status, out, err = run("compare", a / "x.png", gray)
    assert status == 0 and err.splitlines() == [
        "images of more than 8 bits were measured in 8",
        "gray images were compared with images in color as three equal channels",
    ]
    status, out, err = run("compare", gray, gray, "--json", path, "--overwrite")
    assert (status, out.split()[5:7]) == (0, ["inf", "1.0000"])
    assert json.loads(path.read_text())["mean"]["psnr"] is None

    (tmp_path / "none").mkdir()
    for arguments, text in [
        ((a, b / "x.png"), f"{b / 'x.png'}: is a file, but {a} is a folder; give two images or"),
        ((a, tmp_path / "gone"), f"{tmp_path / 'gone'}: there is no such file or folder; check"),
        ((a, tmp_path / "none"), f"{a}: no image has one of the same name in"),
        ((a / "z.png", b / "z.png"), f"{b / 'z.png'}: got 20x24; expected 24x20, as"),
        ((a / "x.png", b / "x.png", "--border", "-1"), "border: got -1; expected a number of pix"),
        ((a / "x.png", b / "x.png", "--border", "9"), "2x6 pixels inside a border of 9"),
        ((a / "x.png", b / "x.png", "--overwrite"), "--overwrite is for the file of --json"),
    ]:
        assert text in refused("compare", *arguments)


@pytest.mark.slow
def test_names_that_the_console_cannot_show(tmp_path: Path, denoiser: Path) -> None:
    write(tmp_path / "in" / "\u6c34\u00e9.png", 16, 20, 1)
    for command in (
        ["evaluate", "--model", denoiser, "--data", tmp_path / "in"],
        ["compare", tmp_path / "in", tmp_path / "in"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "converse_jax", *command],
            env=os.environ | {"PYTHONIOENCODING": "cp1252"},
            capture_output=True,
        )
        assert (result.returncode, result.stderr) == (0, b"")
        assert b"\\u6c34\xe9.png" in result.stdout


# models, convert, demo, and the command itself


def test_models(run: Run, denoiser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converse_jax.weights.list_models", dict)
    status, out, err = run("models")
    assert (status, err) == (0, "")
    assert "No models come with this version" in out and "--model converse_dncnn.pth" in out
    cards = {
        "a": ModelCard("a", "ConverseDnCNN", {}, "denoise", 1, sigma=25.0, license="Apache-2.0"),
        "b": ModelCard("b", "ConverseSRResNet", {}, "sr", 3, scale=4, license="MIT"),
        "c": ModelCard("c", "ConverseUSRNet", {}, "deblur", 3, sigma=2.55, needs_kernel=True),
    }
    cards["a"].notes["trained_on"] = ["9 photographs (research use)"]
    cards["b"].notes["trained_on"] = ["9 photographs (research use)", "one of ours (CC0)"]
    monkeypatch.setattr("converse_jax.weights.list_models", lambda: cards)
    status, out, err = run("models")
    assert (status, err) == (0, "")
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "a ConverseDnCNN denoise, gray, sigma 25 Apache-2.0",
        "b ConverseSRResNet x4 super-resolution, color MIT",
        "c ConverseUSRNet deblur, color, sigma 2.55, kernel given unknown",
        "",
        "Trained on 9 photographs (research use): a, b.",
        "",
        "Trained on one of ours (CC0): b.",
    ]


def test_convert(tmp_path: Path, run: Run, refused: Callable[..., str], denoiser: Path) -> None:
    target = tmp_path / "copy.safetensors"
    status, out, err = run("convert", denoiser, target)
    assert (status, out) == (0, "")
    assert err == f"{target}: ConverseDnCNN, denoise, gray, sigma unknown\n"
    assert target.read_bytes() == denoiser.read_bytes()
    assert f"{target}: exists already" in refused("convert", denoiser, target)
    assert run("convert", denoiser, target, "--overwrite")[0] == 0
    assert "must end in .safetensors" in refused("convert", denoiser, tmp_path / "copy.pth")
    assert "no such file" in refused("convert", "none.pth", tmp_path / "b.safetensors")


def test_demo_of_the_operator(
    tmp_path: Path, run: Run, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = demo.Reversal(np.zeros(1), np.zeros(1), 24.5, 27.0, 0.02)
    made: list[tuple[Path, bool]] = []

    def instead(target: Path, *, overwrite: bool) -> Any:
        made.append((target, overwrite))
        return before, before

    monkeypatch.setattr(demo, "demo_operator", instead)
    status, out, err = run("demo", "--operator")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "deblurring           24.50 dB -> 27.00 dB (+2.50 dB, lambda 0.02)",
        "super-resolution x2  24.50 dB -> 27.00 dB (+2.50 dB, lambda 0.02)",
        "converse-demo.png",
    ]
    assert run("demo", "--operator", "--out", tmp_path, "--overwrite")[0] == 0
    assert run("demo", "--operator", "--out", tmp_path / "b.png")[0] == 0
    name = "converse-demo.png"
    assert made == [(Path(name), False), (tmp_path / name, True), (tmp_path / "b.png", False)]
    monkeypatch.undo()
    (tmp_path / name).touch()
    assert f"{name}: exists already" in refused("demo", "--operator", "--out", tmp_path)


def test_help_and_version(run: Run, refused: Callable[..., str]) -> None:
    version = (0, f"converse-jax {converse_jax.__version__}\n", "")
    assert run("--version") == version
    status, out, err = run("restore", "--help")
    assert (status, err) == (0, "") and "--self-ensemble" in out
    assert "the following arguments are required: COMMAND" in refused()
    assert "invalid choice: 'restor'" in refused("restor")
    out = subprocess.run(
        [sys.executable, "-m", "converse_jax", "--version"], capture_output=True, text=True
    ).stdout
    assert out == version[1]


def test_a_bar_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for kind, seen in ((Terminal, True), (io.StringIO, False)):
        screen = kind()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        with progress_bar("restoring") as advance:
            advance(1, 4)
        assert ("25%" in screen.getvalue()) == seen
        assert bool(screen.getvalue()) == seen


# The compilation cache


@pytest.mark.slow
def test_programs_are_kept_between_processes(tmp_path: Path, denoiser: Path) -> None:
    source = write(tmp_path / "a.png", 5, 6, 1)
    command = [sys.executable, "-m", "converse_jax", "restore", source, "-", "--model", denoiser]

    def files(cache: str) -> list[str]:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        environment.pop("XLA_FLAGS", None)
        subprocess.run(command, env=environment, check=True, capture_output=True)
        # Not that of the transfer functions: it may compile too fast to be kept.
        return sorted(p.name for p in Path(cache).glob("jit_run-*-cache"))

    first = files(str(tmp_path / "cache"))
    assert first
    assert files(str(tmp_path / "cache")) == first  # found, not compiled under another key
    (tmp_path / "file").touch()
    assert files(str(tmp_path / "file" / "cache")) == []  # and the image was restored


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "chosen"))
    assert compilation_cache._folder() == tmp_path / "chosen"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation_cache._folder() == tmp_path / "converse-jax" / "xla"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compilation_cache._folder() == tmp_path / ".cache" / "converse-jax" / "xla"


def test_every_entry_of_the_help_stands_by_itself() -> None:
    _, commands = cli._parsers()
    for name, parser in commands.items():
        for action in parser._actions:
            words = (action.help or "").split()
            assert len(words) > 1, (name, action.dest)
            assert words[0].lower() not in ("of", "in", "that", "and", "one", "its"), action.help
