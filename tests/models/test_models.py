"""The networks: parameter counts of the paper, shapes, and the parts that are theirs alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converse_jax import converse2d
from converse_jax.models import (
    ConvDnCNN,
    ConverseDnCNN,
    ConverseNet,
    ConverseSRResNet,
    ConverseUSRNet,
    ConvNet,
    ConvTransposeDnCNN,
    ConvUSRNet,
    DnCNN,
    SRResNet,
)
from converse_jax.models.usrnet import KernelNet
from converse_jax.nn import ConverseBlock, TransferState, gelu, prepare


def count(make: Any) -> int:
    model = nnx.eval_shape(make)
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: ConverseDnCNN(rngs=nnx.Rngs(0)), 734_913),
        (lambda: ConverseDnCNN(kernel_size=7, rngs=nnx.Rngs(0)), 796_353),
        (lambda: ConverseSRResNet(rngs=nnx.Rngs(0)), 699_072),
        (lambda: ConverseUSRNet(rngs=nnx.Rngs(0)), 307_987),
        (lambda: ConverseNet(rngs=nnx.Rngs(0)), 243_267),
        (lambda: DnCNN(rngs=nnx.Rngs(0)), 557_057),
        (lambda: DnCNN(batch_norm=False, rngs=nnx.Rngs(0)), 555_137),
        (lambda: ConvDnCNN(rngs=nnx.Rngs(0)), 734_913),
        (lambda: ConvTransposeDnCNN(rngs=nnx.Rngs(0)), 734_913),
        # A bias where the reverse convolution has its lambda.
        (lambda: ConvNet(rngs=nnx.Rngs(0)), 243_267),
        # MSRResNet, as published.
        (lambda: SRResNet(rngs=nnx.Rngs(0)), 1_517_571),
    ],
)
def test_parameter_counts_of_the_paper(make: Any, parameters: int) -> None:
    assert count(make) == parameters


def small(model: Any, **kwargs: Any) -> nnx.Module:
    return model(num_features=4, num_blocks=1, rngs=nnx.Rngs(0), **kwargs)


def call(model: nnx.Module, *args: jax.Array, **options: int) -> jax.Array:
    """The model as one compiled program: operation by operation it would compile each of them."""
    return jax.jit(lambda *args: model(*args, **options))(*args)


def image(*shape: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(0), shape)


def test_dncnn() -> None:
    model = small(ConverseDnCNN, channels=3)
    x = image(2, 7, 9, 3)
    y = call(model, x)
    assert y.shape == x.shape
    np.testing.assert_allclose(call(model, x[0]), y[0], atol=1e-6)
    by_hand = jax.jit(lambda x: model.tail(model.body[0](model.head(x))))(x)
    np.testing.assert_allclose(y, by_hand, atol=1e-6)


def test_another_block_is_one_argument() -> None:
    made: list[tuple[Any, ...]] = []

    def block(*args: Any, **kwargs: Any) -> ConverseBlock:
        made.append(args)
        return ConverseBlock(*args, **kwargs)

    sizes = {"num_features": 4, "num_blocks": 2, "kernel_size": 3}
    model = ConverseDnCNN(**sizes, block=block, padding_mode="reflect", rngs=nnx.Rngs(0))
    assert made == [(4, 3), (4, 3)]
    assert [b.spatial.padding_mode for b in model.body] == ["reflect", "reflect"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_srresnet_starts_as_bilinear_plus_a_residual(scale: int) -> None:
    model = small(ConverseSRResNet, scale=scale, kernel_size=3)
    assert [u.scale for u in model.upsamplers] == {2: [2], 3: [3], 4: [2, 2]}[scale]
    assert all(u.kernel.shape == (2, 2, 4) for u in model.upsamplers)
    x = image(1, 5, 6, 3)
    y = call(model, x)
    assert y.shape == (1, 5 * scale, 6 * scale, 3)
    model.tail.kernel[...] = jnp.zeros_like(model.tail.kernel[...])
    np.testing.assert_allclose(call(model, x), bilinear(np.asarray(x), scale), atol=1e-6)


@pytest.mark.parametrize("scale", [2, 4])
def test_srresnet_without_blocks_above_the_resolution_of_the_input(scale: int) -> None:
    model = small(ConverseSRResNet, scale=scale, kernel_size=3, high_blocks=False)
    x = image(1, 5, 6, 3)
    y = model.up_blocks[0](model.body[0](gelu(model.head(x))))
    for upsampler in model.upsamplers:
        y = gelu(upsampler(y))
    by_hand = model.tail(y) + bilinear(np.asarray(x), scale)
    np.testing.assert_allclose(call(model, x), by_hand, atol=1e-6)


def bilinear(x: np.ndarray, scale: int) -> np.ndarray:
    """Half-pixel centers, edges repeated, axis by axis."""
    for axis in (1, 2):
        size = x.shape[axis]
        position = (np.arange(size * scale) + 0.5) / scale - 0.5
        low = np.floor(position).astype(int)
        weight = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        near, far = (np.take(x, np.clip(low + i, 0, size - 1), axis) for i in (0, 1))
        x = near * (1 - weight) + far * weight
    return x


def test_conversenet_shares_its_blocks_between_iterations() -> None:
    model = small(ConverseNet, num_iterations=2)
    x = image(1, 6, 8, 3)
    block = model.body[0]
    by_hand = jax.jit(lambda x: model.tail(block(block(model.head(x)))))(x)
    np.testing.assert_allclose(call(model, x), by_hand, atol=1e-6)


@pytest.mark.slow
def test_usrnet_inverts_the_blur_it_is_told() -> None:
    model = small(ConverseUSRNet, num_iterations=2)
    x, kernels = image(2, 8, 10, 3), image(2, 7, 7)
    y = call(model, x, kernels)
    assert y.shape == x.shape
    # A kernel for each example, or one for all.
    np.testing.assert_allclose(y[1], call(model, x[1], kernels[1]), atol=1e-5)
    assert not np.allclose(y[1], call(model, x[1], kernels[0]), atol=1e-3)
    # The residual scales start at zero, so the data modules are all there is.
    z = model.head(x[0])
    for kernel_map in model.kernel_maps:
        z = converse2d(z, kernel_map(model.kernel_net(kernels[0])), model.lam)
    np.testing.assert_allclose(model.tail(z), y[0], atol=1e-5)
    assert jax.eval_shape(lambda x, k: model(x, k, scale=2), x, kernels).shape == (2, 16, 20, 3)


def test_a_network_prepared_for_a_kernel_is_called_without_it() -> None:
    model = small(ConvUSRNet, num_iterations=2, blur_size=3)
    x, kernel = image(2, 8, 10, 3), image(3, 3)
    prepared = prepare(model, x, kernel)
    assert len(jax.tree.leaves(nnx.state(prepared, TransferState))) > 0
    np.testing.assert_allclose(call(prepared, x), call(model, x, kernel), atol=1e-6)
    with pytest.raises(ValueError, match="kernel: got none; expected the blur kernel"):
        model(x)


@pytest.mark.slow
def test_usrnet_of_differences_starts_as_one_reverse_convolution() -> None:
    model = small(ConverseUSRNet, kernel_residual=True)
    x, kernel = image(2, 8, 10, 3), jnp.abs(image(7, 7))
    kernel /= kernel.sum()
    expected = converse2d(x, jnp.repeat(kernel[..., None], 3, axis=-1), model.lam[:3])
    np.testing.assert_allclose(call(model, x, kernel), expected, atol=1e-4)
    kernels = jnp.stack([kernel, kernel.T])
    np.testing.assert_allclose(call(model, x, kernels)[0], expected[0], atol=1e-4)
    # What is learned is added.
    model.kernel_maps[1].bias[...] += 0.1
    assert not np.allclose(call(model, x, kernel), expected, atol=1e-3)


@pytest.mark.usefixtures("lenient")
def test_kernel_net_orders_its_output_as_maps() -> None:
    net = KernelNet(3, 2, 4, rngs=nnx.Rngs(0))
    kernel = image(5, 3, 3)
    maps = net(kernel)
    assert maps.shape == (5, 3, 3, 2)
    hidden = [net.fc1.bias[...] + kernel.reshape(5, 9) @ net.fc1.kernel[...]]
    flat = net.fc3(jax.nn.gelu(net.fc2(jax.nn.gelu(hidden[0], False)), False))
    np.testing.assert_allclose(maps[..., 1].reshape(5, 9), flat[:, 9:], atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="scale: got 5; expected 2, 3 or 4"):
        ConverseSRResNet(5, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"kernel: got shape \(5, 5\); expected \[..., 7, 7\]: pad"
    ):
        small(ConverseUSRNet)(image(1, 8, 8, 3), image(5, 5))


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 1), (2, 5)])
def test_cells_of_pixels_are_one_pixel_with_more_channels(size: tuple[int, int]) -> None:
    model = small(ConverseDnCNN, channels=3, downscale=2)
    assert model.head.kernel.shape == (12, 4)
    x = image(2, *size, 3)
    height, width = (n + n % 2 for n in size)
    edge = ((0, 0), (0, height - size[0]), (0, width - size[1]), (0, 0))
    padded = np.pad(np.asarray(x), edge, mode="edge")
    cells = np.empty((2, height // 2, width // 2, 12), np.float32)
    for i, j in np.ndindex(2, 2):
        cells[..., 3 * (2 * i + j) : 3 * (2 * i + j + 1)] = padded[:, i::2, j::2]
    y = np.asarray(model.tail(model.body[0](model.head(jnp.asarray(cells)))))
    by_hand = np.empty((2, height, width, 3), np.float32)
    for i, j in np.ndindex(2, 2):
        by_hand[:, i::2, j::2] = y[..., 3 * (2 * i + j) : 3 * (2 * i + j + 1)]
    np.testing.assert_allclose(call(model, x), by_hand[:, : size[0], : size[1]], atol=1e-6)


def test_a_residual_network_adds_its_input() -> None:
    x = image(1, 5, 6, 1)
    plain, residual = (small(ConverseDnCNN, downscale=2, residual=r) for r in (False, True))
    np.testing.assert_allclose(call(residual, x), call(plain, x) + x, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
def test_the_noise_level_is_one_more_channel() -> None:
    model = small(ConverseDnCNN, downscale=2, noise_level=True)
    x = image(3, 6, 8, 1)
    assert model.head.kernel.shape == (5, 4)
    y = call(model, x, jnp.float32(0.1))
    assert not np.allclose(y, call(model, x, jnp.float32(0.2)), atol=1e-5)
    for sigma in (jnp.full(3, 0.1), jnp.full((6, 8), 0.1), jnp.full((3, 6, 8), 0.1)):
        np.testing.assert_allclose(call(model, x, sigma), y, atol=1e-6)
    levels = jnp.array([0.1, 0.2, 0.3])
    each = [call(model, x[i], levels[i]) for i in range(3)]
    np.testing.assert_allclose(call(model, x, levels), np.stack(each), atol=1e-6)
    # A map is averaged over each cell, and every cell sees its own.
    halves = jnp.where(jnp.arange(8) < 4, 0.0, 0.2) * jnp.ones((6, 1))
    assert not np.allclose(call(model, x, halves), y, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_levels_that_cannot_be() -> None:
    told, plain = (small(ConverseDnCNN, noise_level=level) for level in (True, False))
    x = image(2, 4, 4, 1)
    with pytest.raises(ValueError, match=r"sigma: got none, but the network takes the noise"):
        told(x)
    with pytest.raises(ValueError, match=r"sigma: the network takes no noise level"):
        plain(x, 0.1)
    with pytest.raises(ValueError, match=r"sigma: got shape \(3,\); expected a number, one per"):
        told(x, jnp.zeros(3))
    with pytest.raises(ValueError, match="downscale: got 0; expected an integer >= 1"):
        small(ConverseDnCNN, downscale=0)
