"""Layers and blocks: parameters, types, any spatial operator, and use from Linen."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converse_jax import converse2d
from converse_jax.models import ConverseDnCNN
from converse_jax.nn import Block, Converse2D, ConverseBlock, gelu, softmax_normal, use_method
from converse_jax.nn._normalize import normalized_linear


def maps(*batch: int, features: int = 4) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (*batch, 6, 7, features))


def parameters(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): variable.shape for path, variable in flat}


def test_converse2d_is_the_operator_with_its_parameters() -> None:
    layer = Converse2D(4, 3, scale=2, padding_mode="replicate", rngs=nnx.Rngs(0))
    assert parameters(layer) == {"kernel": (3, 3, 4), "lam_logit": (4,)}
    np.testing.assert_allclose(layer.kernel[...].sum((0, 1)), 1, rtol=1e-6)
    assert (layer.kernel[...] > 0).all()
    np.testing.assert_allclose(layer.lam, 1 / (1 + np.exp(9)) + 1e-5, rtol=1e-5)
    x = maps(2)
    expected = converse2d(
        x, layer.kernel[...], layer.lam, scale=2, padding=2, padding_mode="replicate"
    )
    np.testing.assert_array_equal(layer(x), expected)


def test_softmax_normal_differs_between_channels_and_keys() -> None:
    a, b = (softmax_normal(jax.random.key(i), (3, 5, 2)) for i in (0, 1))
    assert a.shape == (3, 5, 2)
    assert not np.allclose(a[..., 0], a[..., 1])
    assert not np.allclose(a, b)


@pytest.mark.parametrize(
    ("dtype", "param_dtype", "result"),
    [(None, jnp.float32, jnp.float32), (jnp.bfloat16, jnp.float32, jnp.bfloat16)],
)
def test_types(dtype: jnp.dtype | None, param_dtype: jnp.dtype, result: jnp.dtype) -> None:
    block = ConverseBlock(4, 3, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(block))} == {jnp.dtype(param_dtype)}
    x = maps(1)
    assert block(x.astype(result)).dtype == result
    exact = ConverseBlock(4, 3, rngs=nnx.Rngs(0))(x)
    np.testing.assert_allclose(block(x), exact, atol=0.1)


@pytest.mark.usefixtures("lenient")
def test_block_is_the_papers_equation() -> None:
    block = ConverseBlock(4, 3, residual_scale=True, rngs=nnx.Rngs(0))
    x = maps(2)
    np.testing.assert_array_equal(block(x), x)  # the residual scales start at zero
    block.scale1[...] = jnp.arange(4.0)
    block.scale2[...] = jnp.full(4, 0.5)

    def norm(layer: nnx.LayerNorm, x: jax.Array) -> jax.Array:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(variance + 1e-5) * layer.scale[...] + layer.bias[...]

    def pointwise(layer: nnx.Linear, x: jax.Array) -> jax.Array:
        return jnp.einsum("bhwi,io->bhwo", x, layer.kernel[...]) + layer.bias[...]

    def erf_gelu(x: jax.Array) -> jax.Array:
        return x * 0.5 * (1 + jax.scipy.special.erf(x / np.sqrt(2)))

    y = erf_gelu(pointwise(block.expand1, norm(block.norm1, x)))
    y = erf_gelu(converse2d(y, block.spatial.kernel[...], block.spatial.lam, padding=2))
    z = x + block.scale1[...] * pointwise(block.project1, y)
    y = erf_gelu(pointwise(block.expand2, norm(block.norm2, z)))
    z = z + block.scale2[...] * pointwise(block.project2, y)
    np.testing.assert_allclose(block(x), z, atol=1e-5)


def test_any_spatial_operator_fits() -> None:
    def depthwise(features: int) -> nnx.Conv:
        return nnx.Conv(
            features,
            features,
            (3, 3),
            padding="CIRCULAR",
            feature_group_count=features,
            rngs=nnx.Rngs(1),
        )

    block = Block(4, depthwise, rngs=nnx.Rngs(0))
    assert block(maps(2)).shape == (2, 6, 7, 4)
    assert parameters(block)["spatial.kernel"] == (3, 3, 1, 8)


@pytest.mark.slow
def test_layer_and_block_from_linen() -> None:
    class Net(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.bridge.to_linen(Converse2D, 4, 3, scale=2, name="converse")(x)
            return nnx.bridge.to_linen(ConverseBlock, 4, 3, name="block")(x)

    x = maps(2)
    variables = Net().init(jax.random.key(0), x)
    kernel = variables["params"]["converse"]["kernel"]
    logit = variables["params"]["converse"]["lam_logit"]
    y = converse2d(x, kernel, jax.nn.sigmoid(logit - 9) + 1e-5, scale=2, padding=2)
    block = ConverseBlock(4, 3, rngs=nnx.Rngs(0))
    nnx.update(block, nnx.State(variables["params"]["block"]))
    np.testing.assert_allclose(Net().apply(variables, x), block(y), rtol=1e-6, atol=1e-6)
    gradients = jax.grad(lambda v: jnp.sum(Net().apply(v, x) ** 2))(variables)
    assert float(jnp.abs(gradients["params"]["converse"]["lam_logit"]).max()) > 0


def test_exact_gelu() -> None:
    x = jnp.linspace(-3, 3, 13)
    np.testing.assert_allclose(gelu(x), x * jax.scipy.stats.norm.cdf(x), atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="kernel_size: got 0; expected"):
        Converse2D(4, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="eps: got 0; expected > 0"):
        Converse2D(4, eps=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="x: got 3 channels .* the 4 of kernel"):
        Converse2D(4, rngs=nnx.Rngs(0))(maps(features=3))
    with pytest.raises(ValueError, match="padding_mode: got 'zeros'; expected"):
        Converse2D(4, padding_mode="zeros", rngs=nnx.Rngs(0))(maps())


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_gelu_is_the_exact_one_with_its_gradients(x64: None, dtype: str) -> None:
    x = jnp.asarray(np.linspace(-9, 9, 401), dtype)
    exact = functools.partial(jax.nn.gelu, approximate=False)
    tolerance = {"float32": 2e-6, "float64": 1e-13, "bfloat16": 2e-2}[dtype]
    truth = jnp.asarray(x, "float64")
    for transform in (
        lambda f: f,
        lambda f: jax.grad(lambda x: f(x).sum()),
        lambda f: jax.grad(lambda x: jax.grad(lambda x: f(x).sum())(x).sum()),
    ):
        found = transform(gelu)(x)
        assert found.dtype == x.dtype
        np.testing.assert_allclose(
            found.astype("float64"), transform(exact)(truth), rtol=tolerance, atol=tolerance
        )
    assert gelu(jnp.zeros((0, 3))).shape == (0, 3)


def test_gelu_keeps_only_its_argument_for_the_backward_pass() -> None:
    x = jnp.linspace(-3, 3, 64)
    _, pullback = jax.vjp(gelu, x)
    assert [r.size for r in jax.tree.leaves(pullback)] == [64]


def test_compiler_does_not_keep_the_error_function_either() -> None:
    """XLA merges equal computations: that of the backward pass must not look like the forward's."""

    def temporaries(activation: Callable[[jax.Array], jax.Array]) -> int:
        def loss(w: jax.Array, x: jax.Array) -> jax.Array:
            for _ in range(4):
                x = activation(x @ w)
            return jnp.sum(x)

        step = jax.jit(jax.grad(loss)).lower(jnp.ones((8, 8)), jnp.ones((4096, 8)))
        return step.compile().memory_analysis().temp_size_in_bytes

    # Two maps a layer: newer compilers keep ten of jax.nn.gelu, older ones thirteen.
    assert temporaries(gelu) < 8.1 * 4096 * 8 * 4
    assert temporaries(functools.partial(jax.nn.gelu, approximate=False)) > 9.9 * 4096 * 8 * 4


