"""The experimental setup as functions: degradations, metrics, the evaluation protocol, files.

NumPy in, NumPy out, channels last. Pillow, imagecodecs and SciPy are loaded by the functions that
need them, not by this import.
"""

from converse_jax.imaging._blur import (
    circular_blur,
    disk_kernel,
    gaussian_kernel,
    motion_kernel,
    random_motion_kernel,
)
from converse_jax.imaging._encode import encode_image, encode_pages
from converse_jax.imaging._files import (
    list_images,
    read_image,
    read_pages,
    write_image,
    write_pages,
)
from converse_jax.imaging._image import MAX_PIXELS, Image, ImageError, Resolution
from converse_jax.imaging._kernels import (
    KernelError,
    centered_kernel,
    flipped_kernel,
    read_kernel,
)
from converse_jax.imaging._metrics import psnr, rgb_to_y, ssim
from converse_jax.imaging._noise import protocol_noise
from converse_jax.imaging._noise_level import estimate_noise
from converse_jax.imaging._pages import Pages
from converse_jax.imaging._protocol import (
    Score,
    Task,
    degrade_deblur,
    degrade_denoise,
    degrade_sr,
    measure,
    score,
    to_reference_uint8,
    to_uint8,
)
from converse_jax.imaging._resize import bicubic_kernel, modcrop, resize

__all__ = [
    "MAX_PIXELS",
    "Image",
    "ImageError",
    "KernelError",
    "Pages",
    "Resolution",
    "Score",
    "Task",
    "bicubic_kernel",
    "centered_kernel",
    "circular_blur",
    "degrade_deblur",
    "degrade_denoise",
    "degrade_sr",
    "disk_kernel",
    "encode_image",
    "encode_pages",
    "estimate_noise",
    "flipped_kernel",
    "gaussian_kernel",
    "list_images",
    "measure",
    "modcrop",
    "motion_kernel",
    "protocol_noise",
    "psnr",
    "random_motion_kernel",
    "read_image",
    "read_kernel",
    "read_pages",
    "resize",
    "rgb_to_y",
    "score",
    "ssim",
    "to_reference_uint8",
    "to_uint8",
    "write_image",
    "write_pages",
]
