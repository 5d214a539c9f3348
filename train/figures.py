r"""`python -m train.figures`: figures 2, 4, 5 and 6 of the paper, from any weights.

  python -m train.figures 2 --weights converse_dncnn.pth --image Set12/05.png
  python -m train.figures 4 --weights converse_dncnn.pth dncnn.safetensors --image Set12/05.png
  python -m train.figures 5 --weights converse_srresnet.pth --image Set5/bird.png
  python -m train.figures 6 --weights converse_usrnet.pth Ours=deblur conversenet.pth \
      --image building.png --kernel kernel_1.npy

2: maps Y of a block, its kernels K, the results X* of the reverse convolution, what they explain,
X* (*) K, and what is left. 4: noise that rises from 0 at the left to 50 at the right. 5:
super-resolution. 6: deblurring. Weights are files or names that `converse_jax.load` takes, each
with a LABEL= if wished. Writes OUT.png and OUT.pdf.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from train.command import exit_status
from train.errors import TrainError

TASKS = {2: None, 4: "denoise", 5: "sr", 6: "deblur"}
MAX_SIGMA = 50.0
"""Standard deviation of figure 4's noise at the right border, in 8-bit levels."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return exit_status(
        "train.figures",
        lambda: _run(_parser().parse_args(argv)),
        interrupted="interrupted; nothing was written",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("figure", type=int, choices=list(TASKS), help="number of the figure in the paper")
    add("--weights", nargs="+", required=True, metavar="[LABEL=]FILE", help="networks to show")
    add("--image", required=True, metavar="FILE", help="clean image")
    add("--kernel", metavar="FILE", help="blur of figure 6")
    add("--block", type=int, metavar="N", help="block of figure 2, from 1 (default: the middle)")
    add(
        "--channels",
        type=int,
        nargs="+",
        metavar="N",
        help="channels of figure 2, from 0 (default: the three of highest contrast)",
    )
    add(
        "--detail",
        type=int,
        nargs=3,
        metavar=("ROW", "COLUMN", "SIDE"),
        help="square that is magnified (default: the busiest)",
    )
    add("--out", type=Path, help="files to write, without a suffix (default: runs/figures/figureN)")
    add("--overwrite", action="store_true", help="replace existing files")
    return parser


def _run(args: argparse.Namespace) -> int:
    from converse_jax.atomic import write_bytes
    from converse_jax.imaging import ImageError
    from converse_jax.messages import exists_already
    from converse_jax.restore import RestoreError
    from converse_jax.weights import WeightsError

    out = args.out or Path(f"runs/figures/figure{args.figure}")
    files = [out.with_name(out.name + suffix) for suffix in (".png", ".pdf")]
    if not args.overwrite:
        for file in files:
            if file.exists():
                raise TrainError(exists_already(file))
    _check_options(args)
    try:
        figure = _block_figure(args) if args.figure == 2 else _panel_figure(args)
    except (ImageError, RestoreError, WeightsError) as error:
        raise TrainError(str(error)) from None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for file in files:
            drawn = io.BytesIO()
            # Without a date the same figure is the same file.
            fixed = {"CreationDate": None} if file.suffix == ".pdf" else None
            figure.savefig(drawn, format=file.suffix[1:], dpi=200, metadata=fixed)
            write_bytes(file, drawn.getvalue(), overwrite=args.overwrite)
    except OSError as error:
        raise TrainError(f"{out}: cannot be written ({error.strerror})") from None
    print(f"{files[0]}, {files[1]}")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Options that would be ignored, or are missing."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
    for name, figure in (("kernel", 6), ("block", 2), ("channels", 2)):
        if getattr(args, name) is not None and args.figure != figure:
            raise TrainError(f"--{name}: belongs to figure {figure}; leave it out")
    if args.figure == 2 and args.detail is not None:
        raise TrainError("--detail: belongs to figures 4, 5 and 6; leave it out")
    if args.figure == 2 and len(args.weights) > 1:
        raise TrainError(f"--weights: got {len(args.weights)} files; figure 2 shows one network")
    if args.figure == 6 and args.kernel is None:
        raise TrainError("--kernel: figure 6 blurs the image; give the kernel")


def _loaded(text: str) -> tuple[str, Any, Any]:
    """Label, network and card of "[LABEL=]FILE"."""
    from converse_jax import load

    label, equals, file = text.rpartition("=")
    model, card = load(file)
    return label if equals else card.architecture, model, card


# --------------------------------------------------------------------------------------- figure 2


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


