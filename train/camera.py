"""The degradation of ordinary photographs, as a task: sensor noise, processing, slight blur, JPEG.

Every step between sensor and file that adds or hides noise is modeled in its simplest form. Steps
that change the scene itself (lens correction, tone curves, edge-preserving denoising, sharpening)
are not: a network trained to undo them would alter undamaged images.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from converse_jax import imaging
from train.tasks import Example, Task

_MIDDLE = 0.18  # middle gray in linear light; noise levels are measured here


@dataclass(frozen=True)
class Photo(Task):
    """Photographs as cameras store them: y = JPEG(sRGB(blur(x) + n)), noise n of unknown level.

    An example has `input`, `target` and `sigma`, the noise level that the network is told, in units
    of [0, 1]: the true level (see `degrade_as_camera`) or the patch's `imaging.estimate_noise`. In
    use only an estimate from the whole photograph is known: without noise it lies between the two,
    with noise it is below both, by a third on average. Trained on estimates, a network learns that
    texture may have been mistaken for noise, and leaves it alone.

    Attributes:
        noise_min: lowest standard deviation of the noise at middle gray, on the scale of 0 to 255.
            Over a whole image it is about 1.5 times as high: dark and amplified colors have more.
        noise_max: highest such level. Its logarithm has a triangular distribution: few are near the
            ends.
        clean: share of nearly undamaged examples: at most 1 level of noise, sharp, JPEG quality of
            at least 90 or no JPEG; a third of them equal their target exactly.
        white: share of the others with white Gaussian noise in sRGB.
        blur: share of the others that are blurred.
        blur_max: largest standard deviation of the blur, in pixels.
        jpeg: share of the others that are stored as JPEG.
        quality_min: lowest JPEG quality, as Pillow counts it.
        quality_max: highest JPEG quality.
        estimated: share of all examples whose `sigma` is the estimate.
        estimate_share: share of the estimate that the network is told in use, for its card;
            training has no part in it.
    """

    name: ClassVar[imaging.Task] = "denoise"
    gives: ClassVar[tuple[str, ...]] = ("sigma",)

    noise_min: float = 0.4
    noise_max: float = 16.0
    clean: float = 0.25
    white: float = 0.25
    blur: float = 0.35
    blur_max: float = 0.7
    jpeg: float = 0.8
    quality_min: int = 60
    quality_max: int = 98
    estimated: float = 0.5
    estimate_share: float = 1.0

    @property
    def margin(self) -> int:
        """Pixels around a patch, so that blur, demosaicing and JPEG blocks are not cut off."""
        return 8

    @property
    def card_sigma_range(self) -> tuple[float, float]:
        """From 0 to the strongest noise over a whole image (`noise_max` is at middle gray)."""
        return 0.0, 1.5 * self.noise_max

    @property
    def card_estimate_share(self) -> float:
        """As given."""
        return self.estimate_share

    def problem(self) -> str | None:
        """What is wrong with the values, if anything."""
        for field in ("clean", "white", "blur", "jpeg", "estimated", "estimate_share"):
            if not 0 <= getattr(self, field) <= 1:
                name, got = field.replace("_", "-"), getattr(self, field)
                return f"task.{name}: got {got}; expected a share from 0 to 1"
        if not 0 < self.noise_min <= self.noise_max < math.inf:
            return (
                f"task.noise-min, task.noise-max: got {self.noise_min} and {self.noise_max}; "
                "expected 0 < noise-min <= noise-max (of 255)"
            )
        if not 0 <= self.blur_max <= 0.7:
            return f"task.blur-max: got {self.blur_max}; expected 0 to 0.7 pixels"
        if not 1 <= self.quality_min <= self.quality_max <= 100:
            return (
                f"task.quality-min, task.quality-max: got {self.quality_min} and "
                f"{self.quality_max}; expected 1 <= quality-min <= quality-max <= 100"
            )
        return None

    def degrade(self, clean: np.ndarray, rng: np.random.Generator) -> Example:
        """Degrade an image as a camera would."""
        given, sigma = degrade_as_camera(clean, rng, photo=self)
        if rng.random() < self.estimated:
            sigma = imaging.estimate_noise(given)
        target = clean.astype(np.float32) / np.float32(255)
        return {"input": given, "target": target, "sigma": np.asarray(sigma, np.float32)}


_PHOTO = Photo()


def degrade_as_camera(
    clean: np.ndarray, rng: np.random.Generator, *, photo: Photo = _PHOTO
) -> tuple[np.ndarray, float]:
    """Degrade a clean image as a camera would.

        y = JPEG(q(sRGB(h (*) x + n))),   var n = a (h (*) x) + b on a Bayer mosaic

    with x in linear light; n demosaiced bilinearly, then shaped as a camera's denoising and
    sharpening shape it (both spare edges, so x is left as it is); q rounds to 8 bits. The returned
    noise level is what is left in the file,

        sigma^2 = mean((y - y0)^2),   y0 = JPEG(q(sRGB(h (*) x)))

    not what JPEG erased, which cannot be found in the file. With y0 not compressed, JPEG's errors
    at edges would count as noise in clean images. JPEG's grid of 8x8 or 16x16 pixels has a random
    offset: a patch may come from anywhere in a photograph.

    Args:
        clean: uint8 `[H, W, 1]` or `[H, W, 3]`.
        rng: draws everything.
        photo: ranges and shares.

    Returns:
        The photograph, float32 `[H, W, C]` in [0, 1], in steps of 1/255; and its noise level, in
        units of [0, 1], 0 without noise.

    Raises:
        ValueError: wrong dtype or shape.

    Source: A. Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data", IEEE TIP 17(10), 2008; the chain is a simple form of S. Guo et al.,
    "Toward convolutional blind denoising of real photographs", CVPR 2019, section 3.1.
    """
    if clean.dtype != np.uint8 or clean.ndim != 3 or clean.shape[2] not in (1, 3):
        raise ValueError(
            f"clean: got {clean.dtype} {clean.shape}; expected uint8 [H, W, 1] or [H, W, 3]"
        )
    level, blur, quality, white = _settings(photo, rng)
    linear = _LINEAR[clean]
    if blur > 0:
        linear = _smooth(linear, blur**2 / 2)
    without = _encoded(linear) if blur > 0 else clean
    noisy = without
    if level > 0 and white:
        noise = rng.standard_normal(clean.shape, dtype=np.float32) * np.float32(level)
        noisy = np.clip(np.rint(without + noise), 0, 255).astype(np.uint8)
    elif level > 0:
        noisy = _encoded(linear + _sensor_noise(linear, level, rng))
    if quality is not None:
        corner, subsampling = rng.integers(16, size=2), int(rng.choice((0, 2)))
        photographs = noisy, without
        noisy, without = (_through_jpeg(y, corner, quality, subsampling) for y in photographs)
    difference = noisy.astype(np.float32) - without
    sigma = math.sqrt(float(np.mean(np.square(difference)))) / 255
    return noisy.astype(np.float32) / np.float32(255), sigma


def phone_like(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The photograph of the acceptance test: noise of 3 to 6 levels, slight blur, good JPEG.

        y = JPEG(round(255 (h (*) x + n))),   var n = s^2 (x + 0.1) / 0.6 in sRGB

    s uniform from 3 to 6 (of 255), h Gaussian of 0.4 to 0.7 pixels, quality 88 to 92 with chroma
    halved. It shares no code with `degrade_as_camera`: blur and noise are applied in sRGB, the
    noise is independent across pixels and channels, and JPEG's grid starts at the corner.

    Args:
        clean: uint8 `[H, W, 1]` or `[H, W, 3]`.
        rng: draws everything.

    Returns:
        float32 `[H, W, C]` in [0, 1], in steps of 1/255.
    """
    from PIL import Image
    from scipy import ndimage

    width, level = rng.uniform(0.4, 0.7), rng.uniform(3, 6)
    seen = ndimage.gaussian_filter(clean.astype(np.float64), (width, width, 0), mode="nearest")
    noise = rng.standard_normal(clean.shape) * level * np.sqrt((seen / 255 + 0.1) / 0.6)
    pixels = np.clip(np.rint(seen + noise), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
        file, "JPEG", quality=int(rng.integers(88, 93))
    )
    return np.asarray(Image.open(file), np.float32).reshape(clean.shape) / np.float32(255)


