# %% [markdown]
# # 4. In your own model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/_OWNER_/converse-jax/blob/main/notebooks/04_in_your_own_model.ipynb)
#
# `Converse2D` is a Flax layer among others. Here is a U-Net whose decoder up-samples with it, and not
# with a transposed convolution: trained on a small task of segmentation, prepared for inference,
# saved and loaded with Orbax, and sharded over eight devices. At the end: the same layer in Linen,
# Equinox and Haiku.

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

import jax

if importlib.util.find_spec("jax_cuda13_plugin") is None:
    # Eight pretended devices, so that a laptop shows how the model is sharded; before any is used.
    jax.config.update("jax_num_cpu_devices", 8)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from converse_jax import converse2d
from converse_jax.nn import Converse2D, prepare

print("JAX", jax.__version__, "on", len(jax.devices()), "x", jax.devices()[0].device_kind)

# %% [markdown]
# ## A task
#
# Find the discs among rectangles, in noise. The images are made as they are needed: a function of a
# key, by `vmap`.


# %%
def example(key):
    """An image `[48, 48, 1]` and its mask, 1 where a disc is on top."""
    rows, columns = jnp.mgrid[0:48, 0:48]
    image, mask = jnp.full((48, 48), 0.3), jnp.zeros((48, 48))
    noise, *keys = jax.random.split(key, 9)
    for i, key in enumerate(keys):
        y, x, size, aspect, gray = jax.random.uniform(key, 5)
        dy, dx, r = rows - 48 * y, columns - 48 * x, 4 + 6 * size
        disc = dy**2 + dx**2 < r**2
        rectangle = (abs(dy) < r * (0.5 + aspect)) & (abs(dx) < r * (1.5 - aspect))
        inside = disc if i % 2 else rectangle
        image = jnp.where(inside, 0.4 + 0.6 * gray, image)
        mask = jnp.where(inside, float(i % 2), mask)
    image += 0.15 * jax.random.normal(noise, image.shape)
    return image[..., None], mask[..., None]


@jax.jit(static_argnums=1)
def batch(key, number=8):
    return jax.vmap(example)(jax.random.split(key, number))