def _block_figure(args: argparse.Namespace) -> Any:
    import jax.numpy as jnp
    from flax import nnx
    from matplotlib import pyplot as plt

    from converse_jax.nn import Block, Converse2D

    label, model, card = _loaded(args.weights[0])
    blocks = [
        module
        for _, module in nnx.iter_modules(model)
        if isinstance(module, Block) and isinstance(module.spatial, Converse2D)
    ]
    if not blocks or card.task != "denoise":
        raise TrainError(f"--weights: {label} is no denoiser of Converse blocks, as figure 2 shows")
    number = len(blocks) // 2 + 1 if args.block is None else args.block
    if not 1 <= number <= len(blocks):
        raise TrainError(f"--block: got {number}; expected 1 to {len(blocks)}")
    block = blocks[number - 1]
    clean = _clean(args.image, card.channels)
    x = jnp.asarray(clean / 255, jnp.float32)
    level = (0.0,) if card.needs_sigma else ()
    y = recorded_input(model, block, lambda: model(x, *level))
    channels = args.channels
    if channels is None:
        channels = sorted(map(int, np.argsort(np.std(np.asarray(y), axis=(0, 1)))[-3:]))
    if not all(0 <= c < y.shape[-1] for c in channels):
        raise TrainError(f"--channels: got {channels}; expected 0 to {y.shape[-1] - 1}")
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
    figure.suptitle(f"{label}, block {number} of {len(blocks)}: {Path(args.image).name}")
    return figure


# ------------------------------------------------------------------------------- figures 4, 5, 6


@dataclass(frozen=True)
class Panel:
    """An image of a figure, in [0, 1], its name and its figure."""

    pixels: np.ndarray
    name: str
    psnr: float | None


def _panel_figure(args: argparse.Namespace) -> Any:
    networks = [_loaded(text) for text in args.weights]
    for label, _, card in networks:
        if card.task != TASKS[args.figure]:
            raise TrainError(
                f"--weights: {label} is a network for {card.task!r}; figure {args.figure} shows "
                f"{TASKS[args.figure]!r}"
            )
    if len(sizes := {card.channels for _, _, card in networks}) > 1:
        raise TrainError("--weights: got networks for gray and for color images; expected one kind")
    clean = _clean(args.image, sizes.pop())
    kernel = None
    if args.figure == 4:
        panels = _denoised(networks, clean)
        title = f"Noise of 0 (left) to {MAX_SIGMA:g} (right)"
    elif args.figure == 5:
        panels = _enlarged(networks, clean)
        title = f"Super-resolution x{networks[0][2].scale}, PSNR of luma"
    else:
        panels, kernel = _deblurred(networks, clean, args.kernel)
        title = "Deblurring, noise of 2.55"
    target = panels[-1].pixels
    return _draw(panels, _detail(args.detail, target), f"{title}: {Path(args.image).name}", kernel)


