"""Image in, image out: a network applied to photographs of any size."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flax import nnx

from converse_jax._borders import extend_periodically
from converse_jax._programs import Programs
from converse_jax.imaging import Image, estimate_noise
from converse_jax.nn import use_method
from converse_jax.ops import Method
from converse_jax.weights import ModelCard

MARGIN_KERNELS = 3
"""An image is extended by this many kernel widths on each side before it is deblurred."""

BLIND_MARGIN = 24
"""The same in pixels, if no kernel is given: three and a half of the paper's 7x7 kernels."""

# An image whose noise differs from what a network was trained for by more than this factor, and by
# more than this many levels of 255, is restored visibly worse than it could be.
_OTHER_NOISE_FACTOR, _OTHER_NOISE_LEVELS = 1.6, 4.0


class RestoreError(ValueError):
    """An argument that this model cannot use: what arrived, and what to do."""


@dataclass(frozen=True)
class Plan:
    """How one image will be restored.

    Attributes:
        restorer: the network.
        sigma: the noise level that it is told, in the units of the image; None if it takes none.
        notes: what the user should know about this network and such images.
        noise: what they should know about the noise of this image, if anything.
        remarks: what was guessed or dropped in this image's file.
    """

    restorer: Restorer
    sigma: float | None
    notes: tuple[str, ...]
    noise: str | None
    remarks: tuple[str, ...] = ()


