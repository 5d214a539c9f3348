"""The page's own arithmetic, run by Node: equal to the library's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converse_jax import tiles
from converse_jax.demo import read_photograph
from converse_jax.imaging import estimate_noise

pytestmark = pytest.mark.slow

WEB = Path(__file__).parents[2] / "web"


def run(module: str, code: str, data: Any) -> Any:
    """What a function of a module returns, by JSON."""
    if (node := shutil.which("node")) is None:
        pytest.skip("Node is not installed")
    program = (
        f'import * as it from "{(WEB / module).as_uri()}";'
        'import { readFileSync } from "node:fs";'
        f"const data = JSON.parse(readFileSync(0)); console.log(JSON.stringify({code}));"
    )
    command = [node, "--input-type=module", "-e", program]
    result = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


CASES = [
    {"length": length, "tile": tile, "overlap": overlap, "scale": scale, "align": align}
    | {"outside": outside, "beyond": beyond}
    for length, tile, overlap, scale, align, outside, beyond in [
        (1, 8, 2, 1, 1, 0, "reflect"),
        (7, 16, 4, 1, 2, 3, "reflect"),
        (64, 64, 16, 1, 2, 8, "reflect"),
        (65, 64, 16, 1, 2, 8, "reflect"),
        (201, 64, 24, 1, 2, 12, "reflect"),
        (100, 32, 8, 2, 1, 0, "replicate"),
        (129, 32, 8, 4, 1, 0, "replicate"),
        (33, 32, 0, 2, 1, 0, "replicate"),
    ]
]


def test_tiles() -> None:
    ours = run(
        "tiles.js",
        "data.map(c => it.axisParts(c.length, c).map(p => [p.begin, p.end, p.offset,"
        " [...p.pixels], [...p.weight]]))",
        CASES,
    )
    for case, parts in zip(CASES, ours, strict=True):
        length, tile, overlap = case["length"], case["tile"], case["overlap"]
        starts = tiles.tile_starts(length, tile, overlap, case["align"], outside=case["outside"])
        expected = tiles._axis(starts, length, tile, overlap, case["scale"], case["beyond"])
        assert len(parts) == len(expected)
        for (begin, end, offset, pixels, weight), part in zip(parts, expected, strict=True):
            assert (begin, end) == (part.into.start, part.into.stop)
            assert offset == part.inside.start
            np.testing.assert_array_equal(pixels, part.pixels)
            np.testing.assert_allclose(weight, part.weight, rtol=1e-6, atol=1e-7)


def test_tiles_of_an_identity_are_the_image() -> None:
    """Rows of tiles are finished one after the other, without a seam."""
    rng = np.random.default_rng(0)
    height, width = 83, 57
    values = rng.integers(0, 256, (height, width, 4))
    plan = {"tile": 24, "overlap": 8, "scale": 1, "align": 2, "outside": 4, "beyond": "reflect"}
    result = run(
        "tiles.js",
        "await (async () => { const out = data.data.slice();"
        "await it.inTiles((x) => x, data, [0, 2], data.plan,"
        "(c, i, v) => out[4 * i + [0, 2][c]] = 255 * v); return out; })()",
        {"width": width, "height": height, "data": values.ravel().tolist(), "plan": plan},
    )
    np.testing.assert_allclose(result, values.ravel(), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [0, 5, 40])
@pytest.mark.parametrize("size", [(7, 90), (24, 31), (300, 400)])
def test_noise(channels: int, sigma: float, size: tuple[int, int]) -> None:
    image = read_photograph("chelsea")[: size[0], : size[1], :channels]
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    levels = np.clip(np.rint(255 * image + noise), 0, 255)
    data = np.zeros((*size, 4))
    data[..., :channels] = levels
    ours = run(
        "noise.js",
        f"it.estimateNoise(data, {list(range(channels))})",
        {"width": size[1], "height": size[0], "data": data.astype(int).ravel().tolist()},
    )
    expected = estimate_noise((levels / 255).astype(np.float32))
    assert ours == pytest.approx(expected, rel=1e-4, abs=1e-6)
