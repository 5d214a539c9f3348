"""Image in, image out: plug-and-play restoration of photographs, with a network as the denoiser."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
from jax import Array

from converse_jax import pnp
from converse_jax._borders import extend_periodically
from converse_jax._programs import check_memory, program_bytes
from converse_jax.imaging import KernelError, bicubic_kernel
from converse_jax.imaging._kernels import normalized_kernel
from converse_jax.restore import Plan, RestoreError, Restorer
from converse_jax.weights import ModelCard

ITERATIONS = {"deblur": 8, "sr": 24}
"""As in DPIR."""

LEAST_SIGMA = 1 / 255
"""A photograph with less noise is restored as if it had this much, unless its blur was circular:
what lies beyond its borders could not be solved for (`pnp.KNOWN_ITERATIONS`)."""

_enlarged = jax.jit(pnp.initial_estimate, static_argnums=2)

# Extended images have sides of so many pixels: fast to transform, and few programs for a folder.
_SIDES = 64


class PnPRestorer(Restorer):
    """Deblurs with any kernel and enlarges by any factor, with a denoiser that is told its level.

    `pnp` explains the method. Its data steps are solved on the whole image, exactly; the denoiser
    goes through the image as a `Restorer` does, in tiles where it is large.
    """

    def __init__(
        self,
        denoiser: Restorer,
        task: Literal["deblur", "sr"],
        *,
        scale: int | None = None,
        iterations: int | None = None,
    ) -> None:
        """Make a restorer for a task.

        Args:
            denoiser: a network for "denoise" that takes the level.
            task: "deblur" or "sr".
            scale: enlargement of "sr", an integer of at least 2; 2 by default.
            iterations: how often data and prior are served; `ITERATIONS` of the task by default.

        Raises:
            RestoreError: another network or task, or a scale or a number that it cannot have.
        """
        card = denoiser.card
        if card.task != "denoise" or not card.needs_sigma:
            raise RestoreError(
                f"denoiser: got {card.name}, a network for {card.task!r}; plug-and-play needs one "
                "for 'denoise' that is told the noise level, e.g. denoise-color"
            )
        if task not in ITERATIONS:
            raise RestoreError(f"task: got {task!r}; plug-and-play serves 'deblur' and 'sr'")
        if scale is None:
            scale = 1 if task == "deblur" else 2
        if (scale == 1) != (task == "deblur") or scale < 1:
            expected = "1, as deblurring does not enlarge" if task == "deblur" else "at least 2"
            raise RestoreError(f"scale: got {scale} for {task!r}; expected {expected}")
        self.card: ModelCard = replace(
            card,
            name=f"plug-and-play with {card.name}",
            architecture="plug-and-play",
            task=task,
            scale=scale,
            sigma_range=None,
            estimate_share=1.0,
            needs_kernel=task == "deblur",
        )
        self.blur_size = None
        self.takes_sigma = True
        self.takes_kernel = True
        self.iterations = ITERATIONS[task] if iterations is None else iterations
        if self.iterations < 1:
            raise RestoreError(f"iterations: got {iterations}; expected at least 1")
        self._denoiser = denoiser
        self._step: tuple[Any, Any] = (None, None)

    def prepare_kernel(self, kernel: np.ndarray | None) -> tuple[np.ndarray | None, list[str]]:
        """The kernel divided by its sum; for "sr" without one, that of bicubic down-sampling.

        Raises:
            RestoreError: a missing kernel, or an invalid one (see `normalized_kernel`).
        """
        if kernel is None:
            if self.card.task == "deblur":
                raise RestoreError(
                    f"kernel: {self.card.name} needs the blur kernel; give one (--kernel K)"
                )
            return bicubic_kernel(self.card.scale), []
        try:
            return normalized_kernel(kernel)
        except KernelError as error:
            raise RestoreError(str(error)) from None

    def plan(self, image: np.ndarray, *, sigma: float | None = None) -> Plan:
        """As `Restorer.plan`; the level may be any, as the denoiser is told others."""
        plan = super().plan(image, sigma=sigma)
        assert plan.sigma is not None
        return replace(plan, notes=(f"restored by {self.card.name}", *plan.notes))

    def free(self) -> None:
        """Free the memory of programs; they are made again when needed."""
        self._step = (None, None)
        self._denoiser.free()

    def _apply(
        self,
        image: np.ndarray,
        kernel: np.ndarray | None,
        sigma: float | None,
        *,
        extend_borders: bool,
        on_tile: Callable[[int, int], None] | None,
        **options: Any,
    ) -> np.ndarray:
        assert kernel is not None
        assert sigma is not None
        scale, total = self.card.scale, self.iterations
        sigma = max(sigma, LEAST_SIGMA if extend_borders else pnp.LEAST_SIGMA)
        kernel = kernel.astype(np.float32)
        levels = np.asarray(pnp.noise_levels(np.float32(sigma), total))
        known, place = None, None
        if extend_borders:
            image, known, place = self._extended(image, kernel)
        # Image, estimate, and what the denoiser returns.
        check_memory(image.nbytes * (1 + 2 * scale**2))
        step = self._compiled(image.shape[:2], kernel, known is not None)
        x = image.copy() if scale == 1 else np.array(_enlarged(image, kernel, scale))
        for number, level in enumerate(levels):
            lam = np.float32(pnp.WEIGHT * (sigma / level) ** 2)
            for channel in range(image.shape[-1]):
                part = np.s_[:, :, channel : channel + 1]
                x[part], y = step(image[part], kernel, x[part], lam, known)
                if known is not None:
                    image[part] = y
            # As in `pnp`, four reflections take turns.
            turned = np.s_[:: -1 if number % 2 else 1, :: -1 if number // 2 % 2 else 1]
            told = on_tile and functools.partial(_tell, on_tile, number, total)
            if number == 0 and told is not None:
                told(0, 1)
            x[turned] = self._denoiser._apply(
                np.ascontiguousarray(x[turned]),
                None,
                float(level),
                extend_borders=False,
                on_tile=told,
                **options,
            )
            if told is not None:
                told(1, 1)
        return x if place is None else x[place]

    def _extended(
        self, image: np.ndarray, kernel: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, tuple[slice, ...]]:
        """The image on a larger torus, where it is known there, and its place in the result.

        A gap of the kernel's size is enough: what lies in it is solved for.
        """
        s = self.card.scale
        height, width = image.shape[:2]
        gaps = [-(-n // s) for n in kernel.shape]
        rows, columns = (
            gap + -(n + gap) % _SIDES for n, gap in zip((height, width), gaps, strict=True)
        )
        top, left = rows // 2, columns // 2
        larger = extend_periodically(image, ((top, rows - top), (left, columns - left)))
        known = np.zeros((*larger.shape[:2], 1), np.float32)
        known[top : top + height, left : left + width] = 1
        place = np.s_[s * top : s * (top + height), s * left : s * (left + width)]
        return larger, known, place

    def _compiled(self, size: tuple[int, ...], kernel: np.ndarray, in_part: bool) -> Any:
        """The data step for one channel of an image of this height and width."""
        key = (*size, *kernel.shape, in_part)
        found, step = self._step
        if found != key:
            s = self.card.scale
            y = jax.ShapeDtypeStruct((*size, 1), np.float32)
            x = jax.ShapeDtypeStruct((s * size[0], s * size[1], 1), np.float32)
            taps, lam = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (kernel.shape, ()))
            step = jax.jit(functools.partial(_data_step, scale=s))
            step = step.lower(y, taps, x, lam, y if in_part else None).compile()
            check_memory(program_bytes(step))
            self._step = key, step
        return step


def _tell(on_tile: Callable[[int, int], None], number: int, total: int, done: int, of: int) -> None:
    """Of `total` iterations, `number` and `done` of `of` tiles are finished."""
    on_tile(number * of + done, total * of)


def _data_step(
    y: Array, kernel: Array, x: Array, lam: Array, known: Array | None, *, scale: int
) -> tuple[Array, Array]:
    with jax.default_matmul_precision("highest"):
        if known is None:
            return pnp.data_step(y, kernel, x, lam, scale), y
        return pnp.known_data_step(y, kernel, x, lam, known, scale)
