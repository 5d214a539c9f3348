"""Figures 4, 5 and 6 of the paper: a degraded image and what networks make of it, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from train.errors import TrainError

MAX_SIGMA = 50.0
"""Standard deviation of figure 4's noise at the right border, in 8-bit levels."""


class Network(NamedTuple):
    """A network of a figure, and what it is called there."""

    label: str
    model: Any
    card: Any


@dataclass(frozen=True)
class Panel:
    """An image of a figure, in [0, 1], its name and its figure."""

    pixels: np.ndarray
    name: str
    psnr: float | None


def draw_panels(
    figure: int,
    networks: Sequence[Network],
    clean: np.ndarray,
    *,
    name: str,
    kernel: np.ndarray | None = None,
    detail: Sequence[int] | None = None,
) -> Any:
    """Degrade a clean image as a figure does, and draw what each network makes of it.

    Args:
        figure: 4 (denoising), 5 (super-resolution) or 6 (deblurring).
        networks: for that task, of the image's channels.
        clean: uint8 `[H, W, C]`.
        name: the image's, for the title.
        kernel: `[kh, kw]`, the blur of figure 6.
        detail: row, column and side of the magnified square; None is the busiest.

    Returns:
        A matplotlib figure.

    Raises:
        TrainError: the scales differ, or the square lies outside of the image.
    """
    from converse_jax.evaluate import SIGMAS

    if figure == 4:
        panels = _denoised(networks, clean)
        title = f"Noise of 0 (left) to {MAX_SIGMA:g} (right)"
    elif figure == 5:
        panels = _enlarged(networks, clean)
        title = f"Super-resolution x{networks[0].card.scale}, PSNR of luma"
    else:
        panels = _deblurred(networks, clean, cast(np.ndarray, kernel))
        title = f"Deblurring, noise of {SIGMAS['deblur']:g}"
    target = panels[-1].pixels
    return _draw(panels, _detail(detail, target), f"{title}: {name}", kernel)


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


def _denoised(networks: Sequence[Network], clean: np.ndarray) -> list[Panel]:
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


def _enlarged(networks: Sequence[Network], clean: np.ndarray) -> list[Panel]:
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


def _deblurred(networks: Sequence[Network], clean: np.ndarray, kernel: np.ndarray) -> list[Panel]:
    from converse_jax.evaluate import SIGMAS
    from converse_jax.imaging import degrade_deblur
    from converse_jax.restore import Restorer

    blurry, target = degrade_deblur(clean, kernel)
    panels = [_panel("Blurred and noisy", blurry, target, "deblur")]
    for label, model, card in networks:
        restorer = Restorer(model, card)
        told: dict[str, Any] = {}
        if restorer.takes_kernel:
            told["kernel"] = restorer.prepare_kernel(kernel)[0]
        if restorer.takes_sigma:
            told["sigma"] = cast(float, SIGMAS["deblur"]) / 255
        restored = restorer(blurry, extend_borders=False, **told)
        panels.append(_panel(label, restored, target, "deblur"))
    return [*panels, Panel(target / 255, "Ground truth", None)]


def _panel(name: str, pixels: np.ndarray, target: np.ndarray, task: str, scale: int = 1) -> Panel:
    from converse_jax.imaging import Task, score, to_uint8

    rounded = to_uint8(np.asarray(pixels))
    figures = score(rounded, target, task=cast(Task, task), scale=scale)
    return Panel(rounded / 255, name, figures["psnr_y" if task == "sr" else "psnr"])


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