def show(images, titles, size=2.3):
    """Images side by side, below their titles."""
    _, axes = plt.subplots(1, len(images), figsize=(size * len(images), size * 1.12))
    for axis, image, title in zip(axes, images, titles, strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    plt.tight_layout()
    plt.show()


images, masks = batch(jax.random.key(0))
show([*images[:3, ..., 0], *masks[:3, ..., 0]], ["image"] * 3 + ["mask"] * 3)

# %% [markdown]
# ## The model
#
# The layer stands where `nnx.ConvTranspose` would. It is *depthwise*: each channel learns a kernel and
# a $\lambda$ of its own; a 1x1 convolution before it mixes channels. It undoes a stride of 2: it
# solves for the finer features of which these are a blurred and thinned out version, where a
# transposed convolution spreads them over the finer grid.


# %%
class Up(nnx.Module):
    """Twice as high and wide, half as many channels."""

    def __init__(self, features, *, transposed, rngs):
        self.mix = nnx.Conv(features, features // 2, (1, 1), rngs=rngs)
        if transposed:
            self.up = nnx.ConvTranspose(features // 2, features // 2, (4, 4), strides=2, rngs=rngs)
        else:
            self.up = Converse2D(features // 2, kernel_size=3, scale=2, rngs=rngs)

    def __call__(self, x):
        return self.up(self.mix(x))


class UNet(nnx.Module):
    """Three levels; `[..., H, W, 1]` to logits of the same shape, H and W multiples of 4."""

    def __init__(self, width=16, *, transposed=False, rngs):
        def conv(a, b, stride=1):
            return nnx.Conv(a, b, (3, 3), strides=stride, rngs=rngs)

        self.head = conv(1, width)
        self.down = nnx.List([conv(width, 2 * width, 2), conv(2 * width, 4 * width, 2)])
        self.up = nnx.List([Up(n * width, transposed=transposed, rngs=rngs) for n in (4, 2)])
        self.fuse = nnx.List([conv(4 * width, 2 * width), conv(2 * width, width)])
        self.tail = conv(width, 1)

    def __call__(self, x):
        kept = [x := nnx.relu(self.head(x))]
        for down in self.down:
            kept.append(x := nnx.relu(down(x)))
        kept.pop()
        for up, fuse in zip(self.up, self.fuse, strict=True):
            x = nnx.relu(fuse(jnp.concatenate([up(x), kept.pop()], axis=-1)))
        return self.tail(x)


model = UNet(rngs=nnx.Rngs(0))
parameters = nnx.state(model, nnx.Param)
print(sum(x.size for x in jax.tree.leaves(parameters)), "parameters; of the first up-sampler:")
print(jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(model.up[0]))))

# %% [markdown]
# ## Train
#
# Nothing here knows of reverse convolution: Optax and `nnx.jit` as always. The twin with
# `ConvTranspose` starts from the same seed and sees the same images. One run of a toy is no verdict
# on either; it shows that the layer is trained like any other.


# %%
@nnx.jit
def train_step(model, optimizer, images, masks):
    def loss(model):
        return optax.sigmoid_binary_cross_entropy(model(images), masks).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


def overlap(model, images, masks):
    """Intersection over union of what is found and what is there."""
    found, there = model(images) > 0, masks > 0.5
    return (found & there).sum() / (found | there).sum()


models, curves = {}, {}
for name, transposed in {"Converse2D": False, "ConvTranspose": True}.items():
    model = UNet(transposed=transposed, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adamw(3e-3), wrt=nnx.Param)
    start, losses = time.perf_counter(), []
    for step in range(250):
        images, masks = batch(jax.random.fold_in(jax.random.key(1), step))
        losses.append(float(train_step(model, optimizer, images, masks)))
        if step == 0:
            compiled = time.perf_counter()
    curves[name], models[name] = losses, model
    seconds = time.perf_counter() - compiled
    print(f"{name:14} compiled in {compiled - start:.1f} s, 249 steps in {seconds:.1f} s")

tests, truth = batch(jax.random.key(2), 64)
plt.figure(figsize=(7, 3))
for name, losses in curves.items():
    score = overlap(nnx.jit(models[name]), tests, truth)
    plt.semilogy(losses, label=f"{name}: IoU {score:.3f} on 64 other images", alpha=0.8)
plt.title("loss")
plt.xlabel("step")
plt.legend()
plt.show()

model = models["Converse2D"]
found = nnx.sigmoid(model(tests[:3]))
shown = [x[..., 0] for i in range(3) for x in (tests[i], found[i])]
show(shown, ["image", "found"] * 3)

# %% [markdown]
# What the first up-sampler has learned: some of its kernels, and how much each channel believes its
# input.

# %%
up = model.up[1].up
kernels = up.kernel[...]
show(
    [(k - kernels.min()) / (kernels.max() - kernels.min()) for k in kernels.transpose(2, 0, 1)],
    [f"λ = {lam:.1e}" for lam in up.lam],
    size=1.6,
)

# %% [markdown]
# ## Faster inference
#
# Kernels are fixed after training, so their transfer functions can be computed once for each size
# of image: `prepare` returns such a copy of any model that contains these layers.

# %%
ready = nnx.jit(prepare(model, tests))
plain = nnx.jit(model)
print(f"largest difference: {jnp.abs(ready(tests) - plain(tests)).max():.1e}")
assert jnp.allclose(ready(tests), plain(tests), atol=1e-3)

# %% [markdown]
# ## Save and load, with Orbax

# %%
import orbax.checkpoint as ocp  # after the rest: it is needed from here on

path = Path(tempfile.mkdtemp()) / "unet"
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, nnx.state(model))
    checkpointer.wait_until_finished()
    empty = nnx.eval_shape(lambda: UNet(rngs=nnx.Rngs(0)))
    graph, shapes = nnx.split(empty)
    again = nnx.merge(graph, checkpointer.restore(path, shapes))

assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, nnx.state(again), nnx.state(model))))
print("the same to the last bit")

