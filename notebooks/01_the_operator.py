# %% [markdown]
# # 1. The operator
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/_OWNER_/converse-jax/blob/main/notebooks/01_the_operator.ipynb)
#
# A convolution followed by a stride makes an image, or a feature map, blurred and small.
# **Reverse convolution** (Converse2D) goes back: exactly, in closed form, in one differentiable
# step. This notebook shows on a photograph what that means, where it ends, and why a *transposed*
# convolution, which sounds as if it did the same, does not.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from skimage.data import chelsea

from converse_jax import blur_downsample, blur_downsample_adjoint, converse2d
from converse_jax.imaging import gaussian_kernel, motion_kernel, psnr, to_uint8

print("JAX", jax.__version__, "on", jax.devices()[0])


def show(images: dict, size: float = 3.2, pixelated: bool = False) -> None:
    """Images side by side, below their titles."""
    _, axes = plt.subplots(1, len(images), figsize=(size * len(images), size * 1.12))
    for axis, (title, image) in zip(np.atleast_1d(axes), images.items(), strict=True):
        how = "nearest" if pixelated else "antialiased"
        axis.imshow(image.clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation=how)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    plt.tight_layout()
    plt.show()


def decibels(image, original) -> str:
    """PSNR in words: above 40 dB differences are hard to see, below 25 they are plain."""
    return f"{psnr(to_uint8(np.asarray(image)), to_uint8(np.asarray(original))):.1f} dB"


# %% [markdown]
# ## What is reversed
#
# Images are arrays `[..., H, W, C]`, channels last. Each channel has its own kernel
# `[kh, kw, C]`, as in a depthwise convolution; here all three colors get the same. Then only every
# $s$-th pixel is kept:
#
# $$Y = (X \otimes K)\downarrow_s$$
#
# The convolution is circular: what leaves the image on the left comes in on the right.

# %%
sharp = jnp.asarray(chelsea()[20:276, 100:356], jnp.float32) / 255


def per_channel(kernel) -> jax.Array:
    """The same kernel for each of the three colors, `[kh, kw, 3]`."""
    return jnp.repeat(jnp.asarray(kernel, jnp.float32)[..., None], 3, axis=-1)


motion = per_channel(motion_kernel(15, length=13, angle=35))
blurred = blur_downsample(sharp, motion)
small = blur_downsample(sharp, motion, scale=2)
print("X", sharp.shape, " K", motion.shape, " Y", blurred.shape, " Y with s = 2", small.shape)

show(
    {
        "X: the photograph": sharp,
        "K: a motion of 13 pixels": motion[..., 0] / motion.max(),
        f"Y: blurred, {decibels(blurred, sharp)}": blurred,
        "Y with s = 2: blurred, half as large": small,
    },
    pixelated=True,
)

# %% [markdown]
# ## Reversed
#
# Blurring destroys: many images $X$ give almost the same $Y$. So one asks for the $X$ that explains
# $Y$ *and* stays close to a first guess $X_0$, which here is $Y$ itself, each pixel repeated
# $s \times s$ times:
#
# $$X^* = \arg\min_X \; \lVert Y - (X \otimes K)\downarrow_s \rVert^2
# + \lambda \lVert X - X_0 \rVert^2$$
#
# For a single image this has been done for decades. Reverse convolution makes it a *layer*: kernels
# and $\lambda$ may be learned, and the minimum is computed exactly.

# %%
restored = converse2d(blurred, motion, 1e-4)
again = blur_downsample(restored, motion)

show(
    {
        f"Y, {decibels(blurred, sharp)}": blurred,
        f"X* = converse2d(Y, K, 1e-4), {decibels(restored, sharp)}": restored,
        "X": sharp,
    },
    size=4,
)
print(f"X* blurred again differs from Y by {jnp.abs(again - blurred).max():.5f} at most")

# %% [markdown]
# *Exactly* can be checked: for a tiny image the blur is a matrix $A$ that fits on a screen, and
# NumPy finds the minimum by least squares.

# %%
tiny = sharp[96:108, 60:72, :1]  # 12 x 12 pixels, one channel
k, lam, s = jnp.asarray(gaussian_kernel(5, 1.0), jnp.float32)[..., None], 1e-3, 2
y = blur_downsample(tiny, k, scale=s)

pixels = jnp.eye(tiny.size).reshape(-1, *tiny.shape)  # each pixel alone, [144, 12, 12, 1]
A = np.asarray(blur_downsample(pixels, k, scale=s), np.float64).reshape(tiny.size, -1).T
x0 = np.asarray(y).repeat(s, 0).repeat(s, 1).ravel()
stacked = np.vstack([A, np.sqrt(lam) * np.eye(tiny.size)])
target = np.concatenate([np.asarray(y).ravel(), np.sqrt(lam) * x0])
slow = np.linalg.lstsq(stacked, target, rcond=None)[0].reshape(tiny.shape)

