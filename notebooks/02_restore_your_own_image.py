# %% [markdown]
# # 2. Restore your own image
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/_OWNER_/converse-jax/blob/main/notebooks/02_restore_your_own_image.ipynb)
#
# The package brings small networks that remove noise, improve photographs, enlarge and deblur. They
# weigh about a megabyte together and run on a laptop's processor. Here they are at work, first on
# photographs of which the truth is known, so that it can be measured what they do, then on yours.

# %% cellView="form"
# @title Setup: run this cell first (a minute on Colab, nothing to do in a clone)
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

if Path("../converse_jax").is_dir():  # the repository is above this notebook
    os.chdir("..")
elif not Path("converse_jax").is_dir():  # or is cloned, on Colab
    address = "https://github.com/_OWNER_/converse-jax"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", address], check=True)
    os.chdir("converse-jax")


def missing(*packages: str) -> bool:
    return not all(map(importlib.util.find_spec, packages))


if missing("jax", "flax", "optax", "orbax", "grain", "tyro", "imagecodecs", "matplotlib"):
    # The JAX that is there stays: on Colab it is the one for its GPU or TPU.
    kept = [f"{name}=={version(name)}" for name in ("jax", "jaxlib") if not missing(name)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", ".[figures]", *kept]
    subprocess.run(pip, check=True)
    importlib.invalidate_caches()

# %%
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np
import skimage.data

import converse_jax
from converse_jax.imaging import (
    Image,
    circular_blur,
    estimate_noise,
    motion_kernel,
    protocol_noise,
    psnr,
    random_motion_kernel,
    read_image,
    read_kernel,
    resize,
    to_uint8,
    write_image,
)

for name in converse_jax.list_models():
    print(f"{name:20}", converse_jax.load(name)[1].task)


def show(images: dict, size: float = 4) -> None:
    """Images side by side, below their titles."""
    _, axes = plt.subplots(1, len(images), figsize=(size * len(images), size * 1.12))
    for axis, (title, image) in zip(np.atleast_1d(axes), images.items(), strict=True):
        axis.imshow(image, cmap="gray", interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    plt.tight_layout()
    plt.show()


def decibels(image: np.ndarray, original: np.ndarray) -> str:
    """PSNR: above 40 dB differences are hard to see, below 25 they are plain."""
    return f"{psnr(image, original):.2f} dB"


# %% [markdown]
# ## Noise
#
# `restore_image` takes an array, uint8, uint16 or floats in [0, 1], and gives one back of the same
# type; or it takes the name of a file. Here noise is added to a photograph, so that there is
# something to compare with. Nobody tells the network how much: it is estimated from the image.

# %%
coffee = skimage.data.coffee()[60:316, 120:440]
noisy = to_uint8(coffee / 255 + protocol_noise(coffee.shape, 25))
print(f"noise: 25 of 255 was added, {255 * estimate_noise(noisy / 255):.1f} is estimated")

clean = converse_jax.restore_image(noisy, task="denoise")
show(
    {
        f"noisy, {decibels(noisy, coffee)}": noisy,
        f"restored, {decibels(clean, coffee)}": clean,
        "original": coffee,
    }
)

# %% [markdown]
# Too smooth for your taste? `strength` blends the result with what came in; `sigma` tells another
# level, of 255; `self_ensemble` averages over the eight ways to turn and mirror the image, for
# eight times the work.

# %%
half = converse_jax.restore_image(noisy, task="denoise", strength=0.7)
told = converse_jax.restore_image(noisy, task="denoise", sigma=40)
eight = converse_jax.restore_image(noisy, task="denoise", sigma=25, self_ensemble=True)
show(
    {
        f"strength=0.7, {decibels(half, coffee)}": half,
        f"sigma=40, {decibels(told, coffee)}": told,
        f"self_ensemble, {decibels(eight, coffee)}": eight,
    }
)

# %% [markdown]
# ## Larger
#
# `task="sr"` enlarges, by 2 or 4 with networks that were trained for it, by any other whole number
# with a denoiser as the judge of what a photograph looks like. The comparison is bicubic
# interpolation, what most programs do.

# %%
astronaut = skimage.data.astronaut()[0:240, 130:370]
for scale in (2, 3, 4):
    small = to_uint8(resize(astronaut / 255, scale=1 / scale))
    bicubic = to_uint8(resize(small / 255, scale=float(scale)))
    enlarged = converse_jax.restore_image(small, task="sr", scale=scale)
    show(
        {
            f"{small.shape[1]} x {small.shape[0]} pixels": small,
            f"bicubic x{scale}, {decibels(bicubic, astronaut)}": bicubic,
            f"restored x{scale}, {decibels(enlarged, astronaut)}": enlarged,
        }
    )

# %% [markdown]
# ## Sharper: any blur that is known
#
# `task="deblur"` reverses a blur of **any** kernel: an array, a file, or a description such as
# `"motion:15:30"` (length in pixels, angle), `"gaussian:1.6"`, `"disk:4"` (out of focus) or
# `"box:5"`. It plugs the denoiser into an iteration whose other half is `converse2d`, the exact
# inverse of the blur. No network was trained for these kernels.
#
# A real photograph was not blurred on a circle: what its borders show comes in part from beyond
# them. So a larger part is blurred here, and cut.

# %%
rng = np.random.default_rng(3)
kernels = {
    "motion:15:30": motion_kernel(17, length=15, angle=30),
    "disk:4": read_kernel("disk:4")[0],
    "camera shake": random_motion_kernel(21, rng).astype(np.float32),
}
cat = skimage.data.chelsea() / 255
inner = np.s_[20:260, 110:350]
truth = to_uint8(cat[inner])
for name, kernel in kernels.items():
    seen = circular_blur(cat, kernel) + protocol_noise(cat.shape, 2.55)
    blurred = to_uint8(seen[inner])
    known = name if ":" in name else kernel
    sharp = converse_jax.restore_image(blurred, task="deblur", kernel=known, sigma=2.55)
    show(
        {
            f"kernel: {name}": kernel,
            f"blurred, {decibels(blurred, truth)}": blurred,
            f"restored, {decibels(sharp, truth)}": sharp,
        }
    )

# %% [markdown]
# ## Large images: tiles
#
# What is larger than 4 megapixels, or too large for the memory, is restored in overlapping tiles
# and blended; all have one size, so that one program is compiled. `Restorer` is the layer below
# `restore_image`: a network and its card, floats in [0, 1], and nothing chosen for you. How much
# tiles must overlap was measured, and stands in the card. (The rim differs most: as a whole, the
# image is periodic for the network, while its tiles see its reflection there.)

# %%
model, card = converse_jax.load("denoise-color")
restore = converse_jax.Restorer(model, card)
print(f"{card.name}: tiles overlap by {card.overlap} pixels")

large = skimage.data.astronaut()
large_noisy = (large / 255 + protocol_noise(large.shape, 15)).astype(np.float32)
whole = restore(large_noisy, sigma=15 / 255)


def report(done: int, total: int) -> None:
    print(f"\r{done} of {total} tiles", end="")


tiled = restore(large_noisy, sigma=15 / 255, tile=256, on_tile=report)
difference = np.abs(tiled - whole).max(axis=-1)
print(f"; agreement with the whole image: {-10 * np.log10(np.mean((tiled - whole) ** 2)):.1f} dB")
show(
    {
        f"noisy, {decibels(to_uint8(large_noisy), large)}": to_uint8(large_noisy),
        f"in tiles, {decibels(to_uint8(tiled), large)}": to_uint8(tiled),
        "difference from whole, 50 times": (50 * difference).clip(0, 1),
    }
)

# %% [markdown]
# ## Your own
#
# On Colab the next cell asks for a file; elsewhere put its path into `PHOTO`. Nothing leaves the
# machine that runs this notebook. The default task, `"photo"`, is for photographs as they come out
# of a camera: weak noise of any kind, and JPEG. It is careful rather than impressive.

# %%
PHOTO: str | None = None

if PHOTO is None and "google.colab" in sys.modules:
    from google.colab import files

    PHOTO = next(iter(files.upload()), None)  # cancel for an example
if PHOTO is None:
    example = skimage.data.coffee()[100:356, 60:400] / 255
    example = to_uint8(example + protocol_noise(example.shape, 6))
    PHOTO = os.path.join(tempfile.mkdtemp(), "example.jpg")
    write_image(PHOTO, Image((example / 255).astype(np.float32)), quality=92)

start = time.perf_counter()
better = converse_jax.restore_image(PHOTO)  # all that is needed
print(f"{PHOTO}: {better.shape[1]} x {better.shape[0]} in {time.perf_counter() - start:.1f} s")

before = to_uint8(read_image(PHOTO).pixels)
row, column = (max(0, n // 2 - 90) for n in better.shape[:2])
detail = np.s_[row : row + 180, column : column + 180]
show({"before": before, "after": better})
show({"before, the middle": before[detail], "after": better[detail]})

# %% [markdown]
# The command does the same for files and folders, and keeps color profile, EXIF, depth and
# transparency, which arrays do not have:

# %%
target = str(Path(PHOTO).with_name("better.png"))
command = [sys.executable, "-m", "converse_jax", "restore", PHOTO, target, "--overwrite"]
print(subprocess.run(command, check=True, capture_output=True, text=True).stderr)
if "google.colab" in sys.modules:
    files.download(target)

# %% [markdown]
# In a terminal that is `converse-jax restore photo.jpg better.png`; `converse-jax restore --help`
# lists the rest. Networks of others are given by their path: `--model weights.pth`, or
# `converse_jax.load("weights.pth")`.
#
# Next: [3. Train](03_train.ipynb) one yourself.
