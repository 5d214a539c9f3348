"""Deblur and enlarge by plug-and-play with `denoise-color`, and by what is done without a network.

Every other method is given the number that is best for each image, which only a test knows: the
balance of Wiener's filter, the iterations of Richardson and Lucy, the weight of total variation.
"""

from __future__ import annotations

import json
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.command import Parser, Table, output_file
from benchmarks.photographs import psnr
from converse_jax import imaging, pnp
from converse_jax.bundled import BundledRestorer
from converse_jax.restore import Restorer
from converse_jax.weights import load

_BALANCES = np.geomspace(1e-4, 1, 25)
_LUCY_ITERATIONS = 300
_TV_WEIGHTS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
_TV_ITERATIONS = 30
_DATA_STEP = jax.jit(pnp.data_step)


def main() -> int:
    """Run the command; the exit status."""
    parser = Parser("benchmarks.solvers", __doc__)
    parser.add_argument("what", choices=("deblur", "enlarge"))
    parser.add_argument("images", type=Path, nargs="+", help="clean images, and folders of them")
    parser.add_argument(
        "--kernel",
        nargs="+",
        metavar="K",
        help="as for `converse-jax restore`, or shake:SIZE for a random camera shake",
    )
    parser.add_argument("--sigma", type=float, nargs="+", metavar="S", help="noise, of 255")
    parser.add_argument("--scale", type=int, nargs="+", default=[2, 3, 4], help="for `enlarge`")
    parser.add_argument("--model", metavar="M", help="also a network that takes the kernel")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write all figures")
    args = parser.parse_args()
    paths = [
        path
        for given in args.images
        for path in ([given] if given.is_file() else imaging.list_images(given))
    ]
    pixels = {path: imaging.read_image(path).pixels for path in paths}
    images = {path: imaging.to_reference_uint8(image, 3) for path, image in pixels.items()}
    rows = list((deblur if args.what == "deblur" else enlarge)(images, args))
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0


def deblur(images: dict[Path, np.ndarray], args: Namespace) -> Iterator[dict[str, object]]:
    """Rows of figures, one for each kernel and level; they are printed too."""
    network = BundledRestorer("deblur").restorer(3)
    methods = ["blurred", "Wiener", "Richardson-Lucy", "total variation", "pnp"]
    other = None
    if args.model is not None:
        other = Restorer(*load(args.model))
        methods.append(other.card.name)
    table = Table("kernel, sigma", dict.fromkeys(methods, ".2f"))
    for name in args.kernel or ["shake:19", "shake:23", "shake:27", "disk:5"]:
        kernel = _kernel(name)
        for sigma in args.sigma or [2.55, 7.65]:
            found: dict[str, list[float]] = {method: [] for method in methods}
            for image in images.values():
                y, target = imaging.degrade_deblur(image, kernel, sigma=sigma)
                level = sigma / 255
                figures = [
                    psnr(y, target),
                    max(psnr(wiener(y, kernel, b), target) for b in _BALANCES),
                    max(psnr(x, target) for x in richardson_lucy(y, kernel)),
                    max(psnr(total_variation(y, kernel, w), target) for w in _TV_WEIGHTS),
                    psnr(network(y, kernel=kernel, sigma=level, extend_borders=False), target),
                ]
                if other is not None:
                    told = {"sigma": level} if other.takes_sigma else {}
                    figures.append(
                        psnr(other(y, kernel=kernel, extend_borders=False, **told), target)
                    )
                for method, value in zip(methods, figures, strict=True):
                    found[method].append(value)
            table.add(f"{name}, {sigma:g}", [statistics.mean(found[m]) for m in methods])
            yield {
                "kernel": name,
                "sigma": sigma,
                "images": [p.name for p in images],
                "psnr": found,
            }


def enlarge(images: dict[Path, np.ndarray], args: Namespace) -> Iterator[dict[str, object]]:
    """Rows of figures on luma, one for each scale, kernel and level; they are printed too."""
    methods = ["bicubic", "pnp"]
    table = Table("scale, kernel, sigma", dict.fromkeys(methods, ".2f"))
    for scale in args.scale:
        restorer = BundledRestorer("sr", scale=scale, solver="pnp").restorer(3)
        for name in args.kernel or ["bicubic", "gaussian:0.7", "gaussian:1.2", "gaussian:1.6"]:
            kernel = None if name == "bicubic" else _kernel(name)
            for sigma in args.sigma or [0.0]:
                found: dict[str, list[float]] = {method: [] for method in methods}
                for image in images.values():
                    y, target = imaging.degrade_sr(image, scale=scale, kernel=kernel, sigma=sigma)
                    taps = imaging.bicubic_kernel(scale) if kernel is None else kernel
                    simple = pnp.initial_estimate(jnp.asarray(y), jnp.asarray(taps, y.dtype), scale)
                    extend = kernel is None  # a kernel's blur is circular
                    solved = restorer(y, kernel=kernel, sigma=sigma / 255, extend_borders=extend)
                    for method, x in zip(methods, (simple, solved), strict=True):
                        x = imaging.to_uint8(np.asarray(x))
                        figures = imaging.score(x, target, task="sr", scale=scale)
                        found[method].append(figures["psnr_y"])
                table.add(
                    f"x{scale}, {name}, {sigma:g}", [statistics.mean(found[m]) for m in methods]
                )
                names = [p.name for p in images]
                yield {
                    "scale": scale,
                    "kernel": name,
                    "sigma": sigma,
                    "images": names,
                    "psnr_y": found,
                }


def _kernel(name: str) -> np.ndarray:
    if name.startswith("shake:"):
        size = int(name.removeprefix("shake:"))
        return imaging.random_motion_kernel(size, np.random.default_rng(size))
    return imaging.read_kernel(name)[0]


def wiener(y: np.ndarray, kernel: np.ndarray, balance: float) -> np.ndarray:
    """`skimage.restoration.wiener`, channel by channel."""
    from skimage import restoration

    maps = (restoration.wiener(x, kernel, balance, clip=False) for x in np.moveaxis(y, -1, 0))
    return np.stack(list(maps), axis=-1)


def richardson_lucy(y: np.ndarray, kernel: np.ndarray) -> Iterator[np.ndarray]:
    """The iterates, for a circular blur (skimage's takes black beyond the borders)."""
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ValueError("kernel: got an even size; expected odd, which can be turned")
    turned = kernel[::-1, ::-1]  # blurring with it is the adjoint
    x, y = np.full_like(y, 0.5), np.clip(y, 0, None)
    for _ in range(_LUCY_ITERATIONS):
        ratio = y / np.maximum(imaging.circular_blur(x, kernel), 1e-6)
        x = x * imaging.circular_blur(ratio, turned)
        yield x


def total_variation(y: np.ndarray, kernel: np.ndarray, weight: float) -> np.ndarray:
    """ADMM on `||y - k (*) x||^2 / 2 + (rho weight) TV(x)`, with Chambolle's proximal operator."""
    from skimage import restoration

    prox: Callable[..., np.ndarray] = restoration.denoise_tv_chambolle
    taps, lam = kernel.astype(np.float32), np.float32(0.05)
    x, dual = y, np.zeros_like(y)
    for _ in range(_TV_ITERATIONS):
        z = np.asarray(_DATA_STEP(y, taps, x - dual, lam))
        x = prox(z + dual, weight, channel_axis=-1, max_num_iter=30)
        dual = dual + z - x
    return x


if __name__ == "__main__":
    sys.exit(main())
