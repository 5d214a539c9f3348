"""Plug-and-play restoration of photographs: the solver around a network, in the command too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from jax import Array

from converse_jax import ModelCard, cli, compilation_cache, load, pnp, restore_image
from converse_jax import restore_pnp as module
from converse_jax.bundled import BundledRestorer
from converse_jax.evaluate import evaluate
from converse_jax.imaging import (
    Image,
    circular_blur,
    gaussian_kernel,
    motion_kernel,
    psnr,
    read_image,
    resize,
    to_uint8,
    write_image,
)
from converse_jax.restore import RestoreError, Restorer, apply_to_image
from converse_jax.restore_pnp import PnPRestorer


class Tiny(nnx.Module):
    """A denoiser that sees one pixel far, and not the same in all directions."""

    def __init__(self, channels: int) -> None:
        self.conv = nnx.Conv(channels, channels, (3, 3), padding="CIRCULAR", rngs=nnx.Rngs(0))

    def __call__(self, x: Array, sigma: Array) -> Array:
        return x + sigma * self.conv(x)


def denoiser(channels: int) -> Restorer:
    card = ModelCard("tiny", "Tiny", {}, "denoise", channels, needs_sigma=True)
    return Restorer(Tiny(channels), card)


def photograph(height: int, width: int, channels: int = 3) -> np.ndarray:
    from skimage import data

    x = resize(data.astronaut()[20:220, 130:330] / 255.0, (height, width))
    return x[..., :channels].astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_the_functions_of_pnp_around_a_network(channels: int) -> None:
    y, kernel = photograph(24, 20, channels), motion_kernel(9, length=7, angle=20)
    deblurrer = PnPRestorer(denoiser(channels), "deblur", iterations=5)
    got = deblurrer(y, kernel=kernel, sigma=0.02, extend_borders=False)
    want = pnp.deblur(y, kernel.astype(np.float32), Tiny(channels), sigma=0.02, iterations=5)
    np.testing.assert_allclose(got, want, atol=2e-6)
    # Bicubic by default; an image without noise is treated as if it had a little.
    enlarger = PnPRestorer(denoiser(channels), "sr", scale=3, iterations=4)
    got = enlarger(y, sigma=0.0, extend_borders=False)
    want = pnp.super_resolve(y, 3, Tiny(channels), iterations=4)
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_channels_are_solved_alone_and_denoised_together() -> None:
    y, kernel = photograph(16, 16), gaussian_kernel(5, 1.0)
    told = {"kernel": kernel, "sigma": 0.02, "extend_borders": False}
    gray = PnPRestorer(denoiser(1), "deblur", iterations=2)
    want = np.concatenate([gray(y[..., c : c + 1], **told) for c in range(3)], axis=-1)
    np.testing.assert_allclose(gray(y, **told), want, atol=1e-6)
    color = PnPRestorer(denoiser(3), "deblur", iterations=2)
    repeated = color(np.repeat(y[..., :1], 3, axis=-1), **told).mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(color(y[..., :1], **told), repeated, atol=0.02)
    averaged = color(y, **told, self_ensemble=True)
    assert np.abs(averaged - color(y, **told)).max() > 1e-3


def test_only_the_network_goes_through_tiles() -> None:
    y, kernel = photograph(50, 70), motion_kernel(21, length=19, angle=70)
    restorer = PnPRestorer(denoiser(3), "deblur", iterations=3)
    seen: list[tuple[int, int]] = []
    tiled = restorer(
        y, kernel=kernel, sigma=0.01, tile=64, overlap=16, on_tile=lambda *x: seen.append(x)
    )
    whole = restorer(y, kernel=kernel, sigma=0.01, tile=0)
    # A tile sees a reflection beyond the torus, where the whole sees the other side.
    np.testing.assert_allclose(tiled, whole, atol=0.005)
    parts = [done / of for done, of in seen]
    assert parts == sorted(parts) and parts[0] == 0 and parts[-1] == 1
    assert max(of for _, of in seen) > 3


def test_sizes_share_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = PnPRestorer(denoiser(3), "deblur", iterations=1)
    compiled: list[object] = []
    solve = module._data_step

    def counted(*arrays: Array, scale: int) -> Array:
        compiled.append(arrays)
        return solve(*arrays, scale=scale)

    monkeypatch.setattr(module, "_data_step", counted)
    kernel = gaussian_kernel(5, 1.0)
    for size in (60, 70, 97):
        x = photograph(size, size + 1)
        assert restorer(x, kernel=kernel, sigma=0.02).shape == x.shape
    assert len(compiled) == 1
    assert restorer(x, kernel=kernel, sigma=0.02, extend_borders=False).shape == x.shape
    assert len(compiled) == 2


@pytest.mark.slow
def test_a_photograph_with_a_blur_that_no_network_was_trained_for() -> None:
    kernel = motion_kernel(25, length=21, angle=35)
    whole = photograph(168, 168)
    shown = np.s_[20:-20, 20:-20]  # nothing wraps around
    rng = np.random.default_rng(0)
    y = circular_blur(whole, kernel)[shown] + rng.normal(0, 2.55 / 255, (128, 128, 3))
    y, target = y.astype(np.float32), to_uint8(whole[shown])
    restored = BundledRestorer("deblur").restorer(3)(y, kernel=kernel)  # the level is estimated
    assert psnr(to_uint8(restored), target) > psnr(to_uint8(y), target) + 6
    edges = np.ones((128, 128), bool)
    edges[12:-12, 12:-12] = False
    assert (
        np.abs(restored - whole[shown])[edges].mean() < 0.6 * np.abs(y - whole[shown])[edges].mean()
    )


def test_refused() -> None:
    untold = ModelCard("untold", "ConverseDnCNN", {"channels": 3}, "denoise", 3, sigma=25.0)
    with pytest.raises(RestoreError, match="denoiser: got untold, a network for 'denoise'; plug-a"):
        PnPRestorer(Restorer(Tiny(3), untold), "deblur")
    for task, scale, text in [
        ("deblur", 2, "scale: got 2 for 'deblur'; expected 1, as deblurring does not enlarge"),
        ("sr", 1, "scale: got 1 for 'sr'; expected at least 2"),
        ("sr", 0, "scale: got 0 for 'sr'; expected at least 2"),
    ]:
        with pytest.raises(RestoreError, match=text):
            PnPRestorer(denoiser(3), task, scale=scale)
    with pytest.raises(RestoreError, match="iterations: got 0; expected at least 1"):
        PnPRestorer(denoiser(3), "deblur", iterations=0)
    restorer, y = PnPRestorer(denoiser(3), "deblur"), photograph(16, 16)
    with pytest.raises(RestoreError, match="kernel: plug-and-play with tiny needs the blur kernel"):
        restorer(y)
    with pytest.raises(RestoreError, match="kernel: got 17x17 for an image of 16x16; expected a"):
        restorer(y, kernel=np.ones((17, 17)))
    with pytest.raises(RestoreError, match="kernel: holds NaN"):
        restorer(y, kernel=np.full((3, 3), np.nan))
    with pytest.raises(RestoreError, match=r"sigma: got -1; expected a standard deviation of at"):
        restorer(y, kernel=np.ones((3, 3)), sigma=-1)
    with pytest.raises(RestoreError, match="tile: got 7"):
        restorer(y, kernel=np.ones((3, 3)), tile=7)


def test_memory_that_is_missing_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from converse_jax import _programs

    monkeypatch.setattr(_programs, "available_memory", lambda: 10_000)
    restorer = PnPRestorer(denoiser(3), "sr", scale=2)
    with pytest.raises(RestoreError, match=r"image: 30x20 pixels need more memory than is avail"):
        restorer(photograph(20, 30))


def test_transparency_keeps_up_with_the_pixels() -> None:
    alpha = np.zeros((20, 24), np.float32)
    alpha[:, 12:] = 1
    given = Image(photograph(20, 24), alpha)
    enlarger = PnPRestorer(denoiser(3), "sr", scale=2, iterations=2)
    got = apply_to_image(enlarger, given)
    assert got.pixels.shape == (40, 48, 3) and got.alpha is not None
    np.testing.assert_allclose(got.alpha[5:-5, 4:20], 0, atol=0.15)
    np.testing.assert_allclose(got.alpha[5:-5, 28:44], 1, atol=0.15)


# The networks of a task


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"task": "deblur"}, "plug-and-play with denoise-color"),
        ({"task": "deblur", "solver": "network"}, "deblur"),
        ({"task": "sr"}, "sr-x2"),
        ({"task": "sr", "scale": 3}, "plug-and-play with denoise-color"),
        ({"task": "sr", "scale": 4}, "sr-x4"),
        ({"task": "sr", "scale": 4, "solver": "pnp"}, "plug-and-play with denoise-color"),
    ],
)
def test_what_restores_better(arguments: dict, name: str) -> None:
    restorer = BundledRestorer(**arguments).restorer(3)
    assert restorer.card.name == name
    assert restorer.card.scale == arguments.get("scale", 2 if arguments["task"] == "sr" else 1)


def test_gray_images_have_a_denoiser_of_their_own() -> None:
    restorer = BundledRestorer("deblur").restorer(1)
    assert restorer.card.name == "plug-and-play with denoise-gray" and restorer.card.channels == 1


def test_no_network_for_a_scale() -> None:
    for arguments, text in [
        ({"task": "sr", "scale": 3, "solver": "network"}, "there is no bundled network sr-x3"),
        ({"task": "sr", "scale": 0}, "scale: got 0; expected an integer of at least 2"),
        ({"task": "sr", "solver": "adam"}, "solver: got 'adam'; expected network, pnp"),
        ({"task": "photo", "solver": "pnp"}, "solver: task 'photo' has its own network"),
    ]:
        with pytest.raises(RestoreError, match=text):
            BundledRestorer(**arguments)


# The command


@pytest.fixture
def blurred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photograph and its blurred and its small image."""
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)
    clean = photograph(96, 88)
    noise = np.random.default_rng(0).normal(0, 2.55 / 255, clean.shape).astype(np.float32)
    blurred = circular_blur(clean, motion_kernel(15, length=13, angle=30)) + noise
    for name, x in {
        "clean": clean,
        "blurred": blurred,
        "small": resize(clean, (32, 29 + 1)),
    }.items():
        write_image(tmp_path / f"{name}.png", Image(np.clip(x, 0, 1)))
    return tmp_path


