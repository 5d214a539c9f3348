"""What the compiled programs contain: transforms, collectives, and what each device computes."""

import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from converse_jax import apply_transfer, converse2d, converse2d_transfer
from converse_jax.ops import _memory

FEATURES, TAPS = 6, 7


def compiled_text(fn, *args) -> str:
    return jax.jit(fn).lower(*args).compile().as_text()


def transforms(text: str) -> dict[str, int]:
    """Number of FFTs of each type in a compiled program."""
    types = re.findall(r"\bfft\(.*fft_type=(\w+)", text)
    return {kind: types.count(kind) for kind in set(types)}


def reduced_sizes(text: str) -> list[int]:
    """Elements of each array that an all-reduce of a compiled program sums over devices."""
    sizes = []
    for result in re.findall(r"= (.*?) all-reduce(?:-start)?\(", text):
        for shape in re.findall(r"\w+\[([\d,]*)\]", result):
            sizes.append(int(np.prod([int(n) for n in shape.split(",") if n])))
    return sizes


def assert_close(results, expected) -> None:
    """Equal to 1e-5 of the largest value of each array: sums are taken in another order."""
    for a, b in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        chex.assert_trees_all_close(a, b, rtol=0, atol=1e-5 * float(np.abs(b).max()))


def product_sizes(text: str) -> list[int]:
    """Elements of the result of each matrix product of a compiled program."""
    shapes = re.findall(r"= f32\[([\d,]+)\]\S* dot\(", text)
    return [int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes]


def arrays(batch: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 24, 20, FEATURES)).astype(np.float32)
    kernel = rng.normal(size=(TAPS, TAPS, FEATURES)).astype(np.float32)
    return x, kernel, np.full(FEATURES, 1e-2, np.float32), rng.normal(size=x.shape).astype("f")


def loss(x, kernel, lam, cotangent, method="fft"):
    return jnp.sum(converse2d(x, kernel, lam, padding=6, method=method) * cotangent)


def test_forward_is_one_real_transform_each_way() -> None:
    x, kernel, lam, _ = arrays()
    # The kernel's spectrum is a small matrix product and takes no transform at all.
    text = compiled_text(lambda *a: converse2d(*a, padding=6, method="fft"), x, kernel, lam)
    assert transforms(text) == {"RFFT": 1, "IRFFT": 1}
    transfer = converse2d_transfer(kernel, lam, (36, 32), method="fft")
    text = compiled_text(lambda x, t: apply_transfer(x, t, padding=6), x, transfer)
    assert transforms(text) == {"RFFT": 1, "IRFFT": 1}


def test_gradient_is_at_most_two_more_each_way() -> None:
    text = compiled_text(jax.value_and_grad(loss, (0, 1, 2)), *arrays())
    counts = transforms(text)
    assert set(counts) == {"RFFT", "IRFFT"}
    assert counts["RFFT"] <= 3
    assert counts["IRFFT"] <= 3


@pytest.mark.parametrize("scale", [2, 3])
def test_larger_scales_use_real_transforms_of_the_small_map(scale: int) -> None:
    x, kernel, lam, _ = arrays(1)
    text = compiled_text(lambda *a: converse2d(*a, scale=scale, method="fft"), x, kernel, lam)
    assert transforms(text) == {"RFFT": 1, "IRFFT": 1}
    assert f"f32[1,1,{FEATURES},{scale},{scale},24,20]" in text


AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
KINDS = {"Auto": (AUTO, AUTO), "Explicit": (EXPLICIT, EXPLICIT), "mixed": (EXPLICIT, AUTO)}


def mesh(*shape: int, kinds: tuple[AxisType, ...] = KINDS["Auto"]) -> jax.sharding.Mesh:
    names = ("data", "model")[: len(shape)]
    return jax.make_mesh(shape, names, axis_types=kinds[: len(shape)])


LAYOUTS = {
    "batch": ((8,), P("data"), P(), P()),
    "channels": ((2,), P(None, None, None, "data"), P(None, None, "data"), P("data")),
    "both": ((4, 2), P("data", None, None, "model"), P(None, None, "model"), P("model")),
    "both, reversed": ((2, 4), P("model", None, None, "data"), P(None, None, "data"), P("data")),
    "batch, kernel replicated over two axes": ((4, 2), P(("data", "model")), P(), P()),
}


