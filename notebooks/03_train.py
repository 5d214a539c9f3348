# %% [markdown]
# # 3. Train
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/_OWNER_/converse-jax/blob/main/notebooks/03_train.ipynb)
#
# From images to weights to a restored image, with one command each. The network is small, a
# Converse-DnCNN of ten thousand parameters, and so is the set of images: eleven photographs that
# come with scikit-image. It takes about a minute on two processor cores, and nothing is downloaded.
# The same commands train the paper's networks at full size; the end of this notebook says how.

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
import json
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
import skimage.data

import converse_jax
from converse_jax.imaging import protocol_noise, psnr, to_uint8

print("JAX", jax.__version__, "on", jax.devices()[0])


def run(*command: str) -> None:
    """A command in the folder of the repository, its output shown as it comes."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    if jax.default_backend() != "cpu":  # this notebook holds a part of the accelerator, too
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")
    assert process.returncode == 0, f"exit status {process.returncode}"


# %% [markdown]
# ## A configuration
#
# An experiment is a short, typed Python file. Every field of it can be given on the command line as
# well (`--optimizer.learning-rate 1e-3`), and `--help` lists them all.

# %%
print(Path("configs/quickstart.py").read_text())

# %% [markdown]
# ## Train
#
# On Colab, TensorBoard appears here and fills while the next cell runs; elsewhere it is
# `tensorboard --logdir FOLDER` in a terminal.

# %%
folder = Path(tempfile.mkdtemp()) / "quickstart"
folder.mkdir()
print("the run's folder:", folder)

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("load_ext", "tensorboard")
    get_ipython().run_line_magic("tensorboard", f"--logdir {folder}")

# %%
run("-m", "train", "configs/quickstart.py", "--run", str(folder), "--log-every", "250")

# %% [markdown]
# The folder holds the curves as lines of JSON and as TensorBoard's events, checkpoints, the
# configuration as it was, a summary, and held-out photographs before and after.

# %%
records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
measured = [record for record in records if "psnr" in record]

_, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2))
left.plot([r["step"] for r in records], [r["loss"] for r in records])
left.set(title="loss", xlabel="step", yscale="log")
right.plot([r["step"] for r in measured], [r["psnr"] for r in measured], "o-")
right.set(title="PSNR of held-out photographs, dB", xlabel="step")
plt.show()

plt.figure(figsize=(9, 10))
plt.imshow(plt.imread(folder / "before_after.png"))
plt.axis("off")
plt.show()

# %% [markdown]
# ## It can be stopped at any moment
#
# Checkpoints are written whole or not at all, and `--resume` goes on from the last, to the same
# bits. A run that is done can go on as well: here for 100 steps more, at the lowest rate.

# %%
run(
    *("-m", "train", "configs/quickstart.py", "--run", str(folder), "--resume"),
    *("--steps", "2600", "--log-every", "50"),
)

# %% [markdown]
# ## Export, and restore
#
# `train.export` writes the averaged weights with a card that says what they are for. That file is
# all that others need: the library loads it, and so does the command.

# %%
weights = folder / "quickstart.safetensors"
run("-m", "train.export", str(folder), str(weights), "--license", "CC0-1.0")

model, card = converse_jax.load(weights)
print(f"{weights.stat().st_size / 1000:.0f} kB: {card.architecture}, {card.task}, {card.license}")

# %%
camera = skimage.data.camera()[60:316, 120:376]
noisy = camera / 255 + protocol_noise(camera.shape, 25)
restore = converse_jax.Restorer(model, card)
clean = to_uint8(restore(noisy[..., None].astype(np.float32))[..., 0])
bundled = to_uint8(converse_jax.restore_image(noisy, task="denoise", sigma=25))

images = {
    "noisy": to_uint8(noisy),
    "a minute of training": clean,
    "the bundled network": bundled,
    "original": camera,
}
_, axes = plt.subplots(1, 4, figsize=(13, 3.6))
for axis, (title, image) in zip(axes, images.items(), strict=True):
    quality = "" if image is camera else f", {psnr(image, camera):.1f} dB"
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title + quality, fontsize=10)
    axis.axis("off")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## In earnest
#
# **Your images.** `--data.train` takes any folders, with their sub-folders. Pairs of your own, bad
# and good, are two folders: `--data.inputs BAD --data.train GOOD`.
#
# **A GPU.** On Colab choose one under *Runtime*, elsewhere `pip install "jax[cuda13]"`; the
# commands stay the same. The paper's networks at full size:
#
# ```sh
# python -m train configs/dncnn_gray_sigma25.py --data.train photos/ --run runs/dncnn
# python -m train configs/srresnet_x4.py --data.train DIV2K_train_HR/ --run runs/sr
# python -m train configs/usrnet_deblur.py --data.train photos/ --run runs/usrnet
# ```
#
# `--dtype bfloat16` halves the memory of activations, `--remat` computes them twice instead of
# keeping them, `--accumulation 4` takes a batch in four parts.
#
# **A session that ends.** Put `--run` on a mounted Drive, and always give `--resume`: the first
# time it starts, later it goes on. `sh train/train_for.sh 55 packed packed CONFIG` trains for 55
# minutes in all and packs the run into files that can be carried elsewhere.
#
# **Several GPUs, TPUs, pods.** All devices of a machine share the batch by themselves. Several
# machines run the same command with `--distributed`, and `--run` on a disk that they share. The
# global batch stays what you said, whatever the number of devices, and a checkpoint of eight is
# read by one.
#
# **From weights that exist**: `--init denoise-gray`, a file of yours, or the authors' `.pth`.
#
# **A network of your own** needs a decorator and two short files: see "Training" in the
# documentation, and the next notebook for the layers:
# [4. In your own model](04_in_your_own_model.ipynb).
