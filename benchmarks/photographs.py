"""Measure what the bundled networks do to photographs.

DIR holds clean images never trained on. WHAT is one of

  phone    `photo` on phone-like photographs (noise of 3 to 6 levels, slight blur, JPEG 88 to 92)
           and on clean ones, and the worst of them; exit status 1 if any loses more than 0.1 dB
  denoise  `denoise-color` beside the denoisers of scikit-image, all told the noise level;
           wavelets need PyWavelets
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.process import Parser, positive
from benchmarks.table import Table
from converse_jax import imaging
from converse_jax.bundled import BundledRestorer
from train.camera import phone_like

_UNCHANGED = 60.0
"""PSNR, in dB, at which a clean image counts as left alone."""
_PHONE_COLUMNS = {
    "level": ("level", ".1f"),
    "before dB": ("before", ".2f"),
    "after dB": ("after", ".2f"),
}


def main() -> int:
    """Run the command; the exit status."""
    parser = Parser("benchmarks.photographs", __doc__)
    parser.add_argument("what", metavar="WHAT", choices=("phone", "denoise"), help="see above")
    parser.add_argument("folder", metavar="DIR", type=Path, help="clean images")
    parser.add_argument("--count", type=positive, default=30, help="images to take, evenly spread")
    parser.add_argument("--sigma", type=float, default=25, help="noise for `denoise`, of 255")
    args = parser.parse_args()
    paths = imaging.list_images(args.folder)
    taken = np.linspace(0, len(paths) - 1, min(args.count, len(paths))).astype(int)
    paths = [paths[i] for i in taken]
    images = [imaging.to_reference_uint8(imaging.read_image(path).pixels, 3) for path in paths]
    if args.what == "phone":
        return phone([path.name for path in paths], images)
    return denoise(images, args.sigma)


def phone(names: list[str], images: list[np.ndarray]) -> int:
    """Print a line an image, and the mean and the worst gain."""
    restorer = BundledRestorer("photo")
    table = Table("image", _PHONE_COLUMNS, width=30)
    gains: list[float] = []
    clean: list[float] = []
    for i, (name, target) in enumerate(zip(names, images, strict=True)):
        degraded = phone_like(target, np.random.default_rng(i))
        for kind, image in (("phone", degraded), ("clean", target.astype(np.float32) / 255)):
            plan = restorer.plan(image)
            assert plan.sigma is not None
            restored = plan.restorer(image, sigma=plan.sigma)
            before = min(psnr(image, target), _UNCHANGED)
            after = min(psnr(restored, target), _UNCHANGED)
            values = {"level": 255 * plan.sigma, "before": before, "after": after}
            table.add(f"{name}, {kind}", values)
            if kind == "phone":
                gains.append(after - before)
            else:
                clean.append(after)
    print(f"phone-like: mean gain {statistics.mean(gains):+.2f} dB, worst {min(gains):+.2f} dB")
    print(f"clean: left at {statistics.mean(clean):.1f} dB on average, {min(clean):.1f} at worst")
    return 1 if min(gains) < -0.1 else 0


def denoise(images: list[np.ndarray], sigma: float) -> int:
    """Print PSNR and time of each denoiser, over all images."""
    from skimage import restoration as skimage

    told = {"sigma": sigma / 255, "channel_axis": -1}
    strength = {"h": 0.8 * sigma / 255, "patch_size": 5, "patch_distance": 6}
    wavelets = {"convert2ycbcr": True, "rescale_sigma": True}
    denoisers: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "noisy": lambda image: image,
        "denoise-color": partial(BundledRestorer("denoise").restorer(3), sigma=sigma / 255),
        "non-local means": partial(skimage.denoise_nl_means, **strength, **told),
        "total variation": partial(
            skimage.denoise_tv_chambolle, weight=1.5 * sigma / 255, channel_axis=-1
        ),
        "wavelets (BayesShrink)": partial(skimage.denoise_wavelet, **wavelets, **told),
    }
    noisy = [
        (image / 255 + imaging.protocol_noise(image.shape, sigma)).astype(np.float32)
        for image in images
    ]
    print(f"{len(images)} images, sigma {sigma:g}: mean PSNR, median seconds an image")
    table = Table("denoiser", {"PSNR dB": ("psnr", ".2f"), "seconds": ("seconds", ".3f")}, width=30)
    for name, denoiser in denoisers.items():
        values, seconds = [], []
        try:
            for image in noisy[:2]:
                denoiser(image)  # compiled, imported
            for image, target in zip(noisy, images, strict=True):
                start = time.perf_counter()
                restored = denoiser(image)
                seconds.append(time.perf_counter() - start)
                values.append(psnr(restored, target))
        except ImportError as error:
            table.add(name, {}, f"not run: {error}")
            continue
        mean = statistics.mean(values)
        table.add(name, {"psnr": mean, "seconds": statistics.median(seconds)})
    return 0


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    """Of an image in [0, 1] against one of 8 bit."""
    return imaging.psnr(imaging.to_uint8(image), target)


if __name__ == "__main__":
    sys.exit(main())
