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
from converse_jax.evaluate import METRICS, evaluate, write_report
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
    assert report["notes"] == ["color images were converted to gray, as the model is gray"]


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
        (
            *(deblurrer, ".", {"task": "deblur", "kernel": np.array([[2.0, -1.0]])}),
            "a.png: kernel: got taps from -1, sum 1; expected a blur kernel",
        ),
        (denoiser, ".", {"task": "denoise", "sigma": -1}, "a.png: sigma: got -1"),
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
