"""The step: on one device and eight, in parts, with what is not finite, and what it compiles to."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from tests.train import tiny
from train.checkpoint import named_leaves
from train.config import Config, Optimizer
from train.networks import (
    ConverseNetConfig,
    ConverseSRResNetConfig,
    ConverseUSRNetConfig,
    DnCNNConfig,
)
from train.state import (
    BATCH_AXIS,
    FunctionalNetwork,
    TrainState,
    batch_sharding,
    make_optimizer,
    make_schedule,
    make_state,
)
from train.step import jit_step, loss_and_gradient, loss_value, make_step
from train.tasks import Deblur, SuperResolve


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), (BATCH_AXIS,), devices=jax.devices()[:devices])


def batch_of(config: Config, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    side, channels, n = config.data.patch_size, config.model.channels, config.batch_size
    clean = rng.integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    examples = [config.task.degrade(image, rng) for image in clean]
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


class Run:
    """A configuration compiled for some devices."""

    def __init__(self, config: Config, devices: int = 1) -> None:
        self.config, self.mesh, self.network = config, mesh_of(devices), FunctionalNetwork(config)
        optimizer = make_optimizer(config.optimizer, config.steps)
        self.start = make_state(self.network, optimizer, self.mesh)
        jitted = jit_step(make_step(config, self.network, optimizer), self.mesh)
        self.step = jitted.lower(self.start, batch_of(config)).compile()

    def __call__(
        self, batches: list[dict[str, np.ndarray]]
    ) -> tuple[TrainState, list[dict[str, float]]]:
        state, numbers = jax.tree.map(jnp.copy, self.start), []  # a step donates it
        for batch in batches:
            state, metrics = self.step(state, jax.device_put(batch, batch_sharding(self.mesh)))
            numbers.append({key: float(value) for key, value in metrics.items()})
        return state, numbers


@pytest.fixture(scope="module")
def one() -> Run:
    return Run(tiny.config("unused"))


DEBLUR = {
    "model": ConverseUSRNetConfig(num_features=2, num_blocks=1, num_iterations=1, blur_size=3),
    "task": Deblur(kernel_size=3),
    "accumulation": 2,
    "batch_size": 16,
}
BATCH_NORM = {"model": DnCNNConfig(num_features=2, num_layers=4)}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(DEBLUR, marks=pytest.mark.slow),
        BATCH_NORM,
    ],
    ids=["dncnn", "usrnet in two parts", "batch normalization"],
)
def test_eight_devices_are_one(changes: dict[str, object]) -> None:
    config = tiny.config("unused", **changes)
    batches = [batch_of(config, seed) for seed in range(5)]
    one, eight = Run(config), Run(config, 8)
    losses = [[numbers["loss"] for numbers in run(batches)[1]] for run in (one, eight)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6, atol=0)
    # Adam's first mean is a tenth of the first gradient.
    means = [optax.tree.get(run(batches[:1])[0].opt_state, "mu") for run in (one, eight)]
    # The gradient of a bias before batch normalization is zero, to the rounding of the others.
    rounding = 1e-6 * max(float(np.abs(mean).max()) for mean in means[0].values())
    for name, mean in means[0].items():
        scale = float(np.abs(mean).max())
        np.testing.assert_allclose(means[1][name], mean, rtol=0, atol=1e-5 * scale + rounding)

    stats = [run(batches[:1])[0].stats for run in (one, eight)]
    chex.assert_trees_all_close(*stats, rtol=1e-5, atol=1e-7)

    sizes = {value.size for value in one.start.params.values()}
    tiny.assert_only_gradients_are_exchanged(eight.step.as_text(), sizes)


def test_accumulation_and_remat_give_the_same_gradient() -> None:
    config = tiny.config("unused")
    batch, params = batch_of(config), FunctionalNetwork(config).init()

    def compute(**changes: object) -> object:
        changed = dataclasses.replace(config, **changes)
        return jax.jit(functools.partial(loss_and_gradient, changed, FunctionalNetwork(changed)))(
            params, {}, batch
        )

    whole = compute()
    chex.assert_trees_all_close(compute(accumulation=4), whole, rtol=1e-4, atol=1e-7)
    chex.assert_trees_all_close(compute(remat=True), whole, rtol=1e-4, atol=1e-7)


def test_remat_keeps_less_for_the_backward_pass() -> None:
    sizes = {}
    for remat in (False, True):
        config = tiny.config("unused", remat=remat)
        network, batch = FunctionalNetwork(config), batch_of(config)
        _, pullback = jax.vjp(lambda p: network(p, batch), network.init())  # noqa: B023
        sizes[remat] = sum(x.size for x in jax.tree.leaves(pullback))
    assert sizes[True] < sizes[False] / 2


def test_what_is_not_finite_changes_nothing_but_the_counters(one: Run) -> None:
    good, bad = batch_of(one.config, 0), batch_of(one.config, 1)
    bad["input"][3, 5, 7, 0] = np.nan
    state, _ = one([good])
    after, numbers = one([good, bad, bad])
    assert numbers[-1]["skipped"] == numbers[-1]["skipped_in_a_row"] == 2
    assert int(after.step) == 3
    for part in ("params", "stats", "ema", "opt_state"):
        chex.assert_trees_all_equal(getattr(after, part), getattr(state, part))
    chex.assert_tree_all_finite(after.params)
    _, numbers = one([good, bad, good])
    assert (numbers[-1]["skipped"], numbers[-1]["skipped_in_a_row"]) == (1, 0)


@pytest.mark.slow
def test_bfloat16_computes_with_float32_weights(one: Run) -> None:
    config = tiny.config("unused", dtype="bfloat16")
    state, numbers = Run(config)([batch_of(config)])
    _, exact = one([batch_of(config)])
    assert {x.dtype for x in state.params.values()} == {jnp.dtype("float32")}
    assert numbers[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)
    assert numbers[0]["loss"] != exact[0]["loss"]


def test_average_follows_the_weights(one: Run) -> None:
    batch, mean = batch_of(one.config), one.network.init()
    for count in range(3):
        state, _ = one([batch] * (count + 1))
        decay = min(one.config.ema, (1 + count) / (10 + count))
        mean = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, mean, state.params)  # noqa: B023
        chex.assert_trees_all_close(state.ema, mean, rtol=1e-5, atol=1e-7)


def test_schedules() -> None:
    paper = make_schedule(Optimizer(), 800_000)
    rates = [float(paper(s)) for s in (0, 99_999, 100_000, 250_000, 799_999, 5_000_000)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 5e-5, 2.5e-5, 1e-4 / 128, 5e-7], rtol=1e-6)
    cosine = make_schedule(Optimizer(schedule="cosine", min_learning_rate=0, warmup=4), 100)
    assert float(cosine(0)) == pytest.approx(0.25e-4)
    assert float(cosine(50)) == pytest.approx(0.5e-4)
    assert float(cosine(100)) == pytest.approx(0, abs=1e-12)
    assert float(make_schedule(Optimizer(schedule="constant"), 10)(7)) == pytest.approx(1e-4)


def test_clipping() -> None:
    gradient = {"w": jnp.asarray([3.0, 4.0])}
    for clip in (None, 1.0):
        optimizer = make_optimizer(Optimizer(clip=clip), 10)
        state = optimizer.init(gradient)
        _, state = optimizer.update(gradient, state)
        mean = optax.tree.get(state, "mu")["w"]
        np.testing.assert_allclose(mean, (0.06, 0.08) if clip else (0.3, 0.4), rtol=1e-5)


def test_losses() -> None:
    a, b = jnp.asarray([0.0, 0.5]), jnp.asarray([1.0, 0.5])
    assert float(loss_value("l1", a, b)) == pytest.approx(0.5)
    assert float(loss_value("l2", a, b)) == pytest.approx(0.5)
    assert float(loss_value("charbonnier", a, b)) == pytest.approx(0.5 * (1 + 1e-3), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task"),
    [
        (ConverseSRResNetConfig(num_features=2, num_blocks=1), SuperResolve(scale=2)),
        (ConverseUSRNetConfig(num_features=2, num_blocks=1, num_iterations=1), Deblur()),
        (ConverseNetConfig(num_features=2, num_blocks=1, num_iterations=1), Deblur()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_other_networks_take_a_step(model: object, task: object) -> None:
    config = tiny.config("unused", model=model, task=task, data_patch_size=12, batch_size=1)
    config.check()
    before = FunctionalNetwork(config).init()
    state, numbers = Run(config)([batch_of(config)] * 2)
    assert np.isfinite(numbers[-1]["loss"])
    assert numbers[-1]["skipped"] == 0
    assert any((state.params[name] != before[name]).any() for name in before)


@pytest.mark.slow
def test_weights_decay_and_nothing_else_does() -> None:
    params = {
        "kernel": jnp.ones((2, 2)),
        "bias": jnp.ones(2),
        "lam_logit": jnp.ones(2),
        "scale1": jnp.ones(2),
    }
    zero = jax.tree.map(jnp.zeros_like, params)
    config = Optimizer(learning_rate=1e-2, schedule="constant", weight_decay=0.1)
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert np.asarray(updates.pop("kernel")) == pytest.approx(-1e-3)
    assert all((update == 0).all() for update in updates.values())


def test_without_decay_it_is_adam() -> None:
    rng = np.random.default_rng(0)
    params, gradient = ({"w": jnp.asarray(rng.random((3, 3), np.float32))} for _ in range(2))
    config, found = Optimizer(betas=(0.8, 0.9)), []
    adam = optax.adam(make_schedule(config, 10), b1=0.8, b2=0.9)
    for optimizer in (make_optimizer(config, 10), adam):
        state, after = optimizer.init(params), params
        for _ in range(3):
            updates, state = optimizer.update(gradient, state, after)
            after = optax.apply_updates(after, updates)
        found.append(after)
    chex.assert_trees_all_equal(*found)
    # So a checkpoint of either goes on with the other.
    forms = [
        named_leaves(make_optimizer(Optimizer(weight_decay=decay), 10).init(params)).keys()
        for decay in (0.0, 0.1)
    ]
    before = optax.chain(optax.clip_by_global_norm(1.0), adam)
    assert forms == [named_leaves(before.init(params)).keys()] * 2
