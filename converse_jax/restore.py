"""Image in, image out: a network applied to photographs of any size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flax import nnx

from converse_jax._borders import extend_periodically
from converse_jax._programs import Programs
from converse_jax._tiling import Tiling, tile_sides
from converse_jax.imaging import Image, KernelError, estimate_noise
from converse_jax.imaging._kernels import check_kernel_fits, fitted_kernel, normalized_kernel
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
    the command's persistent cache keeps all programs on disk. `free` frees the memory. Large images
    are restored in overlapping tiles, which all have one size.
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
        self.takes_kernel: bool = self.blur_size is not None
        self.takes_sigma: bool = card.needs_sigma
        self._programs = Programs(model)
        self._tiling = Tiling.of(model, card)

    def __call__(
        self,
        image: np.ndarray,
        *,
        kernel: np.ndarray | None = None,
        sigma: float | None = None,
        strength: float = 1.0,
        self_ensemble: bool = False,
        extend_borders: bool = True,
        tile: int | None = None,
        overlap: int | None = None,
        on_tile: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Restore an image, `[H, W, C] -> [sH, sW, C]`.

        A gray model restores each channel of a color image separately; a color model is given a
        gray image as three equal channels, and the mean of its output channels is returned.

        Args:
            image: floating point `[H, W, C]` in [0, 1], C = 1 or 3.
            kernel: the blur kernel `[kh, kw]`, for the models that take one (`prepare_kernel`).
            sigma: the standard deviation of the noise in the units of `image` (e.g. 25 / 255), for
                models that take it; None estimates it (`estimate_noise`) and tells the model the
                share of it that its card says.
            strength: 1 gives the network's result, 0 the image unchanged, values between a blend.
            self_ensemble: average over the 8 rotations and reflections of image and kernel.
            extend_borders: before deblurring, extend the image smoothly beyond its borders, as the
                networks treat it as periodic. Right for photographs; images that were blurred
                circularly, as in the evaluation protocol, need False.
            tile: side of the tiles in pixels of the image; 0 restores it as a whole. None does so
                up to 4 megapixels if they fit into memory, and else takes tiles of 512. Where
                memory runs out, tiles are halved.
            overlap: pixels that neighboring tiles share; None takes what the card says, or 64.
            on_tile: called with (done, total) before the first tile and after each.

        Returns:
            float32, not clipped; s is the model's scale.

        Raises:
            RestoreError: an argument that the model cannot use, or an image that needs more memory
                than is available, even in tiles.
        """
        image = _checked_image(image)
        fitted, _ = self.prepare_kernel(kernel)
        if fitted is not None:
            try:
                check_kernel_fits(fitted, *(self.card.scale * n for n in image.shape[:2]))
            except KernelError as error:
                raise RestoreError(str(error)) from None
        self._check_strength(strength)
        sigma = self._told(self._level(image, sigma), estimated=sigma is None)
        try:
            result = self._apply(
                image,
                fitted,
                sigma,
                self_ensemble=self_ensemble,
                extend_borders=extend_borders,
                tile=tile,
                overlap=overlap,
                on_tile=on_tile,
            )
        except MemoryError as error:
            raise RestoreError(
                f"image: {image.shape[1]}x{image.shape[0]} pixels need more memory than is "
                f"available ({error}); cut the image into parts or make it smaller"
            ) from None
        result = _checked_result(result)
        if strength == 1:
            return result
        return image + np.float32(strength) * (result - image)

    def _apply(
        self,
        image: np.ndarray,
        kernel: np.ndarray | None,
        sigma: float | None,
        *,
        self_ensemble: bool,
        extend_borders: bool,
        tile: int | None,
        overlap: int | None,
        on_tile: Callable[[int, int], None] | None,
    ) -> np.ndarray:
        """Restore an image whose options were checked, but for tile and overlap.

        Raises:
            RestoreError: a tile, overlap or kernel that it cannot use.
            MemoryError: it needs more than is available, even in tiles.
        """
        if self_ensemble and kernel is not None and kernel.shape[0] % 2 == 0:
            raise RestoreError(
                f"self_ensemble: the model's kernels of {kernel.shape[0]}x{kernel.shape[0]} have "
                "no center to rotate about; restore without it"
            )
        sides = checked_sides(self.card, tile, overlap, image.shape[:2])
        margin = 0
        if extend_borders and self.card.task == "deblur":
            margin = BLIND_MARGIN if kernel is None else MARGIN_KERNELS * kernel.shape[0]
            image = extend_periodically(image, ((margin, margin),) * 2, kernel=kernel)
        symmetries = _SYMMETRIES if self_ensemble else _SYMMETRIES[:1]

        def restore(part: np.ndarray) -> np.ndarray:
            results = (
                back(self._restore(turn(part), None if kernel is None else turn(kernel), sigma))
                for turn, back in symmetries
            )
            total = functools.reduce(np.add, results)
            return total / np.float32(len(symmetries)) if self_ensemble else total

        for side in sides:
            try:
                if side == 0:
                    result = restore(image)
                else:
                    result = self._tiling(
                        restore, image, side=side, overlap=overlap, kernel=kernel, on_tile=on_tile
                    )
                break
            except MemoryError as error:
                missing = str(error) if side == 0 else f"in tiles of {side}: {error}"
        else:
            raise MemoryError(missing)
        border = self.card.scale * margin
        height, width = result.shape[:2]
        return result[border : height - border, border : width - border]

    def _check_strength(self, strength: float) -> None:
        if not 0 <= strength <= 1:
            raise RestoreError(f"strength: got {strength}; expected 0 (the image) to 1 (restored)")
        if strength != 1 and self.card.scale != 1:
            raise RestoreError(
                f"strength: {self.card.name} enlarges, so there is no original to blend with; "
                "leave it out"
            )

    def _level(self, image: np.ndarray, sigma: float | None) -> float | None:
        """The noise level of the image, given or estimated; None if the network takes none."""
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

    def _told(self, level: float | None, *, estimated: bool) -> float | None:
        """What the network is told of this level."""
        return self.card.estimate_share * level if estimated and level is not None else level

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """The card, as a `BundledRestorer` has several."""
        return (self.card,)

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
            if sigma is None and card.estimate_share != 1:
                noise += f"; {card.name} is told {card.estimate_share:g} of it"
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
        return Plan(self, self._told(level, estimated=sigma is None), notes, noise)

    def prepare_kernel(self, kernel: np.ndarray | None) -> tuple[np.ndarray | None, list[str]]:
        """The kernel as the model takes it, and notes on what was changed.

        It is divided by its sum, and padded with zeros or cut where it is next to zero, so that its
        element `(kh // 2, kw // 2)` is in the center (`fitted_kernel`).

        Raises:
            RestoreError: a kernel for a model that takes none, a missing kernel, an invalid one
                (see `normalized_kernel`), or one larger than the model's.
        """
        name = f"{self.card.name} ({self.card.architecture})"
        if kernel is None:
            if self.blur_size is None:
                return None, []
            raise RestoreError(f"kernel: {name} needs the blur kernel; give one (--kernel K)")
        if self.blur_size is None:
            raise RestoreError(f"kernel: {name} takes none; leave it out")
        try:
            kernel, notes = normalized_kernel(kernel)
            fitted, more = fitted_kernel(kernel, self.blur_size, name)
        except KernelError as error:
            raise RestoreError(str(error)) from None
        return fitted, notes + more

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


