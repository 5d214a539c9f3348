"""`python -m benchmarks.photographs WHAT DIR`: what the bundled networks do to photographs.

DIR holds clean images never trained on, WHAT is

phone    `photo` on phone-like photographs (noise of 3 to 6 levels, slight blur, JPEG 88 to 92) and
         on clean ones: the gain of each, and the worst
denoise  `denoise-color`, told the level, beside the denoisers of scikit-image, told it as well:
         PSNR and seconds an image. Wavelets need PyWavelets.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from converse_jax.bundled import BundledRestorer
from converse_jax.imaging import (
    Image,
    list_images,
    protocol_noise,
    psnr,
    read_image,
    to_reference_uint8,
    to_uint8,
    write_image,
)
from train.camera import phone_like

Denoiser = Callable[[np.ndarray], np.ndarray]


def main() -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.add_argument("what", choices=("phone", "denoise"), help="comparison to make")
    parser.add_argument("folder", type=Path, help="clean images, never trained on")
    parser.add_argument("--count", type=int, default=30, help="images to take, evenly spread")
    parser.add_argument("--sigma", type=float, default=25, help="noise, 0-255 scale")
    parser.add_argument("--save", type=Path, help="folder for before and after, side by side")
    args = parser.parse_args()
    paths = list_images(args.folder)
    chosen = [
        paths[i] for i in np.linspace(0, len(paths) - 1, min(args.count, len(paths))).astype(int)
    ]
    if args.what == "phone":
        return phone(chosen, args.save)
    return denoise(chosen, args.sigma)


def phone(paths: list[Path], save: Path | None) -> int:
    """Print a line an image, and the mean and the worst gain; 1 if any loses more than 0.1 dB."""
    restorer = BundledRestorer("photo")
    gains: dict[str, list[float]] = {"phone": [], "clean": []}
    for i, path in enumerate(paths):
        target = to_reference_uint8(read_image(path).pixels, 3)
        given = {
            "phone": phone_like(target, np.random.default_rng(i)),
            "clean": target.astype(np.float32) / 255,
        }
        for kind, image in given.items():
            plan = restorer.plan(image)
            assert plan.sigma is not None
            restored = to_uint8(plan.restorer(image, sigma=plan.sigma))
            before = psnr(to_uint8(image), target) if kind == "phone" else 60.0
            # A clean image has no PSNR to lose: what is measured is how little it is changed.
            after = min(psnr(restored, target), 60.0)
            gains[kind].append(after - before)
            print(
                f"{path.name:<14} {kind}  level {255 * plan.sigma:4.1f}  "
                f"{before:5.2f} -> {after:5.2f} dB",
                flush=True,
            )
            if save is not None and kind == "phone":
                save.mkdir(parents=True, exist_ok=True)
                sides = np.concatenate([image, restored.astype(np.float32) / 255], axis=1)
                write_image(save / f"{path.stem}.png", Image(sides), overwrite=True)
    worst = min(gains["phone"])
    print(f"phone-like: mean gain {statistics.mean(gains['phone']):+.2f} dB, worst {worst:+.2f} dB")
    kept = [60 + gain for gain in gains["clean"]]
    print(f"clean: left at {statistics.mean(kept):.1f} dB on average, {min(kept):.1f} at worst")
    return 1 if worst < -0.1 else 0


def denoise(paths: list[Path], sigma: float) -> int:
    """Print PSNR and time of each denoiser, means over the images."""
    from skimage import restoration

    level = sigma / 255
    restorer = BundledRestorer("denoise").restorer(3)
    denoisers: dict[str, Denoiser] = {
        "denoise-color": functools.partial(restorer, sigma=level),
        "non-local means": lambda x: restoration.denoise_nl_means(
            x, patch_size=5, patch_distance=6, h=0.8 * level, sigma=level, channel_axis=-1
        ),
        "total variation": lambda x: restoration.denoise_tv_chambolle(
            x, weight=1.5 * level, channel_axis=-1
        ),
        "wavelets (BayesShrink)": lambda x: restoration.denoise_wavelet(
            x, sigma=level, convert2ycbcr=True, channel_axis=-1, rescale_sigma=True
        ),
    }
    clean = [to_reference_uint8(read_image(path).pixels, 3) for path in paths]
    noisy = [np.float32(c / 255 + protocol_noise(c.shape, sigma)) for c in clean]
    print(f"{len(paths)} images, sigma {sigma:g}: mean PSNR, median seconds an image")
    print(f"{'noisy':<24}{statistics.mean(map(_psnr, noisy, clean)):6.2f} dB")
    for name, denoiser in denoisers.items():
        try:
            for image in noisy[:2]:
                denoiser(image)  # compiled, imported
            values, seconds = [], []
            for image, target in zip(noisy, clean, strict=True):
                start = time.perf_counter()
                restored = denoiser(image)
                seconds.append(time.perf_counter() - start)
                values.append(_psnr(restored, target))
        except ImportError as error:
            print(f"{name:<24}not run: {error}")
            continue
        mean = statistics.mean(values)
        print(f"{name:<24}{mean:6.2f} dB  {statistics.median(seconds):7.3f} s", flush=True)
    return 0


def _psnr(image: np.ndarray, target: np.ndarray) -> float:
    return psnr(to_uint8(image), target)


if __name__ == "__main__":
    sys.exit(main())