fast = np.asarray(converse2d(y, k, lam, scale=s))
print(f"largest difference: {np.abs(fast - slow).max():.1e}")
assert np.abs(fast - slow).max() < 1e-5

plt.figure(figsize=(9, 2.6))
plt.imshow(A, cmap="magma", aspect="auto", interpolation="nearest")
plt.title("A: blurring 144 pixels and keeping every second of each axis, as a matrix")
plt.xlabel("pixels of X")
plt.ylabel("pixels of Y")
plt.show()

# %% [markdown]
# ## Lambda's limits
#
# $\lambda$ says how much $Y$ is to be believed. Let it grow, and nothing is left but $X_0$. Let it
# shrink, and $X^*$ becomes the plain inverse of the blur, which multiplies whatever the kernel
# nearly erased, **noise included**. The best value lies between, and the more noise there is, the
# larger it is.

# %%
noise = 2.55 / 255 * jax.random.normal(jax.random.key(0), blurred.shape)
noisy = blurred + noise

chosen = [1e-6, 1e-4, 1e-2, 1e2]
show({f"no noise, λ = {lam:g}": converse2d(blurred, motion, lam) for lam in chosen})
show({f"noise of 1 %, λ = {lam:g}": converse2d(noisy, motion, lam) for lam in chosen})

# %% [markdown]
# All values at once: $\lambda$ is an array like any other, so `vmap` runs over it.

# %%
lams = jnp.logspace(-7, 2, 37)
sweep = jax.vmap(lambda y, lam: converse2d(y, motion, lam), in_axes=(None, 0))

plt.figure(figsize=(7, 3.6))
for label, given in {"no noise": blurred, "noise of 1 %": noisy}.items():
    error = jnp.mean((jnp.clip(sweep(given, lams), 0, 1) - sharp) ** 2, axis=(1, 2, 3))
    plt.semilogx(lams, -10 * jnp.log10(error), label=label)
untouched = -10 * np.log10(np.mean((blurred - sharp) ** 2))
plt.axhline(untouched, color="gray", linestyle=":", label="Y as it is")
plt.xlabel("λ")
plt.ylabel("PSNR of X* in dB")
plt.legend()
plt.show()

# %% [markdown]
# Why: the blur multiplies each frequency by a number, $\hat K$. Without a stride and with $X_0 = 0$
# the minimum multiplies it by $\overline{\hat K} / (|\hat K|^2 + \lambda)$: the inverse, as long as
# $|\hat K|^2 \gg \lambda$, and nothing where the blur left nothing.

# %%
row = jnp.abs(jnp.fft.rfft(jnp.asarray([1, 2, 3, 2, 1]) / 9, 512))
frequency = jnp.linspace(0, 0.5, row.size)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4))
left.plot(frequency, row, "k", label="|K|: the blur")
left.plot(frequency, row**2, "k--", label="|K|²: blur, then transposed convolution")
for lam in (1e-1, 1e-2, 1e-4):
    right.semilogy(frequency, row / (row**2 + lam), label=f"λ = {lam:g}")
    left.plot(frequency, row**2 / (row**2 + lam), label=f"blur, then converse, λ = {lam:g}")
right.set_title("what the operator multiplies by")
left.set_title("what is left of each frequency")
for axis in (left, right):
    axis.set_xlabel("frequency, cycles a pixel")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.18))
plt.show()

# %% [markdown]
# ## With a stride: up-sampling
#
# With $s > 1$ the same formula enlarges, as exactly. `x0` chooses the first guess: `"nearest"`
# (pixels repeated), `"zero"`, or any array.

# %%
gaussian, part, eye = per_channel(gaussian_kernel(7, 1.2)), sharp[:252, :252], np.s_[66:138, 24:96]
enlarged = {"X: a detail": part[eye]}
for s in (2, 3):
    y = blur_downsample(part, gaussian, scale=s)
    nearest = y.repeat(s, 0).repeat(s, 1)
    x = converse2d(y, gaussian, 1e-3, scale=s)
    enlarged[f"Y of s = {s}, {decibels(nearest, part)}"] = nearest[eye]
    enlarged[f"converse, {decibels(x, part)}"] = x[eye]
show(enlarged, size=2.6, pixelated=True)

# %% [markdown]
# ## Why transposed convolution is no inverse
#
# The usual learned up-sampling layer, `ConvTranspose`, is $A^T$: the *transpose* of blurring and
# down-sampling. Only of a rotation is the transpose the inverse. Applied to a blurred image, $A^T$
# blurs it once more (the dashed curve above, $|\hat K|^2$), and with a stride it spreads each pixel
# over the few places that its kernel reaches: the checkerboard that everybody has met.
#
# Reverse convolution contains it: $X^* = X_0 + A^T (A A^T + \lambda I)^{-1} (Y - A X_0)$. The
# matrix in the middle turns a transpose into an inverse; in the Fourier domain it is one division.