@pytest.mark.parametrize(
    ("layout", "kinds"),
    [
        pytest.param(
            *(layout, kinds),
            # `jax.make_mesh` makes Explicit axes.
            marks=[pytest.mark.slow]
            * (kinds != "Explicit" and (layout, kinds) != ("batch", "Auto")),
        )
        for layout, kinds in itertools.product(LAYOUTS, KINDS)
        if kinds != "mixed" or len(LAYOUTS[layout][0]) > 1
    ],
)
@pytest.mark.parametrize("method", ["fft", "dft"])
def test_sharded_under_plain_jit(layout: str, method: str, kinds: str) -> None:
    shape, x_spec, kernel_spec, lam_spec = LAYOUTS[layout]
    devices = mesh(*shape, kinds=KINDS[kinds])
    specs = (x_spec, kernel_spec, lam_spec, x_spec)
    plain = arrays()
    sharded = [
        jax.device_put(a, NamedSharding(devices, spec))
        for a, spec in zip(plain, specs, strict=True)
    ]
    forward = jax.jit(functools.partial(converse2d, method=method))
    text = forward.lower(*sharded[:3]).compile().as_text()
    assert "all-gather" not in text
    assert reduced_sizes(text) == []
    share = plain[0].size // devices.size
    if method == "fft":
        assert transforms(text) == {"RFFT": 1, "IRFFT": 1}
        (transformed,) = re.findall(r"= f32\[([\d,]+)\]\S* fft\(", text)
        assert np.prod([int(n) for n in transformed.split(",")]) == share
    else:
        assert transforms(text) == {}
        # The largest product has the spectrum of a device's own examples and channels.
        assert max(product_sizes(text)) < 1.5 * share
    chex.assert_trees_all_close(forward(*sharded[:3]), converse2d(*plain[:3]), rtol=1e-5, atol=1e-5)

    of_method = functools.partial(loss, method=method)
    gradient = jax.jit(jax.grad(of_method, (0, 1, 2)))
    text = gradient.lower(*sharded).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text
    assert max(reduced_sizes(text), default=0) <= TAPS * TAPS * FEATURES
    results = gradient(*sharded)
    assert_close(results, jax.grad(loss, (0, 1, 2))(*plain))
    assert results[0].sharding.is_equivalent_to(sharded[0].sharding, 4)