def _checked_image(image: np.ndarray) -> np.ndarray:
    """In float32; a RestoreError about what no network restores."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise RestoreError(f"image: got shape {image.shape}; expected [H, W, 1] or [H, W, 3]")
    if not np.issubdtype(image.dtype, np.floating):
        raise RestoreError(f"image: got {image.dtype}; expected floats in [0, 1], e.g. image / 255")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinity
        image = image.astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        raise RestoreError(
            f"image: got {count} values that are NaN or infinite, which would spread to all; "
            "give them values, e.g. of neighbors"
        )
    return image


def _checked_result(result: np.ndarray) -> np.ndarray:
    """The result itself; a RestoreError if numbers overflowed on the way to it."""
    if not np.isfinite(result).all():
        raise RestoreError(
            "image: restoring it overflows; expected values about [0, 1], e.g. image / image.max()"
        )
    return result


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


def checked_sides(
    card: ModelCard, tile: int | None, overlap: int | None, size: Sequence[int] = (1, 1)
) -> list[int]:
    """Sides of the tiles to try on an image of `(height, width)`, in order; 0 is the whole image.

    Raises:
        RestoreError: a tile or an overlap that the model cannot use.
    """
    try:
        return tile_sides(card, size, tile, overlap)
    except ValueError as error:
        raise RestoreError(str(error)) from None


def apply_to_image(restorer: Restorer, image: Image, **options: Any) -> Image:
    """Restore an image and keep what its file held; options as for `Restorer`.

    Bit depth, white level and metadata are kept, and so is the size in print: an enlarged image has
    more pixels per inch. Only floating-point images (`bits=32`) keep values outside [0, 1].
    Transparency, which has no noise, is restored as a gray image of its own, except if it is
    constant, or if the network removes noise of a level that it is told.

    Raises:
        RestoreError: as `Restorer`.
    """
    restore: Callable[..., np.ndarray] = functools.partial(restorer, **options)
    pixels = restore(image.pixels)
    if image.bits != 32:
        pixels = np.clip(pixels, 0.0, 1.0)
    alpha = image.alpha
    if alpha is not None:
        if (alpha == alpha[0, 0]).all():
            alpha = np.full(pixels.shape[:2], alpha[0, 0])
        elif not (restorer.takes_sigma and restorer.card.task == "denoise"):
            if restorer.takes_sigma:
                restore = functools.partial(restore, sigma=0.0)
            alpha = np.clip(restore(alpha[..., None])[..., 0], 0.0, 1.0)
    resolution = image.resolution and image.resolution.enlarged(restorer.card.scale)
    return replace(image, pixels=pixels, alpha=alpha, resolution=resolution)