@pytest.mark.slow
def test_the_command_deblurs_with_any_kernel(
    blurred: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = blurred / "blurred.png", blurred / "out.png"
    command = ["restore", str(given), str(out), "--task", "deblur", "--kernel", "motion:13:30"]
    assert cli.main([*command, "--no-extend-borders"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "restored by plug-and-play with denoise-color"
    assert lines[1].startswith("noise of ") and lines[1].endswith(" (of 255), estimated")
    before, after, clean = (
        to_uint8(read_image(blurred / f"{n}.png").pixels) for n in ("blurred", "out", "clean")
    )
    assert psnr(after, clean) > psnr(before, clean) + 5
    again = restore_image(before, task="deblur", kernel="motion:13:30", extend_borders=False)
    assert again.dtype == np.uint8
    assert np.abs(again.astype(int) - after).max() <= 1


@pytest.mark.slow
def test_the_command_enlarges_by_three(blurred: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, out = str(blurred / "small.png"), str(blurred / "out.png")
    assert cli.main(["restore", given, out, "--task", "sr", "--scale", "3"]) == 0
    assert capsys.readouterr().err.startswith("restored by plug-and-play with denoise-color\n")
    assert read_image(out).pixels.shape == (96, 90, 3)


@pytest.mark.slow
def test_the_command_plugs_a_network_of_the_users_in(
    blurred: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = str(blurred / "small.png"), str(blurred / "out.png")
    pnp_of = ["restore", given, out, "--model", "denoise-gray", "--solver", "pnp"]
    assert cli.main([*pnp_of, "--task", "sr", "--scale", "2", "--sigma", "1"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "restored by plug-and-play with denoise-gray",
        "plug-and-play with denoise-gray is a model of gray images: each channel is restored alone",
        "noise of 1.0 (of 255), given",
    ]
    for arguments, text in [
        (pnp_of, "--solver pnp with --model needs --task deblur or --task sr"),
        ([*pnp_of, "--task", "deblur", "--scale", "2"], "--scale is for --task sr, got --task deb"),
        ([*pnp_of, "--task", "deblur"], "plug-and-play with denoise-gray needs the blur kernel"),
        ([*pnp_of[:3], "--model", "sr-x2", *pnp_of[5:], "--task", "sr"], "denoiser: got sr-x2, a"),
    ]:
        assert cli.main([*arguments, "--overwrite"]) == 2
        assert text in capsys.readouterr().err


@pytest.mark.slow
def test_evaluation(blurred: Path) -> None:
    kernel = motion_kernel(15, length=13, angle=30)
    clean = blurred / "clean.png"
    denoise = Restorer(*load("denoise-color"))
    report = evaluate(PnPRestorer(denoise, "deblur"), clean, kernel=kernel)
    assert report["task"] == "deblur" and report["sigma"] == 2.55
    assert report["mean"]["psnr"] > 28
    enlarger = PnPRestorer(denoise, "sr", scale=3)
    bicubic = evaluate(enlarger, clean)["mean"]["psnr_y"]
    wide = evaluate(enlarger, clean, kernel=gaussian_kernel(13, 1.6))["mean"]["psnr_y"]
    noisy = evaluate(enlarger, clean, kernel=gaussian_kernel(13, 1.6), sigma=25)["mean"]["psnr_y"]
    assert bicubic > 25 and wide > 25 and 15 < noisy < wide - 1
