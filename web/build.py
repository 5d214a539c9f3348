"""Put the page together in `web/dist`: `python -m web.build`, after `npm ci` in `web`."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converse_jax import export_onnx, load
from converse_jax._tiling import TILE, Tiling, align_of, overlap_of
from converse_jax.demo import CREDITS, read_photograph
from converse_jax.imaging import Image, write_image

HERE = Path(__file__).parent
DIST = HERE / "dist"
RUNTIME = HERE / "node_modules" / "onnxruntime-web"

PAGE = ("index.html", "style.css", "app.js", "worker.js", "tiles.js", "noise.js", "sw.js")
# Of ONNX Runtime: WebAssembly alone, and with WebGPU, which is loaded where there is a GPU.
WASM = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)

TASKS: Mapping[str, tuple[str, ...]] = {
    "photo": ("photo",),
    "denoise": ("denoise-color", "denoise-gray"),
    "sr-x2": ("sr-x2",),
    "sr-x4": ("sr-x4",),
}
"""The networks of each choice of the page; a second one is for gray images."""

EXAMPLE, EXAMPLE_SIGMA = "chelsea", 25 / 255


def build(dist: Path = DIST) -> None:
    """Make the folder anew, with everything that the page needs.

    Raises:
        FileNotFoundError: ONNX Runtime was not installed.
    """
    if not (RUNTIME / "package.json").exists():
        raise FileNotFoundError(f"{RUNTIME}: is missing; run npm ci in {HERE}")
    shutil.rmtree(dist, ignore_errors=True)
    (dist / "ort").mkdir(parents=True)
    for name in PAGE:
        shutil.copy(HERE / name, dist / name)
    for name in (*WASM, *WEBGPU):
        shutil.copy(RUNTIME / "dist" / name, dist / "ort" / name)
    tasks = {task: _networks(names, dist) for task, names in TASKS.items()}
    (dist / "networks.json").write_text(json.dumps({"tasks": tasks}, indent=1))
    _write_example(dist / "example.png")
    licenses = (HERE / "LICENSES.txt").read_text(encoding="utf-8")
    (dist / "LICENSES.txt").write_text(
        licenses + f"\nexample.png: {CREDITS[EXAMPLE]}, noise added\n"
    )
    _write_list(dist)


def _networks(names: tuple[str, ...], dist: Path) -> dict[str, Any]:
    color, *gray = (_network(name, dist) for name in names)
    if gray:
        color["gray"] = gray[0]
    return color


def _network(name: str, dist: Path) -> dict[str, Any]:
    """Export a network, and say how the page has to use it."""
    model, card = load(name)
    tiling = Tiling.of(model, card)
    overlap = overlap_of(card)
    export_onnx(model, card, dist / f"{name}.onnx")
    return {
        "name": name,
        "file": f"{name}.onnx",
        "channels": card.channels,
        "takesSigma": card.needs_sigma,
        "estimateShare": card.estimate_share,
        "maxSigma": card.sigma_range[1] if card.sigma_range else None,
        "keepsAlpha": card.needs_sigma and card.task == "denoise",
        "plan": {
            # Maps at the size of the result are what fills the memory.
            "tile": TILE // card.scale,
            "overlap": overlap,
            "scale": card.scale,
            "align": align_of(card),
            "outside": -(-overlap // 2) if tiling.outside else 0,
            "beyond": tiling.padding_mode,
        },
    }


def _write_example(path: Path) -> None:
    image = read_photograph(EXAMPLE)
    noise = np.random.default_rng(0).normal(0, EXAMPLE_SIGMA, image.shape).astype(np.float32)
    write_image(path, Image(np.clip(image + noise, 0, 1)))


def _write_list(dist: Path) -> None:
    """What the service worker keeps; WebGPU's runtime it keeps when it is used."""
    files = sorted(path.relative_to(dist).as_posix() for path in dist.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode() + b"\0" + (dist / name).read_bytes())
    kept = [name for name in files if name not in {"sw.js", *(f"ort/{name}" for name in WEBGPU)}]
    build = {"id": digest.hexdigest()[:16], "files": ["./", *kept]}
    (dist / "files.js").write_text(f"const BUILD = {json.dumps(build)};\n")


if __name__ == "__main__":
    try:
        build()
    except FileNotFoundError as error:
        sys.exit(f"web.build: error: {error}")
    size = sum(path.stat().st_size for path in DIST.rglob("*") if path.is_file())
    print(f"{DIST}: {size / 1e6:.0f} MB")