def test_block_keeps_little_for_the_backward_pass() -> None:
    """Its input, the spectra in its middle, what leaves the operator, and its half-way sum."""
    features, side, padding = 8, 16, 4
    block = ConverseBlock(features, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(block)
    x = jax.random.normal(jax.random.key(0), (side, side, features))
    _, pullback = jax.vjp(lambda state, x: nnx.merge(graphdef, state)(x), state, x)
    kept = sum(leaf.size for leaf in jax.tree.leaves(pullback) if hasattr(leaf, "size"))
    spectra = 4 * ((side + 2 * padding) // 2 + 1) ** 2 * 2 * features
    # Parameters are kept by each part that uses them, and once more the operator's.
    parameters = 2 * sum(leaf.size for leaf in jax.tree.leaves(state))
    assert kept <= spectra + (1 + 2 + 1) * x.size + parameters


def plain_block(block: ConverseBlock, x: jax.Array) -> jax.Array:
    """The equations of `Block`, layer by layer."""
    y = block.spatial(gelu(block.expand1(block.norm1(x))))
    x = x + block.project1(gelu(y))
    return x + block.project2(gelu(block.expand2(block.norm2(x))))


def lora(layer: nnx.Linear) -> nnx.LoRALinear:
    made = nnx.LoRALinear(
        layer.in_features, layer.out_features, lora_rank=2, rngs=nnx.Rngs(1),
        b_initializer=nnx.initializers.ones,
    )  # fmt: skip
    made.kernel[...], made.bias[...] = layer.kernel[...], layer.bias[...]
    return made


def without_bias(layer: nnx.Linear) -> nnx.Linear:
    made = nnx.Linear(layer.in_features, layer.out_features, use_bias=False, rngs=nnx.Rngs(1))
    made.kernel[...] = layer.kernel[...]
    return made


def quantized(layer: nnx.Linear) -> nnx.Linear:
    def dot_general(x: jax.Array, y: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        return jax.lax.dot_general(jnp.round(8 * x) / 8, y, *args, **kwargs)

    layer = nnx.clone(layer)
    layer.dot_general = dot_general
    return layer


@pytest.mark.parametrize("name", ["expand1", "project1", "expand2", "project2"])
@pytest.mark.parametrize("replace", [lora, without_bias, quantized])
def test_layers_of_a_block_that_were_replaced_are_called(
    name: str, replace: Callable[[nnx.Linear], nnx.Module]
) -> None:
    block = ConverseBlock(4, 3, rngs=nnx.Rngs(0))
    for layer in (block.expand1, block.project1, block.expand2, block.project2):
        layer.kernel[...] = 20 * layer.kernel[...]
        layer.bias[...] = layer.bias[...] + 0.3
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
    before = block(x)
    setattr(block, name, replace(getattr(block, name)))
    np.testing.assert_allclose(block(x), plain_block(block, x), atol=1e-4)
    assert float(jnp.abs(block(x) - before).max()) > 1e-3


def test_a_table_names_the_layers_of_a_block() -> None:
    block = ConverseBlock(4, 3, rngs=nnx.Rngs(0))
    table = nnx.tabulate(block, jnp.ones((1, 8, 8, 4)), console_kwargs={"width": 200})
    for name in ("norm1", "expand1", "spatial", "project1", "norm2", "expand2", "project2"):
        assert f" {name} " in table


def test_an_adapter_in_a_block_learns() -> None:
    block = ConverseBlock(4, 3, rngs=nnx.Rngs(0))
    block.expand1 = lora(block.expand1)
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
    gradient = nnx.grad(
        lambda block: jnp.sum(block(x) ** 2), argnums=nnx.DiffState(0, nnx.LoRAParam)
    )
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradient(block)))


def test_another_normalization_in_a_block() -> None:
    block: Any = ConverseBlock(4, 3, rngs=nnx.Rngs(0))
    block.norm1 = nnx.RMSNorm(4, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
    np.testing.assert_allclose(block(x), plain_block(block, x), atol=1e-5)


def test_recomputation_can_be_left_to_others() -> None:
    def kept(recompute: bool) -> int:
        graphdef, state = nnx.split(ConverseBlock(8, 3, recompute=recompute, rngs=nnx.Rngs(0)))
        x = jnp.ones((16, 16, 8))
        _, pullback = jax.vjp(lambda state, x: nnx.merge(graphdef, state)(x), state, x)
        return sum(leaf.size for leaf in jax.tree.leaves(pullback) if hasattr(leaf, "size"))

    assert kept(False) > 1.3 * kept(True)


def network() -> tuple[Any, Any]:
    return nnx.split(
        ConverseDnCNN(1, num_features=4, num_blocks=1, kernel_size=3, rngs=nnx.Rngs(0))
    )


@pytest.mark.usefixtures("unchecked")
def test_networks_are_exported_with_any_batch() -> None:
    graphdef, state = network()
    (batch,) = jax.export.symbolic_shape("b")
    run = jax.jit(lambda x: nnx.merge(graphdef, state)(x))
    exported = jax.export.export(run, platforms=("cpu", "cuda", "tpu"))(
        jax.ShapeDtypeStruct((batch, 9, 8, 1), jnp.float32)
    )
    for size in (1, 3):
        x = jax.random.normal(jax.random.key(0), (size, 9, 8, 1))
        np.testing.assert_allclose(exported.call(x), run(x), atol=1e-6)


@pytest.mark.slow
def test_networks_have_forward_derivatives() -> None:
    graphdef, state = network()

    def run(x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(x)

    x, v = (jax.random.normal(jax.random.key(i), (5, 6, 1)) for i in range(2))
    _, tangent = jax.jvp(run, (x,), (v,))
    step = 1e-2
    difference = (run(x + step * v) - run(x - step * v)) / (2 * step)
    np.testing.assert_allclose(tangent, difference, atol=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_what_flax_users_expect_of_a_layer() -> None:
    with pytest.raises(ValueError, match="padding: got 'CIRCULAR'; .* padding_mode='circular'"):
        Converse2D(4, padding="CIRCULAR", rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"kernel_size: got \(3,\); expected k or \(kh, kw\)"):
        Converse2D(4, (3,), rngs=nnx.Rngs(0))
    layer = Converse2D(
        4,
        kernel_metadata={"note": "a"},
        lam_metadata={"note": "b"},
        precision=jax.lax.Precision.HIGH,
        rngs=nnx.Rngs(0),
    )
    assert (layer.kernel.note, layer.lam_logit.note) == ("a", "b")


def test_the_initial_lambda() -> None:
    layer = Converse2D(4, 3, lam_init=0.02, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(layer.lam, 0.02, rtol=1e-4)
    with pytest.raises(ValueError, match="lam_init: got 0; expected eps=1e-05 < lam_init < 1"):
        Converse2D(4, 3, lam_init=0, rngs=nnx.Rngs(0))


@pytest.mark.usefixtures("unchecked")
def test_options_are_checked_when_a_layer_is_made() -> None:
    for wrong, message in [
        ({"scale": 0}, "scale: got 0; expected an integer >= 1"),
        ({"padding": -1}, "padding: got -1; expected an integer >= 0"),
        ({"x0": "y"}, "x0: got 'y'; expected 'nearest', 'zero'"),
        ({"method": "dct"}, "method: got 'dct'; expected 'auto', 'fft'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Converse2D(4, **wrong, rngs=nnx.Rngs(0))
    assert Converse2D(4, np.int64(3), scale=np.int64(2), rngs=nnx.Rngs(0)).kernel.shape == (3, 3, 4)


def test_a_network_by_another_method() -> None:
    make = functools.partial(ConverseDnCNN, 1, num_features=4, num_blocks=1, kernel_size=3)
    usual, other = make(rngs=nnx.Rngs(0)), make(method="fft", rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (9, 8, 1))
    assert "fft" in jax.jit(other.__call__).lower(x).as_text()
    np.testing.assert_allclose(other(x), usual(x), atol=1e-6)
    use_method(usual, "fft")
    np.testing.assert_array_equal(other(x), usual(x))


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
def test_blocks_under_vmap() -> None:
    """Layers that look at more than a pixel, and ensembles, which keep as little as one block."""
    x = jax.random.normal(jax.random.key(0), (3, 2, 8, 8, 4)) * jnp.arange(1, 4).reshape(
        3, 1, 1, 1, 1
    )
    block: Any = ConverseBlock(4, 3, rngs=nnx.Rngs(0))
    block.norm1 = nnx.GroupNorm(4, num_groups=2, rngs=nnx.Rngs(0))
    each = jnp.stack([block(a) for a in x])
    np.testing.assert_allclose(jax.vmap(block)(x), each, atol=1e-5)

    graphdef, state = nnx.split(ConverseBlock(4, 3, rngs=nnx.Rngs(0)))
    members = jax.tree.map(lambda a: jnp.stack([a, a + 0.1]), state)

    def run(state: nnx.State) -> jax.Array:
        return nnx.merge(graphdef, state)(x[0])

    def kept(pullback: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(pullback) if hasattr(leaf, "size"))

    result, pullback = jax.vjp(jax.vmap(run), members)
    assert kept(pullback) <= 2 * kept(jax.vjp(run, state)[1])
    for i, gradient in enumerate(
        jax.vjp(run, jax.tree.map(lambda a, i=i: a[i], members))[1](result[i])[0] for i in range(2)
    ):
        for a, b in zip(
            jax.tree.leaves(pullback(result)[0]), jax.tree.leaves(gradient), strict=True
        ):
            np.testing.assert_allclose(a[i], b, atol=1e-4 * float(jnp.abs(b).max() + 1))


def test_layers_with_a_state_of_their_own() -> None:
    block: Any = ConverseBlock(4, 3, rngs=nnx.Rngs(0))
    block.project1 = nnx.Sequential(block.project1, nnx.Dropout(0.5, rngs=nnx.Rngs(7)))
    x = maps(2)
    assert not np.array_equal(block(x), block(x))  # another mask in each call


def test_a_normalization_over_more_axes_is_called() -> None:
    norm = nnx.LayerNorm(4, reduction_axes=(-3, -2, -1), feature_axes=-1, rngs=nnx.Rngs(0))
    linear = nnx.Linear(4, 5, rngs=nnx.Rngs(0))
    x = maps(2)
    np.testing.assert_array_equal(normalized_linear(norm, linear, x), linear(norm(x)))


def test_gelu_of_half_precision_keeps_its_tail() -> None:
    x = jnp.linspace(-5, -1, 41)
    found = gelu(x.astype("bfloat16")).astype("float32")
    exact = jax.nn.gelu(x.astype("bfloat16").astype("float32"), approximate=False)
    np.testing.assert_allclose(found, exact, rtol=1e-2, atol=1e-6)


def test_normalization_and_product_are_those_of_flax() -> None:
    rngs = nnx.Rngs(0)
    norm, linear = nnx.LayerNorm(6, epsilon=1e-5, rngs=rngs), nnx.Linear(6, 9, rngs=rngs)
    for parameter in (norm.scale, norm.bias, linear.bias):
        parameter[...] = jax.random.normal(rngs.params(), parameter.shape)
    graphdef, state = nnx.split((norm, linear))
    x = 3 + jax.random.normal(jax.random.key(1), (4, 5, 6))

    def ours(state: nnx.State, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(normalized_linear(*nnx.merge(graphdef, state), x)))

    def flax(state: nnx.State, x: jax.Array) -> jax.Array:
        norm, linear = nnx.merge(graphdef, state)
        return jnp.sum(jnp.sin(linear(norm(x))))

    np.testing.assert_allclose(ours(state, x), flax(state, x), rtol=1e-5)
    for a, b in zip(
        *(jax.tree.leaves(jax.grad(f, (0, 1))(state, x)) for f in (ours, flax)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
