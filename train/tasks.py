"""The tasks: how a clean image is degraded, as a function of a random generator.

Clean images are uint8 `[H, W, C]`; a network sees float32 in units of [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from converse_jax import imaging

Example = dict[str, np.ndarray]
"""`input` and `target`, float32 `[H, W, C]`; for deblurring `kernel`, float32 `[k, k]`; for
denoising `sigma`, float32 `[]`, the noise level in the units of the image. A task may add more
arrays (`gives`); those of two axes or more are turned and mirrored with the image."""


class Task:
    """Base of the tasks; derive a frozen dataclass for a task of your own.

    Attributes:
        name: the kind of restoration: "denoise" for any that keeps the size, "sr", or "deblur",
            whose images are periodic. It says which networks can learn the task, and how they are
            measured.
        scale: how many times as large as the input the target is.
        gives: what examples hold besides input and target.
    """

    name: ClassVar[imaging.Task]
    gives: ClassVar[tuple[str, ...]] = ()
    scale: int = 1

    @property
    def margin(self) -> int:
        """Pixels around a patch that its degradation sees."""
        return 0

    @property
    def measured_as(self) -> str:
        """Which PSNR counts: on luma for super-resolution, as in the tables."""
        return "psnr_y" if self.name == "sr" else "psnr"

    @property
    def card_sigma(self) -> float | None:
        """The noise level of all examples, on the scale of 0 to 255; None if unknown or varying."""
        return None

    @property
    def card_sigma_range(self) -> tuple[float, float] | None:
        """The smallest and the largest noise level, if it varies."""
        return None

    @property
    def card_estimate_share(self) -> float:
        """The share of an estimated level that the network is to be told in use."""
        return 1.0

    def problem(self) -> str | None:
        """What is wrong with the values, if anything."""
        return None

    def degrade(self, clean: np.ndarray, rng: np.random.Generator) -> Example:
        """Make an example from a clean image; all randomness comes from `rng`."""
        raise NotImplementedError(f"{type(self).__name__} defines no degrade(clean, rng)")

    def baseline(self, example: Example) -> tuple[str, np.ndarray] | None:
        """Name and image of the best result without a network; None where nothing is customary.

        The image is as large as the target, and not the input itself.
        """
        return None


@dataclass(frozen=True)
class Denoise(Task):
    """Gaussian noise: y = x + n, not clipped. A network with `noise_level` is told the level.

    Attributes:
        sigma: standard deviation of the noise, on the scale of 0 to 255.
        sigma_max: if given, each example has its own level, uniform from sigma to sigma_max.
    """

    name: ClassVar[imaging.Task] = "denoise"
    gives: ClassVar[tuple[str, ...]] = ("sigma",)

    sigma: float = 25.0
    sigma_max: float | None = None

    def problem(self) -> str | None:
        """What is wrong with the values, if anything."""
        if self.sigma < 0:
            return (
                f"task.sigma: got {self.sigma}; "
                "expected a standard deviation of at least 0 (of 255)"
            )
        if self.sigma_max is not None and self.sigma_max < self.sigma:
            return (
                f"task.sigma-max: got {self.sigma_max}, below task.sigma {self.sigma}; "
                "the levels are drawn from task.sigma to task.sigma-max"
            )
        return None

    @property
    def card_sigma(self) -> float | None:
        """The level, if it does not vary."""
        return self.sigma if self.sigma_max is None else None

    @property
    def card_sigma_range(self) -> tuple[float, float] | None:
        """The smallest and the largest level, if it varies."""
        return None if self.sigma_max is None else (self.sigma, self.sigma_max)

    def degrade(self, clean: np.ndarray, rng: np.random.Generator) -> Example:
        """Add noise."""
        sigma = self.sigma if self.sigma_max is None else rng.uniform(self.sigma, self.sigma_max)
        noisy = _example(clean, _unit(clean) + _noise(clean.shape, sigma, rng))
        return noisy | {"sigma": np.asarray(sigma / 255, np.float32)}

    def baseline(self, example: Example) -> tuple[str, np.ndarray] | None:
        """The best Gaussian blur, its width chosen by comparison with the target."""
        widths = np.arange(0.3, 3.01, 0.1)
        blurred = [
            imaging.circular_blur(example["input"], imaging.gaussian_kernel(19, float(width)))
            for width in widths
        ]
        errors = [np.mean((image - example["target"]) ** 2) for image in blurred]
        return "best Gaussian blur", blurred[int(np.argmin(errors))]


@dataclass(frozen=True)
class SuperResolve(Task):
    """Antialiased bicubic down-sampling of the float image, not rounded to 8 bits.

    Attributes:
        scale: enlargement: 2, 3 or 4.
    """

    name: ClassVar[imaging.Task] = "sr"

    scale: int = 4

    @property
    def margin(self) -> int:
        """Pixels around a patch that down-sampling sees: the cubic reaches 2 reduced pixels."""
        return 3 * self.scale

    def problem(self) -> str | None:
        """What is wrong with the values, if anything."""
        if self.scale not in (2, 3, 4):
            return f"task.scale: got {self.scale}; expected 2, 3 or 4"
        return None

    def degrade(self, clean: np.ndarray, rng: np.random.Generator) -> Example:
        """Down-sample; nothing is random."""
        target = imaging.modcrop(clean, self.scale)
        size = target.shape[0] // self.scale, target.shape[1] // self.scale
        return _example(target, imaging.resize(_unit(target), size))

    def baseline(self, example: Example) -> tuple[str, np.ndarray] | None:
        """Bicubic enlargement."""
        height, width = example["target"].shape[:2]
        return "bicubic", imaging.resize(example["input"], (height, width))


@dataclass(frozen=True)
class Deblur(Task):
    """Circular blur in 8 bits (truncated, as in the evaluation protocol), then noise.

    Half of the kernels are camera shakes, half isotropic Gaussians.

    Attributes:
        sigma: standard deviation of the noise, on the scale of 0 to 255.
        kernel_size: side of the blur kernels, in pixels.
        width_min: smallest standard deviation of the Gaussian kernels, in pixels.
        width_max: largest standard deviation of the Gaussian kernels, in pixels.
    """

    name: ClassVar[imaging.Task] = "deblur"
    gives: ClassVar[tuple[str, ...]] = ("kernel",)

    sigma: float = 2.55
    kernel_size: int = 7
    width_min: float = 0.4
    width_max: float = 2.4

    def problem(self) -> str | None:
        """What is wrong with the values, if anything."""
        if self.sigma < 0:
            return (
                f"task.sigma: got {self.sigma}; "
                "expected a standard deviation of at least 0 (of 255)"
            )
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            return (
                f"task.kernel-size: got {self.kernel_size}; expected an odd number: "
                "kernels are rotated about their center"
            )
        if not 0 < self.width_min <= self.width_max:
            return (
                f"task.width-min, task.width-max: got {self.width_min} and {self.width_max}; "
                "expected 0 < width-min <= width-max, in pixels"
            )
        return None

    @property
    def card_sigma(self) -> float | None:
        """The noise level."""
        return self.sigma

    def degrade(self, clean: np.ndarray, rng: np.random.Generator) -> Example:
        """Draw a kernel, blur, add noise."""
        from scipy import ndimage

        if rng.random() < 0.5:
            kernel = imaging.random_motion_kernel(self.kernel_size, rng)
        else:
            width = float(rng.uniform(self.width_min, self.width_max))
            kernel = imaging.gaussian_kernel(self.kernel_size, width)
        blurred = ndimage.convolve(clean, kernel[..., None], mode="wrap")
        example = _example(clean, _unit(blurred) + _noise(clean.shape, self.sigma, rng))
        return example | {"kernel": kernel.astype(np.float32)}


@dataclass(frozen=True)
class Paired(Task):
    """Pairs of input and target from files, not degraded; `data.inputs` turns any task into this.

    Attributes:
        name: "denoise", "sr" or "deblur".
        scale: 2, 3 or 4 for super-resolution, 1 for the others.
    """

    name: imaging.Task = "denoise"  # type: ignore[misc]
    scale: int = 1

    def problem(self) -> str | None:
        """What is wrong with the values, if anything."""
        scales = {"denoise": (1,), "sr": (2, 3, 4), "deblur": (1,)}
        if self.name not in scales:
            return f"task.name: got {self.name!r}; expected one of {', '.join(scales)}"
        if self.scale not in scales[self.name]:
            listed = " or ".join(map(str, scales[self.name]))
            return f"task.scale: got {self.scale}; expected {listed} for {self.name}"
        return None

    def example(self, clean: np.ndarray, given: np.ndarray) -> Example:
        """An example from a pair as it is."""
        return _example(clean, _unit(given))

    def baseline(self, example: Example) -> tuple[str, np.ndarray] | None:
        """Bicubic enlargement, or None."""
        return SuperResolve(self.scale).baseline(example) if self.name == "sr" else None


def _unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(255)


def _noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma / 255)


def _example(clean: np.ndarray, given: np.ndarray) -> Example:
    return {"input": given, "target": _unit(clean)}