# %% [markdown]
# ## Several devices
#
# Put the images on a mesh, and the compiler does the rest. An FFT would make it collect the whole
# batch on every device first. This operator says how it is sharded, so that each device transforms
# its own images; the only exchange of a training step is the sum of the gradients. On a machine
# without accelerators the eight devices are pretended.

# %%
mesh = jax.make_mesh((len(jax.devices()),), ("batch",))
by_batch = NamedSharding(mesh, P("batch"))
shared = jax.device_put(tests, by_batch)
jax.debug.visualize_array_sharding(shared[..., 0, 0])

graph, state = nnx.split(model)
state = jax.device_put(state, NamedSharding(mesh, P()))
forward = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
program = forward.lower(state, shared).compile().as_text()
print("all-gathers in the program:", program.count("all-gather("))
assert "all-gather(" not in program
with jax.set_mesh(mesh):
    assert jnp.allclose(forward(state, shared), plain(tests), atol=1e-3)

# %% [markdown]
# ## In other libraries
#
# **Linen** takes the NNX layer through Flax's own bridge. **Equinox**, **Haiku** and others take the
# function: `converse2d` is pure, and a layer is a kernel, a $\lambda$, and a call.

# %%
import flax.linen as nn


class Decoder(nn.Module):
    """A step of a decoder in Linen."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (1, 1))(x)
        return nnx.bridge.to_linen(Converse2D, 16, kernel_size=3, scale=2, name="converse")(x)


features = jax.random.normal(jax.random.key(3), (2, 8, 8, 32))
variables = Decoder().init(jax.random.key(4), features)
print("Linen:  ", features.shape, "to", Decoder().apply(variables, features).shape)

# %%
if importlib.util.find_spec("equinox"):
    import equinox as eqx

    class Converse(eqx.Module):
        """The layer in Equinox; channels last."""

        kernel: jax.Array
        log_lam: jax.Array
        scale: int = eqx.field(static=True)

        def __init__(self, channels, size=3, scale=2, *, key):
            taps = jax.random.normal(key, (size * size, channels))
            self.kernel = jax.nn.softmax(taps, axis=0).reshape(size, size, channels)
            self.log_lam = jnp.full(channels, jnp.log(1e-3))
            self.scale = scale

        def __call__(self, x):
            lam, padding = jnp.exp(self.log_lam), len(self.kernel) - 1
            return converse2d(x, self.kernel, lam, scale=self.scale, padding=padding)

    layer = Converse(32, key=jax.random.key(5))
    larger = eqx.filter_jit(layer)(features)
    slope = eqx.filter_grad(lambda layer: (layer(features) ** 2).mean())(layer)
    print("Equinox:", features.shape, "to", larger.shape, "; gradient", slope.kernel.shape)

if importlib.util.find_spec("haiku"):
    import haiku as hk

    def upsample(x):
        """The layer in Haiku."""
        channels = x.shape[-1]
        kernel = hk.get_parameter("kernel", (3, 3, channels), init=hk.initializers.Constant(1 / 9))
        log_lam = hk.get_parameter("log_lam", (channels,), init=hk.initializers.Constant(-7.0))
        return converse2d(x, kernel, jnp.exp(log_lam), scale=2, padding=2)

    decoder = hk.without_apply_rng(hk.transform(upsample))
    weights = decoder.init(jax.random.key(6), features)
    print("Haiku:  ", features.shape, "to", decoder.apply(weights, features).shape)

# %% [markdown]
# ## Where to go from here
#
# - `ConverseBlock` is the paper's block: normalization, the operator, and two steps of 1x1
#   convolutions, in place of a convolutional residual block.
# - The data step of an unfolded network or of plug-and-play: `converse2d(y, k, lam, x0=estimate)`.
# - Signals and volumes: `Converse1D`, `Converse3D`.
# - Export to ONNX, StableHLO; the transformations of JAX; the mathematics: the documentation.
