"""Figure 2 of the paper: Y, K, X*, X* (*) K and what is left, of a block on real features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.errors import TrainError
from train.panel_figure import Network


@dataclass(frozen=True)
class Solution:
    """What a reverse convolution made of one channel.

    Attributes:
        given: Y, `[H, W]`.
        kernel: K, `[kh, kw]`.
        result: X*, `[H, W]`.
        explained: X* (*) K, `[H, W]`.
        left: the norm of Y - X* (*) K over that of Y, in the padded domain that was solved.
    """

    given: np.ndarray
    kernel: np.ndarray
    result: np.ndarray
    explained: np.ndarray
    left: float


def solutions(layer: Any, y: Any, channels: Sequence[int]) -> list[Solution]:
    """Solve a layer's equation for maps, and measure what is left of them.

    The layer pads, solves, and crops; what its result explains is compared where it was solved.

    Args:
        layer: a `Converse2D` of scale 1.
        y: its input, `[H, W, C]`.
        channels: numbers of the maps to return.
    """
    import jax.numpy as jnp

    from converse_jax.ops import blur_downsample, converse2d
    from converse_jax.ops._pad import pad_map

    p = layer.padding
    padded = pad_map(y, p, layer.padding_mode, axis=0)
    x = converse2d(padded, layer.kernel[...], layer.lam, x0=layer.x0)
    explained = blur_downsample(x, layer.kernel[...])
    inside = (slice(p, p + y.shape[0]), slice(p, p + y.shape[1]))
    found = []
    for c in channels:
        size = float(jnp.linalg.norm(padded[..., c]))
        error = float(jnp.linalg.norm(padded[..., c] - explained[..., c]))
        given, result, explains = (np.asarray(m[..., c][inside]) for m in (padded, x, explained))
        kernel = np.asarray(layer.kernel[...])[..., c]
        found.append(Solution(given, kernel, result, explains, error / size if size else 0.0))
    return found


def recorded_input(model: Any, block: Any, run: Callable[[], Any]) -> Any:
    """What the spatial operator of a block is called with while `run` runs the network."""
    from flax import nnx

    class Recorder(nnx.Module):
        def __init__(self, layer: Any) -> None:
            self.layer, self.seen = layer, nnx.data(None)

        def __call__(self, x: Any) -> Any:
            self.seen = x
            return self.layer(x)

    layer = block.spatial
    block.spatial = recorder = Recorder(layer)
    try:
        run()
    finally:
        block.spatial = layer
    return recorder.seen


def draw_block(
    network: Network,
    clean: np.ndarray,
    *,
    name: str,
    number: int | None = None,
    channels: Sequence[int] | None = None,
) -> Any:
    """Draw what a block's reverse convolution makes of a clean image, a line for each map.

    Args:
        network: a denoiser of Converse blocks.
        clean: uint8 `[H, W, C]`.
        name: the image's, for the title.
        number: of the block, from 1; None is the middle one.
        channels: the maps, from 0; None is the three of highest contrast.

    Returns:
        A matplotlib figure.

    Raises:
        TrainError: the network has no such block or channel.
    """
    import jax.numpy as jnp
    from flax import nnx
    from matplotlib import pyplot as plt

    from converse_jax.nn import Block, Converse2D

    label, model, card = network
    blocks = [
        module
        for _, module in nnx.iter_modules(model)
        if isinstance(module, Block) and isinstance(module.spatial, Converse2D)
    ]
    if not blocks:
        raise TrainError(f"--weights: {label} has no Converse blocks, which figure 2 shows")
    number = len(blocks) // 2 + 1 if number is None else number
    if not 1 <= number <= len(blocks):
        raise TrainError(f"--block: got {number}; expected 1 to {len(blocks)}")
    block = blocks[number - 1]
    x = jnp.asarray(clean / 255, jnp.float32)
    level = (0.0,) if card.needs_sigma else ()
    y = recorded_input(model, block, lambda: model(x, *level))
    if channels is None:
        channels = sorted(map(int, np.argsort(np.std(np.asarray(y), axis=(0, 1)))[-3:]))
    if not all(0 <= c < y.shape[-1] for c in channels):
        raise TrainError(f"--channels: got {list(channels)}; expected 0 to {y.shape[-1] - 1}")
    found = solutions(block.spatial, y, channels)
    titles = ["Y", "K", "X*", "X* ⊛ K", "Y - X* ⊛ K"]
    figure, axes = plt.subplots(
        len(found), 5, figsize=(11, 2.35 * len(found) + 0.5), squeeze=False, layout="constrained"
    )
    for line, one, channel in zip(axes, found, channels, strict=True):
        error = one.given - one.explained
        shown = (one.given, one.kernel, one.result, one.explained, error)
        for axis, title, pixels in zip(line, titles, shown, strict=True):
            limit = float(np.abs(pixels).max()) or 1.0
            # The map and what explains it on one scale; signed maps around gray or white.
            low, high = one.given.min(), one.given.max()
            how: dict[str, Any] = {"cmap": "gray"}
            if pixels is one.given or pixels is one.explained:
                how |= {"vmin": low, "vmax": high}
            if pixels is error:
                how |= {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            drawn = axis.imshow(pixels, interpolation="nearest", **how)
            axis.set_axis_off()
            if axis in axes[0]:
                axis.set_title(title)
            if pixels is error:
                figure.colorbar(drawn, ax=axis, shrink=0.8)
        line[0].text(
            -0.04, 0.5, f"channel {channel}", rotation=90, va="center", ha="right",
            transform=line[0].transAxes,
        )  # fmt: skip
        line[4].text(
            0.5, -0.03, f"|Y - X* ⊛ K| = {100 * one.left:.2g} % of |Y|", ha="center", va="top",
            fontsize="small", transform=line[4].transAxes,
        )  # fmt: skip
    figure.suptitle(f"{label}, block {number} of {len(blocks)}: {name}")
    return figure