@pytest.mark.parametrize("method", ["fft", "dft"])
def test_a_batch_that_does_not_divide_by_the_devices(method: str) -> None:
    # The compiler fills the last share up with whatever lies there: here, the dropped examples.
    x, kernel, lam, _ = arrays(8)
    x[-1] = np.nan

    def of_some(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(converse2d(x[:-1], kernel, lam, method=method) ** 2)

    sharded = jax.device_put(x, NamedSharding(mesh(8), P("data")))
    assert_close(jax.jit(jax.grad(of_some))(kernel, sharded), jax.grad(of_some)(kernel, x))


@pytest.mark.parametrize("method", ["fft", "dft"])
def test_kernel_an_example_is_sharded_with_its_example(method: str) -> None:
    x, kernel, lam, cotangent = arrays()
    kernels = np.stack([kernel * (1 + i) for i in range(len(x))])
    by_batch = NamedSharding(mesh(8), P("data"))
    args = [jax.device_put(a, by_batch) for a in (x, kernels)]
    gradient = jax.jit(jax.grad(lambda x, k: loss(x, k, lam, cotangent, method), (0, 1)))
    text = gradient.lower(*args).compile().as_text()
    assert "all-gather" not in text
    assert reduced_sizes(text) == []
    expected = jax.grad(lambda x, k: loss(x, k, lam, cotangent, method), (0, 1))(x, kernels)
    assert_close(gradient(*args), expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fft", "dft"])
def test_inside_shard_map(method: str) -> None:
    x, kernel, lam, cotangent = arrays()
    specs = (P("data"), P(), P(), P("data"))

    def gradients(x, kernel, lam, cotangent):
        of_method = functools.partial(loss, method=method)
        return jax.grad(of_method, (0, 1, 2))(x, kernel, lam, cotangent)

    local = jax.shard_map(gradients, mesh=mesh(8), in_specs=specs, out_specs=(P("data"), P(), P()))
    text = compiled_text(local, x, kernel, lam, cotangent)
    assert "all-gather" not in text
    assert max(reduced_sizes(text)) == TAPS * TAPS * FEATURES
    expected = gradients(x, kernel, lam, cotangent)
    assert_close(local(x, kernel, lam, cotangent), expected)


@pytest.mark.parametrize("method", ["fft", "dft"])
def test_gradient_of_shard_map(method: str) -> None:
    x, kernel, lam, cotangent = arrays()
    local = jax.shard_map(
        lambda x, kernel, lam: converse2d(x, kernel, lam, padding=6, method=method),
        mesh=mesh(8),
        in_specs=(P("data"), P(), P()),
        out_specs=P("data"),
    )
    gradient = jax.jit(jax.grad(lambda *a: jnp.sum(local(*a) * cotangent), (0, 1, 2)))
    text = gradient.lower(x, kernel, lam).compile().as_text()
    assert "all-gather" not in text
    assert max(reduced_sizes(text)) == TAPS * TAPS * FEATURES
    expected = jax.grad(loss, (0, 1, 2))(x, kernel, lam, cotangent)
    assert_close(gradient(x, kernel, lam), expected)


@pytest.mark.parametrize("method", ["fft", "dft"])
def test_the_backward_pass_keeps_the_arguments_or_the_spectra(method: str) -> None:
    x, kernel, lam, _ = arrays()
    _, pullback = jax.vjp(lambda *a: converse2d(*a, padding=6, method=method), x, kernel, lam)
    kept = sum(a.size for a in jax.tree.leaves(pullback) if hasattr(a, "size"))
    # The four quadrants of a spectrum together hold as many numbers as the padded map, but for
    # their first and last rows and columns.
    spectra = len(x) * 4 * (36 // 2 + 1) * (32 // 2 + 1) * FEATURES
    assert kept <= (x.size if method == "fft" else spectra) + kernel.size + lam.size


def test_products_take_no_transform_at_all() -> None:
    args = arrays()
    gradient = jax.value_and_grad(functools.partial(loss, method="dft"), (0, 1, 2))
    assert transforms(compiled_text(gradient, *args)) == {}


def test_kernels_no_larger_than_the_stride_take_no_transform_and_no_product() -> None:
    x, kernel, lam, _ = arrays()
    text = compiled_text(lambda *a: converse2d(*a, scale=3), x, kernel[:3, :3], lam)
    assert transforms(text) == {}
    assert product_sizes(text) == []


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 2])
def test_some_channels_at_a_time(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    # A shape that no other test has compiled already.
    x = rng.normal(size=(8, 11, 13, 64)).astype(np.float32)
    kernel, lam = rng.normal(size=(3, 3, 64)).astype(np.float32), np.full(64, 1e-2, np.float32)
    operator = functools.partial(
        converse2d, kernel=kernel, lam=lam, padding=2, scale=scale, method="dft"
    )
    expected = jnp.stack([operator(one) for one in x])
    monkeypatch.setattr(_memory, "_CHUNK_BYTES", 4 * x.size // 4)
    text = compiled_text(operator, x)
    assert "while" in text
    assert_close(operator(x), expected)
    local = jax.shard_map(operator, mesh=mesh(2), in_specs=P("data"), out_specs=P("data"))
    assert_close(local(x), expected)


@pytest.mark.slow
def test_large_maps_of_many_layers_take_no_more_memory_than_of_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_memory, "_CHUNK_BYTES", 1)
    kernel, lam = jnp.ones((3, 3, 64)) / 9, jnp.float32(1e-2)

    def temporaries(layers: int) -> int:
        def network(x: jax.Array) -> jax.Array:
            for _ in range(layers):
                x = jnp.sin(converse2d(x, kernel, lam, padding=2, method="dft"))
            return x

        x = jnp.zeros((40, 39, 64))
        return jax.jit(network).lower(x).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8) < 1.5 * temporaries(2)


def lowered_for(platform: str, fn, *args) -> str:
    """The program for a platform that is not there, as it is handed to its compiler."""
    return jax.jit(fn).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def test_programs_for_tpus_hold_no_custom_partitioning() -> None:
    """The compiler for several TPUs does not know it."""
    by_batch = NamedSharding(mesh(8), P("data"))
    x, kernel, lam, cotangent = arrays()
    args = (jax.device_put(x, by_batch), kernel, lam, jax.device_put(cotangent, by_batch))
    gradient = jax.grad(functools.partial(loss, method="dft"), (0, 1, 2))
    assert "CustomSPMDPartitioning" in lowered_for("cuda", gradient, *args)
    assert "CustomSPMDPartitioning" not in lowered_for("tpu", gradient, *args)


def test_maps_are_parted_on_cpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "_CHUNK_BYTES", 1)
    x, kernel = jnp.zeros((21, 19, 64)), jnp.ones((3, 3, 64)) / 9
    operator = functools.partial(converse2d, kernel=kernel, lam=1e-2, method="dft")
    assert "while" in lowered_for("cpu", operator, x)
    assert "while" not in lowered_for("cuda", operator, x)
