"""The evaluation protocol, against its steps one after the other and the published figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

from converse_jax import ModelCard, load
from converse_jax._report import METRICS, write_report
from converse_jax.evaluate import evaluate
from converse_jax.imaging import (
    Image,
    ImageError,
    degrade_deblur,
    degrade_denoise,
    degrade_sr,
    motion_kernel,
    read_image,
    score,
    to_uint8,
    write_image,
)
from converse_jax.restore import RestoreError, Restorer
from tests.test_restore import Blind, Deblur, Enlarge

KERNEL = motion_kernel(5, length=3, angle=25)


def restorer(model: nnx.Module, task: str, channels: int = 1, scale: int = 1) -> Restorer:
    card = ModelCard("small", "Small", {}, task, channels, scale=scale, sha256="5a")
    return Restorer(model, card)


def write(folder: Path, name: str, *shape: int, seed: int = 0, **more: Any) -> np.ndarray:
    clean = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_image(folder / name, Image(clean.astype(np.float32) / np.float32(255), **more))
    return clean


def test_denoising(tmp_path: Path) -> None:
    small = restorer(Enlarge(gain=0.9), "denoise")
    clean = {"b.png": write(tmp_path, "b.png", 16, 20, 1)}
    clean["a/c.png"] = write(tmp_path, "a/c.png", 16, 20, 1, seed=1)
    rows = []
    report = evaluate(small, tmp_path, task="denoise", on_result=lambda *row: rows.append(row))
    assert [(number, total) for _, number, total in rows] == [(1, 2), (2, 2)]
    assert report["images"] == [row for row, _, _ in rows]
    assert [row["name"] for row in report["images"]] == ["a/c.png", "b.png"]
    for row in report["images"]:
        noisy, target = degrade_denoise(clean[row["name"]], sigma=25)
        want = score(to_uint8(small(noisy)), target, task="denoise")
        assert row == {"name": row["name"], **want}
    for metric in METRICS:
        mean = sum(row[metric] for row in report["images"]) / 2  # type: ignore[literal-required]
        assert report["mean"][metric] == pytest.approx(mean)  # type: ignore[literal-required]
    about = {key: report[key] for key in ("model", "architecture", "sha256", "task", "sigma")}
    assert about == {
        "model": "small",
        "architecture": "Small",
        "sha256": "5a",
        "task": "denoise",
        "sigma": 25.0,
    }
    assert (report["scale"], report["kernel"], report["data"]) == (1, None, str(tmp_path))
    assert report["notes"] == []
    assert set(report["versions"]) == {"converse-jax", "jax", "jaxlib", "flax", "numpy"}
    louder = evaluate(small, tmp_path / "b.png", task="denoise", sigma=50)
    assert [row["name"] for row in louder["images"]] == ["b.png"]
    assert louder["sigma"] == 50 and louder["mean"]["psnr"] < report["images"][1]["psnr"]


def test_super_resolution(tmp_path: Path) -> None:
    clean = write(tmp_path, "a.png", 40, 39, 3)
    small = restorer(Enlarge(3), "sr", 3, 3)
    report = evaluate(small, tmp_path, task="sr")
    low, target = degrade_sr(clean, scale=3)
    want = score(to_uint8(low.repeat(3, 0).repeat(3, 1)), target, task="sr", scale=3)
    assert report["images"] == [{"name": "a.png", **want}]
    assert report["sigma"] is None and report["scale"] == 3


@pytest.mark.parametrize("blind", [True, False])
def test_deblurring_is_circular(tmp_path: Path, blind: bool) -> None:
    clean = write(tmp_path, "a.png", 27, 24, 3)
    small = restorer(Blind(KERNEL) if blind else Deblur(7), "deblur", 1)
    report = evaluate(small, tmp_path / "a.png", task="deblur", kernel=2 * KERNEL)
    gray = to_uint8(clean / 255 @ np.array([[0.299], [0.587], [0.114]]))
    low, target = degrade_deblur(gray, KERNEL, sigma=2.55)
    options: dict[str, Any] = {} if blind else {"kernel": KERNEL}
    as_it_is = small(low, extend_borders=False, **options)
    assert report["images"][0] == {
        "name": "a.png",
        **score(to_uint8(as_it_is), target, task="deblur"),
    }
    assert report["sigma"] == 2.55
    np.testing.assert_allclose(report["kernel"], KERNEL, rtol=1e-12)
    notes = [] if blind else ["the kernel of 5x5 was padded with zeros to 7x7"]
    color = "color images were converted to gray, as the model is gray"
    assert report["notes"] == [*notes, color]


def test_pairs_that_are_there_already(tmp_path: Path) -> None:
    write(tmp_path / "hr", "a.png", 41, 36, 3)  # one row is no multiple of the scale
    write(tmp_path / "hr", "sub/b.tif", 40, 36, 3, seed=1, bits=16)
    low = {"a": write(tmp_path / "lr", "ax4.png", 10, 9, 3)}
    low["sub/b"] = write(tmp_path / "lr", "sub/b.png", 10, 9, 3, seed=1)
    small = restorer(Enlarge(4, gain=0.9), "sr", 3, 4)
    report = evaluate(small, tmp_path / "hr", input=tmp_path / "lr")
    assert [row["name"] for row in report["images"]] == ["a.png", "sub/b.tif"]
    for row in report["images"]:
        clean = to_uint8(read_image(tmp_path / "hr" / row["name"]).pixels)[:40]
        given = low[row["name"].split(".")[0]] / np.float32(255)
        assert row == {"name": row["name"], **score(to_uint8(small(given)), clean, task="sr")}
    assert (report["input"], report["sigma"]) == (str(tmp_path / "lr"), None)
    one = evaluate(small, tmp_path / "hr" / "a.png", input=tmp_path / "lr" / "ax4.png")
    assert one["images"] == report["images"][:1]
    write(tmp_path, "other.png", 39, 36, 3)
    with pytest.raises(ImageError, match=r"ax4\.png: got 9x10; expected 9x9, as the original is"):
        evaluate(small, tmp_path / "other.png", input=tmp_path / "lr" / "ax4.png")
    with pytest.raises(ImageError, match=r"ax4\.png: is a file, but .*hr is a folder; give two im"):
        evaluate(small, tmp_path / "hr", input=tmp_path / "lr" / "ax4.png")
    with pytest.raises(ImageError, match="none: there is no such file or folder"):
        evaluate(small, tmp_path / "hr", input=tmp_path / "none")
    with pytest.raises(RestoreError, match="sigma: small is told none, and to pairs none is added"):
        evaluate(small, tmp_path / "hr", input=tmp_path / "lr", sigma=5)


@pytest.mark.parametrize("extend", [True, False])
def test_pairs_of_a_blur(tmp_path: Path, extend: bool) -> None:
    clean = write(tmp_path, "sharp.png", 24, 24, 3)
    blurred = write(tmp_path, "blurred.png", 24, 24, 1, seed=1)
    small = restorer(Deblur(7), "deblur", 1)
    images = {"data": tmp_path / "sharp.png", "input": tmp_path / "blurred.png"}
    report = evaluate(small, **images, kernel=KERNEL, extend_borders=extend)
    want = small(blurred / np.float32(255), kernel=KERNEL, extend_borders=extend)
    gray = to_uint8(clean / 255 @ np.array([[0.299], [0.587], [0.114]]))
    assert report["images"] == [{"name": "sharp.png", **score(to_uint8(want), gray, task="deblur")}]
    with pytest.raises(RestoreError, match="needs the blur kernel; give one"):
        evaluate(small, **images)
    with pytest.raises(RestoreError, match="takes none; leave it out"):
        evaluate(restorer(Blind(KERNEL), "deblur", 1), **images, kernel=KERNEL)


def test_a_damaged_image_does_not_end_it(tmp_path: Path) -> None:
    small = restorer(Enlarge(gain=0.9), "denoise")
    for i, name in enumerate(("a.png", "c.png", "e.png")):
        write(tmp_path, name, 16, 20, 1, seed=i)
    whole = evaluate(small, tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    write(tmp_path, "d.png", 9, 30, 1)
    seen: list[Any] = []
    report = evaluate(small, tmp_path, on_result=lambda *result: seen.append(result))
    assert report["images"] == whole["images"] and report["mean"] == whole["mean"]
    assert [row["name"] for row in report["failed"]] == ["b.png", "d.png"]
    assert report["failed"][0]["reason"].startswith(
        f"{tmp_path / 'b.png'}: the PNG file is damaged"
    )
    assert "d.png: a, b: 9x30 pixels" in report["failed"][1]["reason"]
    assert [(row["name"], i, n) for row, i, n in seen] == [
        *(("a.png", 1, 5), ("b.png", 2, 5), ("c.png", 3, 5), ("d.png", 4, 5), ("e.png", 5, 5)),
    ]
    few = evaluate(small, tmp_path, limit=3)
    assert few["images"] == whole["images"][:2] and len(few["failed"]) == 1
    for name in ("a.png", "c.png", "e.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(RestoreError, match="none of its 5 images could be measured"):
        evaluate(small, tmp_path)


def test_gray_images_for_a_color_model(tmp_path: Path) -> None:
    clean = write(tmp_path, "a.png", 16, 16, 1)
    report = evaluate(restorer(Enlarge(), "denoise", 3), tmp_path, task="denoise")
    noisy, target = degrade_denoise(np.repeat(clean, 3, -1))
    want = score(to_uint8(noisy), target, task="denoise")
    assert report["images"] == [{"name": "a.png", **want}]
    assert report["notes"] == ["gray images were given to the model as three equal channels"]


def test_16_bit_images_are_measured_in_8(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Image(np.full((16, 16, 1), 0.5005, np.float32), bits=16))
    report = evaluate(restorer(Enlarge(), "denoise"), tmp_path, task="denoise", sigma=0)
    assert report["mean"]["psnr"] == math.inf  # 127.63 and 127.63, both 128


def test_refusals(tmp_path: Path) -> None:
    write(tmp_path, "a.png", 16, 16, 1)
    write(tmp_path / "tiny", "b.png", 9, 30, 1)
    (tmp_path / "empty").mkdir()
    denoiser, enlarger = restorer(Enlarge(), "denoise"), restorer(Enlarge(2), "sr", 1, 2)
    deblurrer = restorer(Deblur(7), "deblur")
    cases: list[tuple[Restorer, str, dict[str, Any], str]] = [
        (
            *(denoiser, ".", {"task": "sr"}),
            r"task: got 'sr', but small \(Small\) is a model for 'denoise'; give --task denoise",
        ),
        (enlarger, ".", {"task": "sr", "sigma": 5}, "sigma: the protocol of 'sr' adds no noise"),
        (deblurrer, ".", {"task": "deblur"}, "kernel: task 'deblur' blurs the images first"),
        (
            *(denoiser, ".", {"task": "denoise", "kernel": KERNEL}),
            "kernel: task 'denoise' blurs nothing; leave it out",
        ),
        (
            *(deblurrer, ".", {"task": "deblur", "kernel": np.ones((9, 9))}),
            r"kernel: got 9x9, small \(Small\) takes at most 7x7",
        ),
        (denoiser, ".", {"task": "denoise", "sigma": -1}, "^sigma: got -1; expected a standard"),
        (denoiser, "tiny", {"task": "denoise"}, "b.png: a, b: 9x30 pixels .* at least 11x11"),
        (denoiser, "empty", {"task": "denoise"}, "empty: holds no images"),
    ]
    for small, data, options, text in cases:
        with pytest.raises(RestoreError, match=text):
            evaluate(small, tmp_path / data, **options)
    with pytest.raises(ImageError, match="none: there is no such file"):
        evaluate(denoiser, tmp_path / "none", task="denoise")


def test_the_report_is_json(tmp_path: Path) -> None:
    write(tmp_path, "a.png", 16, 16, 1)
    report = evaluate(restorer(Enlarge(), "denoise"), tmp_path, task="denoise", sigma=0)
    path = tmp_path / "out.json"
    write_report(path, report)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read["mean"]["psnr"] is None and read["images"][0]["psnr_y"] is None  # infinite
    assert read["mean"]["ssim"] == pytest.approx(1) and read["images"][0]["name"] == "a.png"
    assert {k: v for k, v in read.items() if k not in ("mean", "images")} == {
        k: v for k, v in report.items() if k not in ("mean", "images")
    }
    with pytest.raises(RestoreError, match=r"out\.json: exists already; name another file"):
        write_report(path, report)
    write_report(path, {**report, "model": "other"}, overwrite=True)
    assert json.loads(path.read_text())["model"] == "other"
    with pytest.raises(RestoreError, match="there is no folder"):
        write_report(tmp_path / "no" / "out.json", report)
    with pytest.raises(RestoreError, match="is a folder; name a file in it"):
        write_report(tmp_path, report, overwrite=True)


def test_an_interrupted_report_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", "a.png", 16, 16, 1)
    report = evaluate(restorer(Enlarge(), "denoise"), tmp_path / "in", task="denoise")
    (tmp_path / "out.json").write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(RestoreError, match=r"cannot be written \(No space left on device\)"):
        write_report(tmp_path / "out.json", report, overwrite=True)
    assert (tmp_path / "out.json").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.json"]


# The authors' figures: one or two small images each

PUBLISHED = [
    ("converse_dncnn", "Set12/01.png", "denoise", None, "psnr"),
    ("converse_srresnet", "Set5/img_003_SRF_4_HR.png", "sr", None, "psnr_y"),
    ("converse_usrnet", "Set5/img_003_SRF_4_HR.png", "deblur", 3, "psnr"),
    ("conversenet", "Set5/img_003_SRF_4_HR.png", "deblur", 3, "psnr"),
]


@pytest.mark.parity
@pytest.mark.parametrize(("weights", "name", "task", "kernel", "metric"), PUBLISHED)
def test_released_weights(
    shared: Path, weights: str, name: str, task: Any, kernel: int | None, metric: str
) -> None:
    (want,) = (
        row["psnr"][Path(name).name]
        for row in json.loads((shared / "golden" / "psnr_released.json").read_text())
        if (row["weights"], row.get("kernel"), row["metric"]) == (f"{weights}.pth", kernel, metric)
    )
    report = evaluate(
        Restorer(*load(shared / "weights" / f"{weights}.pth")),
        shared / "data" / name,
        task=task,
        kernel=None if kernel is None else np.load(shared / "kernels" / f"kernel_{kernel}.npy"),
    )
    assert report["images"][0][metric] == pytest.approx(want, abs=0.01)  # type: ignore[literal-required]
    assert read_image(shared / "data" / name).bits == 8