def rising_noise(clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Figure 4's input: noise whose level rises from the left to the right border.

        y[i, j] = x[i, j] / 255 + sigma[j] n[i, j],   sigma[j] = (50 / 255) j / (W - 1)

    Args:
        clean: uint8 `[H, W, C]`.

    Returns:
        The input, float32 `[H, W, C]`, and sigma `[H, W]`.
    """
    from converse_jax.imaging import protocol_noise

    height, width = clean.shape[:2]
    ramp = np.broadcast_to(np.linspace(0, 1, width), (height, width))
    noise = ramp[..., None] * protocol_noise(clean.shape, MAX_SIGMA)
    level = (MAX_SIGMA / 255 * ramp).astype(np.float32)
    return (clean / 255 + noise).astype(np.float32), level


def _denoised(networks: list[tuple[str, Any, Any]], clean: np.ndarray) -> list[Panel]:
    import jax.numpy as jnp

    from converse_jax.restore import Restorer

    noisy, level = rising_noise(clean)
    panels = [_panel("Noisy", noisy, clean, "denoise")]
    for label, model, card in networks:
        if card.needs_sigma:  # told the level at each pixel
            restored = np.asarray(model(jnp.asarray(noisy), jnp.asarray(level)))
        else:
            restored = Restorer(model, card)(noisy, extend_borders=False)
        panels.append(_panel(label, restored, clean, "denoise"))
    return [*panels, Panel(clean / 255, "Ground truth", None)]


def _enlarged(networks: list[tuple[str, Any, Any]], clean: np.ndarray) -> list[Panel]:
    from converse_jax.imaging import degrade_sr, resize
    from converse_jax.restore import Restorer

    if len(scales := {card.scale for _, _, card in networks}) > 1:
        raise TrainError(f"--weights: got scales {sorted(scales)}; expected one")
    scale = scales.pop()
    small, target = degrade_sr(clean, scale=scale)
    bicubic = resize(small.astype(np.float64), target.shape[:2])
    panels = [_panel("Bicubic", bicubic, target, "sr", scale)]
    for label, model, card in networks:
        restored = Restorer(model, card)(small)
        panels.append(_panel(label, restored, target, "sr", scale))
    return [*panels, Panel(target / 255, "Ground truth", None)]


def _deblurred(
    networks: list[tuple[str, Any, Any]], clean: np.ndarray, kernel_file: str
) -> tuple[list[Panel], np.ndarray]:
    from converse_jax.imaging import KernelError, degrade_deblur, read_kernel
    from converse_jax.restore import Restorer

    try:
        kernel, _ = read_kernel(kernel_file)
    except KernelError as error:
        raise TrainError(f"--kernel: {error}") from None
    blurry, target = degrade_deblur(clean, kernel)
    panels = [_panel("Blurred and noisy", blurry, target, "deblur")]
    for label, model, card in networks:
        restorer = Restorer(model, card)
        told: dict[str, Any] = {}
        if restorer.takes_kernel:
            told["kernel"] = restorer.prepare_kernel(kernel)[0]
        if restorer.takes_sigma:
            told["sigma"] = 2.55 / 255
        restored = restorer(blurry, extend_borders=False, **told)
        panels.append(_panel(label, restored, target, "deblur"))
    return [*panels, Panel(target / 255, "Ground truth", None)], kernel


def _panel(name: str, pixels: np.ndarray, target: np.ndarray, task: str, scale: int = 1) -> Panel:
    from converse_jax.imaging import Task, score, to_uint8

    rounded = to_uint8(np.asarray(pixels))
    figures = score(rounded, target, task=cast(Task, task), scale=scale)
    return Panel(rounded / 255, name, figures["psnr_y" if task == "sr" else "psnr"])


def _clean(file: str, channels: int) -> np.ndarray:
    from converse_jax.imaging import read_image, to_reference_uint8

    return to_reference_uint8(read_image(file).pixels, channels)


def _detail(given: Sequence[int] | None, target: np.ndarray) -> tuple[int, int, int]:
    from converse_jax._sheet import busiest_square

    height, width = target.shape[:2]
    if given is None:
        side = max(8, min(height, width) // 6)
        return (*busiest_square(target, side), side)
    row, column, side = given
    if min(row, column) < 0 or side < 1 or row + side > height or column + side > width:
        raise TrainError(f"--detail: got {row} {column} {side}, outside of {width}x{height} pixels")
    return row, column, side


def _draw(
    panels: Sequence[Panel],
    detail: tuple[int, int, int],
    title: str,
    kernel: np.ndarray | None,
) -> Any:
    """Panels in lines of at most five, each with its detail magnified below the image."""
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    row, column, side = detail
    down = -(-len(panels) // 5)
    across = -(-len(panels) // down)
    height, width = panels[0].pixels.shape[:2]
    size = (2.6 * across, down * (2.6 * height / width + 2.6 + 0.5) + 0.4)
    figure, axes = plt.subplots(
        2 * down,
        across,
        figsize=size,
        squeeze=False,
        layout="constrained",
        height_ratios=[height / width, 1.0] * down,
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for i, panel in enumerate(panels):
        line, place = divmod(i, across)
        whole, magnified = axes[2 * line, place], axes[2 * line + 1, place]
        shown = np.clip(panel.pixels, 0, 1)
        gray = shown.shape[-1] == 1
        how: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} if gray else {}
        shown = shown[..., 0] if gray else shown
        whole.imshow(shown, interpolation="antialiased", **how)
        frame = Rectangle((column - 0.5, row - 0.5), side, side, fill=False, color="C3", lw=1.2)
        whole.add_patch(frame)
        magnified.imshow(
            shown[row : row + side, column : column + side], interpolation="nearest", **how
        )
        figures = "" if panel.psnr is None else f"\n{panel.psnr:.2f} dB"
        magnified.text(
            0.5, -0.03, panel.name + figures, ha="center", va="top", transform=magnified.transAxes
        )
        if i == 0 and kernel is not None:
            inset = whole.inset_axes([0.0, 0.75, 0.25, 0.25])
            inset.imshow(kernel, cmap="gray", interpolation="nearest")
            inset.set_xticks([])
            inset.set_yticks([])
    figure.suptitle(title)
    return figure


if __name__ == "__main__":
    sys.exit(main())