def _settings(photo: Photo, rng: np.random.Generator) -> tuple[float, float, int | None, bool]:
    """Noise level (0 to 255), blur (pixels), JPEG quality or None, whether the noise is white."""
    white = rng.random() < photo.white
    if rng.random() < photo.clean:
        kind = rng.integers(3)  # unchanged; a good JPEG; hardly any noise, JPEG or not
        level = rng.uniform(0, 1) if kind == 2 else 0.0
        good = (
            int(rng.integers(90, 99)) if kind == 1 or (kind == 2 and rng.random() < 0.5) else None
        )
        return level, 0.0, good, white
    low, high = math.log(photo.noise_min), math.log(photo.noise_max)
    # Two uniform numbers have a triangular sum; `rng.triangular` does not take low == high.
    level = math.exp(low + (high - low) * (rng.random() + rng.random()) / 2)
    blur = rng.uniform(0, photo.blur_max) if rng.random() < photo.blur else 0.0
    quality = int(rng.integers(photo.quality_min, photo.quality_max + 1))
    return level, blur, quality if rng.random() < photo.jpeg else None, white


def _sensor_noise(linear: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Shot and read noise in linear light, of `level` (0 to 255) at middle gray in sRGB."""
    height, width, channels = linear.shape
    variance = (level / 255 / _SLOPE) ** 2
    read = math.exp(rng.uniform(math.log(0.003), math.log(0.3)))
    shot, read = (1 - read) * variance / _MIDDLE, read * variance
    if channels == 1:
        at_sites = shot * linear + read
    else:
        # White balance amplifies red and blue, read noise included.
        gains = np.array([rng.uniform(1, 2), 1, rng.uniform(1, 2)], np.float32)
        at_sites = (shot * linear + read * gains) * gains
    unit = rng.standard_normal((height, width), dtype=np.float32)
    if channels == 1:
        noise = unit[..., None] * np.sqrt(at_sites)
    else:
        mosaic = np.zeros_like(linear)
        top, left = rng.integers(2, size=2)
        for row, column, color in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
            sites = slice((row + top) % 2, None, 2), slice((column + left) % 2, None, 2)
            mosaic[(*sites, color)] = unit[sites] * np.sqrt(at_sites[(*sites, color)])
        noise = _demosaiced(mosaic)
        if rng.random() < 0.5:  # cameras smooth color more than brightness
            gray = np.einsum("hwc,c->hw", noise, np.array([0.299, 0.587, 0.114], np.float32))
            noise = gray[..., None] + np.float32(rng.uniform(0.2, 1)) * (noise - gray[..., None])
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(1, 3))):
            noise = _smooth(noise, rng.uniform(0.05, 0.25))
    if rng.random() < 0.3:
        noise += np.float32(rng.uniform(0.2, 1)) * (noise - _smooth(noise, 0.25))
    # Shaping changed the strength: restore the one that was drawn.
    strength = math.sqrt(float(np.mean(at_sites)) / max(float(np.mean(np.square(noise))), 1e-20))
    return noise * np.float32(strength)


def _demosaiced(mosaic: np.ndarray) -> np.ndarray:
    """Bilinear demosaicing of `[H, W, 3]`, zero where a color has no site."""
    red_blue = 4 * _smooth(mosaic, 0.25)  # [1 2 1]/2 along both axes
    p = np.pad(mosaic[..., 1], 1, mode="reflect")
    around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
    red_blue[..., 1] = mosaic[..., 1] + around / 4
    return red_blue


def _smooth(x: np.ndarray, share: float) -> np.ndarray:
    """[t, 1 - 2t, t] along rows and columns, nearly a Gaussian of variance 2t for t up to 1/4."""
    t, middle = np.float32(share), np.float32(1 - 2 * share)
    p = np.pad(x, ((1, 1), (0, 0), (0, 0)), mode="reflect")
    x = middle * x + t * (p[:-2] + p[2:])
    p = np.pad(x, ((0, 0), (1, 1), (0, 0)), mode="reflect")
    return middle * x + t * (p[:, :-2] + p[:, 2:])


def _to_linear(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _to_srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


# IEC 61966-2-1, tabulated: computing powers per pixel would take most of the time.
_LINEAR = _to_linear(np.arange(256) / 255).astype(np.float32)
_SRGB = np.rint(255 * _to_srgb(np.arange(65536) / 65535)).astype(np.uint8)
_SLOPE = 1.055 / 2.4 * _MIDDLE ** (1 / 2.4 - 1)  # of sRGB at middle gray


def _encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light, clipped to [0, 1], as 8-bit sRGB."""
    return _SRGB[(np.clip(linear, 0, 1) * np.float32(65535) + np.float32(0.5)).astype(np.uint16)]


def _through_jpeg(
    pixels: np.ndarray, corner: np.ndarray, quality: int, subsampling: int
) -> np.ndarray:
    """Encode and decode, with JPEG's grid starting `corner` pixels above and to the left."""
    from PIL import Image

    top, left = map(int, corner)
    padded = np.pad(pixels, ((top, 0), (left, 0), (0, 0)), mode="edge")
    file = io.BytesIO()
    Image.fromarray(padded.squeeze(2) if padded.shape[2] == 1 else padded).save(
        file, "JPEG", quality=quality, subsampling=subsampling
    )
    decoded = np.asarray(Image.open(file)).reshape(padded.shape)
    return decoded[top:, left:]
