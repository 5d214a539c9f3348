"""The demo of the networks, with stand-ins: what is measured, drawn, left out and said."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax import ModelCard, _sheet, cli, compilation_cache
from converse_jax.demo import Restoration, choose_examples, demo_networks
from converse_jax.demo._networks import EXAMPLES
from converse_jax.imaging import (
    ImageError,
    encode_image,
    estimate_noise,
    psnr,
    read_image,
    to_uint8,
)
from converse_jax.models import ConverseDnCNN, ConverseSRResNet, ConverseUSRNet
from converse_jax.weights import _load

Sheet = tuple[np.ndarray, list[Restoration]]
NAMES = ["denoise-color", "denoise-gray", "sr-x4", "sr-x2", "deblur", "photo"]


def add_denoiser(folder: Path, name: str, channels: int) -> None:
    """A network that adds the level it is told."""
    config = {"channels": channels, "num_features": 2, "num_blocks": 0}
    config |= {"noise_level": True, "residual": True}
    model = ConverseDnCNN(**config, rngs=nnx.Rngs(0))
    model.head.kernel.set_value(jnp.zeros((channels + 1, 2)).at[-1, 0].set(1))
    model.tail.kernel.set_value(jnp.zeros((2, channels)).at[0].set(1))
    card = ModelCard(name, "ConverseDnCNN", config, "denoise", channels, needs_sigma=True)
    converse_jax.save(folder / f"{name}.safetensors", model, card)


def add_enlarger(folder: Path, scale: int) -> None:
    config = {"scale": scale, "num_features": 2, "num_blocks": 0, "high_blocks": False}
    model = ConverseSRResNet(**config, rngs=nnx.Rngs(0))
    card = ModelCard(f"sr-x{scale}", "ConverseSRResNet", config, "sr", 3, scale=scale)
    converse_jax.save(folder / f"sr-x{scale}.safetensors", model, card)


def add_deblurrer(folder: Path) -> None:
    config = {"num_features": 2, "num_blocks": 0, "num_iterations": 1}
    model = ConverseUSRNet(**config, rngs=nnx.Rngs(0))
    card = ModelCard("deblur", "ConverseUSRNet", config, "deblur", 3, sigma=2.55, needs_kernel=True)
    converse_jax.save(folder / "deblur.safetensors", model, card)


def add_all(folder: Path) -> None:
    for name, channels in (("denoise-color", 3), ("denoise-gray", 1), ("photo", 3)):
        add_denoiser(folder, name, channels)
    for scale in (2, 4):
        add_enlarger(folder, scale)
    add_deblurrer(folder)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without networks."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(_load, "BUNDLED", folder)
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)
    return folder


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Sheet:
    """The demo of a package with every network of the demo."""
    folder = tmp_path_factory.mktemp("bundled")
    add_all(folder)
    seen: list[Restoration] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_load, "BUNDLED", folder)
        examples, missing = choose_examples()
        assert [x.network for x in examples] == NAMES and missing == []
        target = folder / "sheet.png"
        results = demo_networks(target, examples, on_result=seen.append)
    assert seen == results
    return to_uint8(read_image(target).pixels), results


@pytest.mark.slow
def test_every_network_has_its_row(sheet: Sheet) -> None:
    drawn, results = sheet
    step = 288 + _sheet._CAPTION + 16
    assert drawn.shape == (_sheet._TITLE + 6 * step - 16 + 20, 3 * 384 + 4 * 20, 3)
    assert (drawn[:, :20] == 255).all() and (drawn[:, -20:] == 255).all()
    assert (drawn[-20:] == 255).all()
    assert drawn[: _sheet._TITLE].min() < 50
    for i, result in enumerate(results):
        top = _sheet._TITLE + i * step
        for j, image in enumerate((result.before, result.after, result.clean)):
            channels = 1 if result.example.network == "denoise-gray" else 3
            assert image.shape == (192, 256, channels) and image.dtype == np.float32
            left = 20 + 404 * j
            caption = drawn[top + 288 : top + step - 16, left : left + 384]
            assert caption[:27].min() < 50 and caption[27:].min() < 150  # there is text
            # The detail is the image itself, magnified three times.
            row, column = result.example.detail
            part = to_uint8(image)[row : row + 36, column : column + 36].repeat(3, 0).repeat(3, 1)
            shown = drawn[top + 288 - 114 : top + 288 - 6, left + 384 - 114 : left + 384 - 6]
            np.testing.assert_array_equal(shown, np.broadcast_to(part, shown.shape))
        # The figures are those of what is seen.
        clean = to_uint8(result.clean)
        assert result.psnr_before == psnr(to_uint8(result.before), clean)
        assert result.psnr_after == psnr(to_uint8(result.after), clean)


def test_the_degradations_and_what_the_networks_are_told(sheet: Sheet) -> None:
    results = {x.example.network: x for x in sheet[1]}
    for name in ("denoise-color", "denoise-gray"):
        result = results[name]
        assert np.std(result.before - result.clean) == pytest.approx(25 / 255, rel=0.02)
        np.testing.assert_allclose(result.after, result.before + 25 / 255, atol=1e-5)
    phone = results["photo"]
    told = float(np.mean(phone.after - phone.before))
    assert told == pytest.approx(estimate_noise(phone.before), rel=1e-3)
    assert 1.5 < 255 * told < 6  # some 4 levels, of which JPEG hides a part
    assert 32 < phone.psnr_before < 37
    levels = 255 * phone.before
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)  # it was a JPEG file
    assert 24 < results["deblur"].psnr_before < 30
    for name in ("sr-x2", "sr-x4"):
        assert 24 < results[name].psnr_before < 32


def test_the_bicubic_enlargement_is_aligned(sheet: Sheet) -> None:
    for result in sheet[1]:
        if result.example.scale > 1:
            clean = to_uint8(result.clean)
            moved = [np.roll(result.before, d, axis) for d in (-1, 1) for axis in (0, 1)]
            assert all(psnr(to_uint8(x), clean) < result.psnr_before for x in moved)


def test_a_detail_lies_in_its_image() -> None:
    for example in EXAMPLES:
        row, column = example.detail
        assert 0 <= row <= 192 - 36 and 0 <= column <= 256 - 36
        # Not below its own magnification, which covers the last 114 of 288 rows, 384 columns.
        assert 1.5 * (row + 36) <= 288 - 116 or 1.5 * (column + 36) <= 384 - 116
        assert all(x % example.scale == 0 for x in example.corner)


def test_the_command(
    bundled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    add_denoiser(bundled, "photo", 3)
    assert cli.main(["demo"]) == 0
    out, _ = capsys.readouterr()
    (x,) = demo_networks("again.png", choose_examples()[0])
    gain = x.psnr_after - x.psnr_before
    assert out.splitlines() == [
        f"photo                {x.psnr_before:.2f} dB -> {x.psnr_after:.2f} dB ({gain:+.2f} dB)",
        "converse-demo.png",
    ]
    made = Path("converse-demo.png").read_bytes()
    assert Path("again.png").read_bytes() == made  # the same each time

    assert cli.main(["demo"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "converse-demo.png: exists already; name another file, or overwrite it" in err
    assert Path("converse-demo.png").read_bytes() == made
    Path("sheet.jpg").touch()
    assert cli.main(["demo", "--out", "sheet.jpg", "--overwrite"]) == 0
    jpeg = encode_image(read_image("again.png"), "jpeg")
    assert Path("sheet.jpg").read_bytes() == jpeg


def test_rows_without_a_network_are_left_out(
    bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_denoiser(bundled, "photo", 3)
    add_enlarger(bundled, 2)
    assert cli.main(["demo", "--out", str(tmp_path / "a.png")]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[:-1]] == ["sr-x2", "photo"]
    assert err == (
        "left out, as their networks do not come with this package: "
        "denoise-color, denoise-gray, sr-x4, deblur\n"
    )
    height = read_image(tmp_path / "a.png").pixels.shape[0]
    assert height == _sheet._TITLE + 2 * (288 + _sheet._CAPTION) + 16 + 20


def test_without_any_network_it_is_the_operator(
    bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--operator", "--out", str(tmp_path / "a.png")]) == 0
    asked, err = capsys.readouterr()
    assert err == "" and "lambda" in asked
    assert cli.main(["demo", "--out", str(tmp_path / "b.png")]) == 0
    out, err = capsys.readouterr()
    assert err == "no network of the demo comes with this package: this is the operator alone\n"
    assert out.splitlines()[:-1] == asked.splitlines()[:-1]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_operator_on_request(
    bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_denoiser(bundled, "photo", 3)
    assert cli.main(["demo", "--operator", "--out", str(tmp_path / "a.png")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("deblurring           25.23 dB -> 27.62 dB (+2.38 dB, la")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.gif", r"a\.gif: the extension '\.gif' is not one of \.png"),
        ("none/a.png", r"none/a\.png: there is no folder .*none; create it first"),
    ],
)
def test_a_target_is_refused_before_the_work(
    bundled: Path, tmp_path: Path, name: str, message: str
) -> None:
    add_denoiser(bundled, "photo", 3)

    def work(*_: object) -> None:
        pytest.fail("restored what cannot be written")

    with pytest.raises(ImageError, match=message):
        demo_networks(tmp_path / name, choose_examples()[0], on_result=work)
