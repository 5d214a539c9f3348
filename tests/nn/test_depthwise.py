"""Depthwise layers against Flax's own, in value and in every derivative."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converse_jax.nn import ConvBlock, ConvTransposeBlock, DepthwiseConv, DepthwiseConvTranspose
from converse_jax.nn._depthwise import correlate

MODES = {"circular": "wrap", "replicate": "edge", "reflect": "reflect", "constant": "constant"}


def image(*shape: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(0), shape)


def flax_correlate(x: jax.Array, kernel: jax.Array) -> jax.Array:
    conv = nnx.Conv(
        x.shape[-1],
        x.shape[-1],
        kernel.shape[:2],
        padding="VALID",
        feature_group_count=x.shape[-1],
        use_bias=False,
        rngs=nnx.Rngs(0),
    )
    conv.kernel[...] = kernel[:, :, None]
    return conv(x)


@pytest.mark.parametrize(
    ("kernel", "mode"), [((5, 5), "circular"), ((3, 5), "reflect"), ((2, 4), "replicate")]
)
def test_a_convolution_keeps_the_size(kernel: tuple[int, int], mode: Any) -> None:
    layer = DepthwiseConv(3, kernel, padding_mode=mode, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(3.0)
    x = image(2, 6, 7, 3)
    around = [(0, 0), *(((k - 1) // 2, k // 2) for k in kernel), (0, 0)]
    padded = jnp.pad(x, around, mode=MODES[mode])
    wanted = flax_correlate(padded, layer.kernel[...]) + layer.bias[...][None, None, None]
    np.testing.assert_allclose(layer(x), wanted, atol=1e-6)
    np.testing.assert_allclose(layer(x[0]), wanted[0], atol=1e-6)


def test_even_kernels_reach_to_the_right_and_the_bottom() -> None:
    layer = DepthwiseConv(1, 2, padding_mode="constant", rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.zeros((2, 2, 1)).at[1, 1].set(1)
    x = image(4, 5, 1)
    np.testing.assert_allclose(layer(x)[:-1, :-1], x[1:, 1:], atol=1e-7)
    assert not layer(x)[-1].any()


@pytest.mark.parametrize(
    ("kernel", "scale", "size"), [(5, 1, (6, 7)), (5, 2, (11, 13)), (2, 2, (12, 14))]
)
def test_a_transposed_convolution_is_the_adjoint(
    kernel: int, scale: int, size: tuple[int, int]
) -> None:
    layer = DepthwiseConvTranspose(3, kernel, scale=scale, rngs=nnx.Rngs(0))
    x, y = image(2, 6, 7, 3), image(2, *size, 3)
    assert layer(x).shape == y.shape
    p = (kernel - 1) // 2
    conv = nnx.Conv(
        3,
        3,
        (kernel, kernel),
        strides=scale,
        padding=[(p, p), (p, p)],
        feature_group_count=3,
        use_bias=False,
        rngs=nnx.Rngs(0),
    )
    conv.kernel[...] = layer.kernel[...][:, :, None]
    np.testing.assert_allclose(jnp.vdot(layer(x), y), jnp.vdot(x, conv(y)), rtol=1e-5)


def test_derivatives() -> None:
    x, kernel, weights = image(2, 8, 9, 3), image(3, 5, 3), image(2, 6, 5, 3)

    def gradients(fn: Any) -> Any:
        loss = lambda x, kernel: jnp.sum(weights * jnp.sin(fn(x, kernel)))  # noqa: E731
        slope = jax.grad(loss, (0, 1))
        return slope(x, kernel), jax.jvp(slope, (x, kernel), (jnp.cos(x), jnp.cos(kernel)))[1]

    ours, wanted = (jax.jit(lambda fn=fn: gradients(fn))() for fn in (correlate, flax_correlate))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [ConvBlock, ConvTransposeBlock])
def test_blocks_compute_in_the_type_they_are_told(block: Any) -> None:
    made = block(2, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert made.spatial.kernel.dtype == jnp.float32
    x = image(4, 5, 2).astype(jnp.bfloat16)
    assert made(x).dtype == jnp.bfloat16


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="padding_mode: got 'same'; expected"):
        DepthwiseConv(1, padding_mode="same", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="scale: got 0"):
        DepthwiseConvTranspose(1, scale=0, rngs=nnx.Rngs(0))


@pytest.mark.usefixtures("unchecked")
def test_sizes_may_be_symbolic() -> None:
    layer = DepthwiseConv(2, 3, rngs=nnx.Rngs(0))
    height, width = jax.export.symbolic_shape("h, w", constraints=["h>=4", "w>=4"])
    shape = jax.ShapeDtypeStruct((height, width, 2), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: layer(x)))(shape)
    x = image(6, 7, 2)
    np.testing.assert_allclose(exported.call(x), layer(x), atol=1e-6)
