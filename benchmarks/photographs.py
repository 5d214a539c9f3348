"""Measure what the bundled networks do to photographs that they were not trained on."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.command import Parser, Table
from converse_jax import Restorer, WeightsError, imaging, load
from converse_jax.bundled import BundledRestorer
from train.camera import phone_like

_COUNT = 30
"""Images that are taken of a folder, evenly spread."""
_UNCHANGED = 60.0
"""PSNR, in dB, at which a clean image counts as left alone."""


def main() -> int:
    """Run the command; the exit status."""
    parser = Parser("benchmarks.photographs", __doc__)
    commands = (
        "phone: `photo`, or --model, on phone-like photographs (noise of 3 to 6 levels, slight "
        "blur, JPEG 88 to 92) and on clean ones, exit status 1 if any loses more than 0.1 dB; "
        "denoise: `denoise-color` and the denoisers of scikit-image, all told the noise level"
    )
    parser.add_argument("what", choices=("phone", "denoise"), help=commands)
    parser.add_argument("folder", type=Path, help="clean images")
    parser.add_argument("--sigma", type=float, default=25, help="noise for `denoise`, of 255")
    parser.add_argument("--model", default="photo", help="name or file of weights for `phone`")
    args = parser.parse_args()
    if args.what == "denoise" and args.model != "photo":
        parser.error("--model is for phone")
    try:
        restorer = Restorer(*load(args.model)) if args.what == "phone" else None
        paths = imaging.list_images(args.folder)
    except (WeightsError, imaging.ImageError) as error:
        parser.error(str(error))
    if restorer is not None and not restorer.card.needs_sigma:
        name = restorer.card.name
        parser.error(f"--model: {name} is told no noise level; expected a network like photo")
    taken = np.linspace(0, len(paths) - 1, min(_COUNT, len(paths))).astype(int)
    pixels = {paths[i]: imaging.read_image(paths[i]).pixels for i in taken}
    images = {path: imaging.to_reference_uint8(image, 3) for path, image in pixels.items()}
    return denoise(images, args.sigma) if restorer is None else phone(images, restorer)


def phone(images: Mapping[Path, np.ndarray], restorer: Restorer) -> int:
    """Print a row for each image, and the mean and the worst gain."""
    table = Table("image", {"level": ".1f", "before dB": ".2f", "after dB": ".2f"})
    gains, clean = [], []
    for i, (path, target) in enumerate(images.items()):
        degraded = phone_like(target, np.random.default_rng(i))
        for kind, image in (("phone", degraded), ("clean", target.astype(np.float32) / 255)):
            plan = restorer.plan(image)
            assert plan.sigma is not None
            restored = restorer(image, sigma=plan.sigma)
            before, after = (min(psnr(x, target), _UNCHANGED) for x in (image, restored))
            table.add(f"{path.name}, {kind}", [255 * plan.sigma, before, after])
            if kind == "phone":
                gains.append(after - before)
            else:
                clean.append(after)
    print(f"phone-like: mean gain {statistics.mean(gains):+.2f} dB, worst {min(gains):+.2f} dB")
    print(f"clean: left at {statistics.mean(clean):.1f} dB on average, {min(clean):.1f} at worst")
    return 1 if min(gains) < -0.1 else 0


def denoise(images: Mapping[Path, np.ndarray], sigma: float) -> int:
    """Print PSNR and time of each denoiser, over all images."""
    from skimage import restoration as skimage

    s = sigma / 255
    patches = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * s, "sigma": s}
    wavelets = {"convert2ycbcr": True, "rescale_sigma": True, "sigma": s}
    denoisers: dict[str, Callable[..., np.ndarray]] = {
        "noisy": lambda image: image,
        "denoise-color": partial(BundledRestorer("denoise").restorer(3), sigma=s),
        "non-local means": partial(skimage.denoise_nl_means, channel_axis=-1, **patches),
        "total variation": partial(skimage.denoise_tv_chambolle, channel_axis=-1, weight=1.5 * s),
        "wavelets (BayesShrink)": partial(skimage.denoise_wavelet, channel_axis=-1, **wavelets),
    }
    pairs = [imaging.degrade_denoise(image, sigma=sigma) for image in images.values()]
    print(f"{len(images)} images, sigma {sigma:g}: mean PSNR, median seconds an image")
    table = Table("denoiser", {"PSNR dB": ".2f", "seconds": ".3f"})
    for name, denoiser in denoisers.items():
        values, seconds = [], []
        try:
            for noisy, _ in pairs[:2]:
                denoiser(noisy)  # compiled, imported
            for noisy, target in pairs:
                start = time.perf_counter()
                restored = denoiser(noisy)
                seconds.append(time.perf_counter() - start)
                values.append(psnr(restored, target))
        except ImportError as error:
            table.add(name, [], f"not run: {error}")
        else:
            table.add(name, [statistics.mean(values), statistics.median(seconds)])
    return 0


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    """PSNR of an image in [0, 1] against one of 8 bits."""
    return imaging.psnr(imaging.to_uint8(image), target)


if __name__ == "__main__":
    sys.exit(main())