# %%
narrow = per_channel(gaussian_kernel(3, 0.8))
once = blur_downsample(sharp, motion)
twice = blur_downsample_adjoint(once, motion)
y = blur_downsample(part, narrow, scale=3)
spread = blur_downsample_adjoint(y, narrow, scale=3) * 9
solved = converse2d(y, narrow, 1e-3, scale=3)
show(
    {
        f"blurred, {decibels(once, sharp)}": once,
        f"then transposed, {decibels(twice, sharp)}": twice,
        f"then converse, {decibels(restored, sharp)}": restored,
    }
)
show(
    {
        "a detail": part[eye],
        f"down by 3, then transposed, {decibels(spread, part)}": spread[eye],
        f"down by 3, then converse, {decibels(solved, part)}": solved[eye],
    },
    pixelated=True,
)

# %% [markdown]
# ## Gradients
#
# The operator is a function like any other of JAX: `grad`, `jvp`, `vmap`, `jit` and the rest apply,
# to the image, the kernel and $\lambda$. So an unknown blur can be *learned*: here is one pair of
# images, before and after, and a search for the kernel whose reversal brings one back from the
# other. It starts from a featureless one.


# %%
def kernel_of(logits):
    """Taps that are positive and sum to 1."""
    return per_channel(jax.nn.softmax(logits.ravel()).reshape(logits.shape))


@jax.jit
def loss(parameters):
    x = converse2d(noisy, kernel_of(parameters["logits"]), jnp.exp(parameters["log_lam"]))
    return jnp.mean((x - sharp) ** 2)


parameters = {"logits": jnp.zeros((15, 15)), "log_lam": jnp.log(0.1)}
optimizer = optax.adam(optax.cosine_decay_schedule(0.3, 150))
state = optimizer.init(parameters)


@jax.jit
def step(parameters, state):
    value, gradient = jax.value_and_grad(loss)(parameters)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(parameters, updates), state, value


history, kernels = [], {}
for i in range(151):
    if i in (0, 15, 50, 150):
        kernels[f"step {i}"] = kernel_of(parameters["logits"])[..., 0]
    parameters, state, value = step(parameters, state)
    history.append(float(value))

show(
    {title: kernel / kernel.max() for title, kernel in kernels.items()}
    | {"the true one": motion[..., 0] / motion.max()},
    size=2.2,
    pixelated=True,
)
learned = converse2d(noisy, kernel_of(parameters["logits"]), jnp.exp(parameters["log_lam"]))
print(f"λ = {jnp.exp(parameters['log_lam']):.1e}; loss {history[0]:.5f}, then {history[-1]:.5f}")
show({f"Y, {decibels(noisy, sharp)}": noisy, f"X*, {decibels(learned, sharp)}": learned})

# %% [markdown]
# A gradient is only worth what it agrees with. Finite differences, in float64:

# %%
with jax.enable_x64(True):
    y64, k64 = np.asarray(noisy[:32, :32], np.float64), np.asarray(motion, np.float64)

    def energy(kernel, lam):
        return jnp.sum(converse2d(y64, kernel, lam) ** 2)

    by_rule = jax.grad(energy, argnums=(0, 1))(jnp.asarray(k64), 1e-2)
    bump = np.zeros_like(k64)
    bump[7, 6, 1] = h = 1e-5
    of_kernel = (energy(k64 + bump, 1e-2) - energy(k64 - bump, 1e-2)) / (2 * h)
    of_lam = (energy(k64, 1e-2 + h) - energy(k64, 1e-2 - h)) / (2 * h)
    print(f"kernel: {by_rule[0][7, 6, 1]:.6f} by grad, {of_kernel:.6f} by differences")
    print(f"lambda: {by_rule[1]:.6f} by grad, {of_lam:.6f} by differences")
    assert np.isclose(by_rule[0][7, 6, 1], of_kernel, rtol=1e-5)
    assert np.isclose(by_rule[1], of_lam, rtol=1e-4)

# %% [markdown]
# ## One result, three ways
#
# `method=` chooses how the minimum is computed, never what it is: by FFT; by products with matrices
# of cosines and sines; or without any transform, where the kernel has no more taps a side than the
# stride. `"auto"` takes the fastest by our measurements.

# %%
y, box = blur_downsample(sharp, jnp.full((2, 2, 3), 0.25), scale=2), jnp.full((2, 2, 3), 0.25)
results = {m: converse2d(y, box, 1e-3, scale=2, method=m) for m in ("fft", "dft", "direct")}
for method, x in results.items():
    print(f"{method:>6}: differs from fft by {jnp.abs(x - results['fft']).max():.1e}")
    assert jnp.allclose(x, results["fft"], atol=1e-5)

# %% [markdown]
# ## What it cannot do
#
# - It inverts a blur that is **known** (or learned). A wrong kernel gives ringing, not sharpness.
# - What the blur erased is taken from $X_0$, not invented. Inventing is for networks, and why the
#   operator sits inside them.
# - The convolution is circular; photographs are not. `padding=` continues the map beyond its
#   borders, as layers do by default.
#
# Next: [2. Restore your own image](02_restore_your_own_image.ipynb).