class Restorer:
    """A network ready to restore images of any size, in full float32 precision.

    The network is compiled once per image size, and the transfer functions of its layers are
    computed once per size and blur kernel. Only the last two sizes are kept, to bound the memory;
    the command's persistent cache keeps all programs on disk. `free` frees the memory.
    """

    def __init__(self, model: nnx.Module, card: ModelCard, *, method: Method = "auto") -> None:
        """Make a restorer from what `converse_jax.load` returns.

        Args:
            model: the network.
            card: its card.
            method: method of all its reverse convolutions, see `converse2d`.
        """
        if method != "auto":
            model = nnx.clone(model)
            use_method(model, method)
        self.card = card
        self.blur_size: int | None = getattr(model, "blur_size", None)
        self.takes_sigma: bool = card.needs_sigma
        self._programs = Programs(model)

    def __call__(
        self,
        image: np.ndarray,
        *,
        kernel: np.ndarray | None = None,
        sigma: float | None = None,
        strength: float = 1.0,
        self_ensemble: bool = False,
        extend_borders: bool = True,
    ) -> np.ndarray:
        """Restore an image, `[H, W, C] -> [sH, sW, C]`.

        A gray model restores each channel of a color image separately; a color model is given a
        gray image as three equal channels, and the mean of its output channels is returned.

        Args:
            image: floating point `[H, W, C]` in [0, 1], C = 1 or 3.
            kernel: the blur kernel `[kh, kw]`, for the models that take one (`prepare_kernel`).
            sigma: the standard deviation of the noise in the units of `image` (e.g. 25 / 255), for
                models that take it; None estimates it (`estimate_noise`).
            strength: 1 gives the network's result, 0 the image unchanged, values between a blend.
            self_ensemble: average over the 8 rotations and reflections of image and kernel.
            extend_borders: before deblurring, extend the image smoothly beyond its borders, as the
                networks treat it as periodic. Right for photographs; images that were blurred
                circularly, as in the evaluation protocol, need False.

        Returns:
            float32, not clipped; s is the model's scale.

        Raises:
            RestoreError: an argument that the model cannot use, or an image that needs more memory
                than is available.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
            raise RestoreError(f"image: got shape {image.shape}; expected [H, W, 1] or [H, W, 3]")
        if not np.issubdtype(image.dtype, np.floating):
            raise RestoreError(
                f"image: got {image.dtype}; expected floats in [0, 1], e.g. image / 255"
            )
        if not np.isfinite(image).all():
            count = int((~np.isfinite(image)).sum())
            raise RestoreError(
                f"image: got {count} values that are NaN or infinite, which would spread to all; "
                "give them values, e.g. of neighbors"
            )
        fitted, _ = self.prepare_kernel(kernel)
        self._check_strength(strength)
        sigma = self._level(image, sigma)
        if self_ensemble and fitted is not None and fitted.shape[0] % 2 == 0:
            raise RestoreError(
                f"self_ensemble: the model's kernels of {fitted.shape[0]}x{fitted.shape[0]} have "
                "no center to rotate about; restore without it"
            )
        size = f"{image.shape[1]}x{image.shape[0]}"
        image = image.astype(np.float32)
        given, margin = image, 0
        if extend_borders and self.card.task == "deblur":
            margin = BLIND_MARGIN if fitted is None else MARGIN_KERNELS * fitted.shape[0]
            image = extend_periodically(image, margin, kernel=fitted)
        symmetries = _SYMMETRIES if self_ensemble else _SYMMETRIES[:1]
        results = (
            turn_back(self._restore(turn(image), None if fitted is None else turn(fitted), sigma))
            for turn, turn_back in symmetries
        )
        try:
            result = functools.reduce(np.add, results) / np.float32(len(symmetries))
        except MemoryError as error:
            raise RestoreError(
                f"image: {size} pixels need more memory than is available ({error}); "
                "cut the image into parts or make it smaller"
            ) from None
        border = self.card.scale * margin
        height, width = result.shape[:2]
        result = result[border : height - border, border : width - border]
        if strength == 1:
            return result
        return given + np.float32(strength) * (result - given)

    def _check_strength(self, strength: float) -> None:
        if not 0 <= strength <= 1:
            raise RestoreError(f"strength: got {strength}; expected 0 (the image) to 1 (restored)")
        if strength != 1 and self.card.scale != 1:
            raise RestoreError(
                f"strength: {self.card.name} enlarges, so there is no original to blend with; "
                "leave it out"
            )

    def _level(self, image: np.ndarray, sigma: float | None) -> float | None:
        """The noise level that the network is told, None if it takes none."""
        if not self.takes_sigma:
            if sigma is not None:
                raise RestoreError(
                    f"sigma: {self.card.name} ({self.card.architecture}) takes no noise level; "
                    "leave it out"
                )
            return None
        if sigma is None:
            return estimate_noise(image)
        if not 0 <= sigma < float("inf"):
            raise RestoreError(f"sigma: got {sigma}; expected a standard deviation of at least 0")
        return float(sigma)

    def plan(self, image: np.ndarray, *, sigma: float | None = None) -> Plan:
        """How an image will be restored: the noise level, given or estimated, and notes.

        Args:
            image: floating point `[H, W, C]` in [0, 1].
            sigma: noise level in the units of `image`, for models that take it; None estimates it.

        Raises:
            RestoreError: a level that the model cannot use.
        """
        level, card = self._level(image, sigma), self.card
        notes = () if (note := self.channel_note(image.shape[-1])) is None else (note,)
        noise = None
        if level is not None:
            low, high = card.sigma_range or (0.0, float("inf"))
            origin = "estimated" if sigma is None else "given"
            noise = f"noise of {255 * level:.1f} (of 255), {origin}"
            if not low <= round(255 * level, 3) <= high:
                noise += f"; {card.name} was trained for {low:g} to {high:g}"
        elif card.task == "denoise" and card.sigma is not None:
            estimate = 255 * estimate_noise(image)
            less, more = sorted((estimate, card.sigma))
            if more > _OTHER_NOISE_FACTOR * less and more - less > _OTHER_NOISE_LEVELS:
                effect = "fine detail will be lost" if estimate < card.sigma else "noise will stay"
                noise = (
                    f"noise of {estimate:.1f} (of 255), estimated, but {card.name} was trained for "
                    f"{card.sigma:g}: {effect}"
                )
        return Plan(self, level, notes, noise)

    def prepare_kernel(self, kernel: np.ndarray | None) -> tuple[np.ndarray | None, list[str]]:
        """The kernel as the model takes it, and notes on what was changed.

        It is divided by its sum, and if smaller than the model's, padded with zeros so that its
        element `(kh // 2, kw // 2)` stays in the center.

        Raises:
            RestoreError: a kernel for a model that takes none, a missing kernel, an invalid one
                (see `normalized_kernel`), or one larger than the model's.
        """
        name = f"{self.card.name} ({self.card.architecture})"
        if kernel is None:
            if self.blur_size is None:
                return None, []
            raise RestoreError(f"kernel: {name} needs the blur kernel; give one (--kernel k.npy)")
        if self.blur_size is None:
            raise RestoreError(f"kernel: {name} takes none; leave it out")
        kernel, notes = normalized_kernel(kernel)
        (height, width), size = kernel.shape, self.blur_size
        if height > size or width > size:
            raise RestoreError(
                f"kernel: got {height}x{width}, {name} takes at most {size}x{size}; "
                "crop it, or estimate a smaller one"
            )
        if (height, width) == (size, size):
            return kernel, notes
        padded = np.zeros((size, size))
        top, left = size // 2 - height // 2, size // 2 - width // 2
        padded[top : top + height, left : left + width] = kernel
        notes.append(f"the kernel of {height}x{width} was padded with zeros to {size}x{size}")
        return padded, notes

    def channel_note(self, channels: int) -> str | None:
        """Note for the user if the number of channels differs from the model's."""
        if channels > self.card.channels:
            return f"{self.card.name} is a model of gray images: each channel is restored alone"
        if channels < self.card.channels:
            return f"{self.card.name} is a model of color images: the gray channel is repeated"
        return None

    def _restore(
        self, image: np.ndarray, kernel: np.ndarray | None, sigma: float | None
    ) -> np.ndarray:
        """Restore an image of any number of channels, its borders already extended."""
        if image.shape[-1] == self.card.channels:
            return self._programs(image, kernel, sigma)
        if self.card.channels == 1:
            # One after the other: as a batch they would need three times the memory.
            maps = [self._programs(x[..., None], kernel, sigma) for x in np.moveaxis(image, -1, 0)]
            return np.concatenate(maps, axis=-1)
        repeated = np.repeat(image, self.card.channels, axis=-1)
        return self._programs(repeated, kernel, sigma).mean(axis=-1, keepdims=True)

    def free(self) -> None:
        """Free the memory of programs and transfer functions; they are made again when needed."""
        self._programs.free()


