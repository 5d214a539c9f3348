"""Whole files of every kind that is read, made by us, for the fuzzer to damage."""

from __future__ import annotations

import functools
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import safetensors.numpy
from flax import nnx
from PIL import Image as PilImage
from scipy import io as scipy_io

import converse_jax
from converse_jax import ModelCard
from converse_jax.models import ConverseDnCNN
from tests.imaging.images import exif, pillow, profile, samples
from tests.reliability.mutate import undated
from tests.weights.pth_files import PthFile

KERNEL = np.outer([1, 2, 1], [1, 3, 1]) / 20
CONFIG = {"channels": 1, "num_features": 2, "num_blocks": 1, "kernel_size": 3}


@functools.cache
def images() -> dict[str, bytes]:
    """Small images of every format and of the kinds within each that are decoded differently."""
    rgb, gray = samples((12, 10, 3)), samples((12, 10))
    image = PilImage.fromarray(rgb)
    palette = PilImage.fromarray(gray % 3)
    palette.putpalette(bytes(range(9)))
    more = [PilImage.fromarray(samples((12, 10, 3), seed=n)) for n in (1, 2)]
    meta = {"exif": exif(6), "icc_profile": profile(b"RGB ")}
    floats = np.random.default_rng(0).random((12, 10, 3), np.float32)
    return {
        "png": pillow(image, "PNG", **meta),
        "png-alpha": pillow(PilImage.fromarray(samples((12, 10, 4))), "PNG"),
        "png-palette": pillow(palette, "PNG", transparency=1),
        "png16": bytes(imagecodecs.png_encode(samples((12, 10, 4), 16))),
        "jpeg": pillow(image, "JPEG", **meta),
        "jpeg-progressive": pillow(image, "JPEG", progressive=True),
        "jpeg-cmyk": pillow(image.convert("CMYK"), "JPEG"),
        "jpeg12": bytes(imagecodecs.jpeg8_encode(samples((12, 10), 16) >> 4, bitspersample=12)),
        "webp": pillow(image, "WEBP", lossless=True, **meta),
        "webp-lossy": pillow(image, "WEBP", quality=50),
        "bmp": pillow(image, "BMP"),
        "gif": pillow(palette, "GIF"),
        "avif": pillow(image, "AVIF"),
        "jxl": bytes(imagecodecs.jpegxl_encode(rgb, lossless=True)),
        "jp2": bytes(imagecodecs.jpeg2k_encode(rgb, level=0)),
        "pgm": b"P5\n# made by us\n10 12 255\n" + gray.tobytes(),
        "ppm-ascii": b"P3 2 2 9\n" + b" ".join(b"%d" % (n % 10) for n in range(12)),
        "pfm": b"PF\n10 12\n-1.0\n" + floats.astype("<f4").tobytes(),
        "tiff": pillow(image, "TIFF", **meta),
        "tiff-pages": pillow(image, "TIFF", save_all=True, append_images=more),
        "tiff-palette": pillow(palette, "TIFF", compression="tiff_lzw"),
        "tiff-cmyk": pillow(image.convert("CMYK"), "TIFF"),
        "tiff16": bytes(imagecodecs.tiff_encode(samples((12, 10, 3), 16), compression="lzw")),
        "tiff-float": bytes(imagecodecs.tiff_encode(floats, photometric="rgb")),
        "tiff-jpeg": pillow(image, "TIFF", compression="jpeg"),
        "tiff-deflate": pillow(image, "TIFF", compression="tiff_adobe_deflate"),
        "tga.tga": pillow(image, "TGA", compression="tga_rle"),
    }


@functools.cache
def kernels() -> dict[str, bytes]:
    """A blur kernel as every kind of file."""
    text = "\n".join(" ".join(f"{tap:.4f}" for tap in row) for row in KERNEL)
    counts = (KERNEL * 200).astype(np.uint8)
    arrays = {"kernel": KERNEL, "sigma": np.ones((1, 1))}

    def saved(save: Callable[[io.BytesIO], object]) -> bytes:
        file = io.BytesIO()
        save(file)
        return file.getvalue()

    def matlab(**options: object) -> bytes:
        data = saved(lambda file: scipy_io.savemat(file, arrays, **options))
        return b"MATLAB 5.0 MAT-file".ljust(116) + data[116:]  # without the date

    return {
        "k.npy": saved(lambda file: np.save(file, KERNEL)),
        "k.npz": undated(saved(lambda file: np.savez(file, kernel=KERNEL))),
        "packed.npz": undated(saved(lambda file: np.savez_compressed(file, kernel=KERNEL))),
        "k.mat": matlab(),
        "packed.mat": matlab(do_compression=True),
        "v4.mat": saved(lambda file: scipy_io.savemat(file, arrays, format="4")),
        "k.txt": text.encode(),
        "k.csv": text.replace(" ", ",").encode(),
        "k.png": pillow(PilImage.fromarray(counts), "PNG"),
        "k.tif": bytes(imagecodecs.tiff_encode(KERNEL, photometric="minisblack")),
    }


@functools.cache
def weights() -> dict[str, bytes]:
    """A tiny denoiser as our file, and as one of PyTorch's with the authors' names."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        card = ModelCard("tiny", "ConverseDnCNN", CONFIG, "denoise", 1, sigma=25.0, source="us")
        converse_jax.save(path, ConverseDnCNN(**CONFIG, rngs=nnx.Rngs(0)), card)
        ours = path.read_bytes()
        file, rng = PthFile(), np.random.default_rng(0)
        shapes = {"m_head.0.weight": (4, 1, 1, 1), "m_body.0.conv1.3.weight": (1, 8, 3, 3)}
        arrays = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
        theirs = file.write(
            Path(folder) / "w.pth", {name: file.tensor(array) for name, array in arrays.items()}
        ).read_bytes()
    return {"w.safetensors": ours, "w.pth": undated(theirs)}


def card_of(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a whole safetensors file."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return safetensors.numpy.load(data), header["__metadata__"]


@functools.cache
def run_files() -> dict[str, bytes]:
    """The small files of a training run."""
    details = {"card": {"name": "tiny"}, "checksums": {"step": 1}, "patches": 8}
    return {
        "_CHECKPOINT_METADATA": json.dumps({"custom_metadata": details}).encode(),
        "metrics/metrics": b'{"psnr": 30.5}',
        "init.json": b'{"name": "w", "sha256": "0"}',
        "metrics.jsonl": b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n',
    }