def _turn(image: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if mirror else image, turns))


def _turn_back(image: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    image = np.rot90(image, -turns)
    return image[:, ::-1] if mirror else image


# The 8 symmetries of the square, the identity first, each with its inverse.
_SYMMETRIES = [
    (
        functools.partial(_turn, turns=turns, mirror=mirror),
        functools.partial(_turn_back, turns=turns, mirror=mirror),
    )
    for mirror in (False, True)
    for turns in range(4)
]


def normalized_kernel(kernel: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A blur kernel `[kh, kw]` divided by its sum, float64, and a note where that changed it.

    Raises:
        RestoreError: not a two-dimensional array of finite real numbers, or a sum of 0.
    """
    kernel = np.asarray(kernel)
    if kernel.ndim != 2 or kernel.size == 0:
        raise RestoreError(f"kernel: got shape {kernel.shape}; expected a two-dimensional [kh, kw]")
    if not (np.issubdtype(kernel.dtype, np.floating) or np.issubdtype(kernel.dtype, np.integer)):
        raise RestoreError(f"kernel: got {kernel.dtype}; expected real numbers")
    taps = kernel.astype(np.float64)
    if not np.isfinite(taps).all():
        raise RestoreError("kernel: holds NaN or infinity; give finite numbers")
    total = float(taps.sum())
    if abs(total) <= 1e-12 * float(np.abs(taps).sum()):
        raise RestoreError("kernel: its taps sum to 0; give a blur kernel, whose sum is 1")
    if abs(total - 1) <= 1e-6:
        return taps, []
    return taps / total, [f"the kernel was divided by its sum, {total:.6g}"]


def restore_image(
    restorer: Restorer,
    image: Image,
    **options: Any,
) -> Image:
    """Restore an image and keep what its file held; options as for `Restorer`.

    Bit depth, white level and metadata are kept, and so is the size in print: an enlarged image has
    more pixels per inch. Only floating-point images (`bits=32`) keep values outside [0, 1].
    Transparency is restored as a gray image of its own, except if it is constant, or if the network
    takes a noise level: transparency has no noise.

    Raises:
        RestoreError: as `Restorer`.
    """
    restore: Callable[[np.ndarray], np.ndarray] = functools.partial(restorer, **options)
    pixels = restore(image.pixels)
    if image.bits != 32:
        pixels = np.clip(pixels, 0.0, 1.0)
    alpha = image.alpha
    if alpha is not None:
        if (alpha == alpha[0, 0]).all():
            alpha = np.full(pixels.shape[:2], alpha[0, 0])
        elif not restorer.takes_sigma:
            alpha = np.clip(restore(alpha[..., None])[..., 0], 0.0, 1.0)
    resolution = image.resolution and image.resolution.enlarged(restorer.card.scale)
    return replace(image, pixels=pixels, alpha=alpha, resolution=resolution)
