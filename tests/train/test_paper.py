"""Every row of every table is a training run that can be built, at full size and at a small one."""

import dataclasses

import jax
import pytest

from train.paper import ROWS, Budget, Row, make_config, sized
from train.state import FunctionalNetwork

SMALL = Budget(steps=100, width=8, blocks=2)


def test_the_tables_are_whole() -> None:
    sizes = [sum(row.table == table for row in ROWS) for table in range(1, 8)]
    assert sizes == [6, 8, 4, 4, 4, 4, 4]
    labels = [(row.table, row.label) for row in ROWS]
    assert len(set(labels)) == len(labels)
    figures = {row.label: row.paper for row in ROWS if row.table == 4}
    assert figures["Converse-DnCNN"] == {"Set12": 30.70, "BSD68": 29.36}
    assert all(20 < value < 40 for row in ROWS for value in row.paper.values())
    assert sum(len(row.paper) for row in ROWS) == 2 * 22 + 4 * 8 + 10 * 4


def configurations(budget: Budget) -> dict[str, tuple[Row, Budget]]:
    """Each configuration once."""
    return {repr((sized(row.model, budget), row.task)): (row, budget) for row in ROWS}


def test_rows_of_one_configuration_are_one_run() -> None:
    assert len(ROWS) == 34 and len(configurations(Budget())) == 27


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row, _ in configurations(Budget()).values()], ids=lambda row: row.label
)
def test_every_configuration_builds(row: Row) -> None:
    config = make_config(row, Budget(), steps=None, seed=3, train=("embedded",))
    config.check()
    network = FunctionalNetwork(config)
    side = config.data.patch_size // config.task.scale
    shape = (1, side, side, config.model.channels)
    batch = {"input": jax.ShapeDtypeStruct(shape, "float32")}
    batch["kernel"] = jax.ShapeDtypeStruct((1, 7, 7), "float32")
    weights = {k: jax.ShapeDtypeStruct(s, "float32") for k, s in network.shapes.items()}
    made = jax.eval_shape(network, weights, batch)
    assert made.shape == (1, config.data.patch_size, config.data.patch_size, shape[-1])


def test_a_budget_makes_every_network_small_and_every_run_short() -> None:
    for row in ROWS:
        config = make_config(row, SMALL, steps=None, seed=0, train=("embedded",))
        config.check()
        size = dataclasses.asdict(config.model)
        assert (config.steps, size["num_features"]) == (100, 8)
        assert size.get("num_blocks", 2) == 2 and size.get("num_layers", 3) == 3


def test_one_thing_is_changed_at_a_time() -> None:
    base = next(row.model for row in ROWS if row.name == "Gauss.+Softmax")
    for row in ROWS:
        if row.table in (1, 2) or (row.table == 3 and row.part == "denoising"):
            changed = dataclasses.asdict(row.model).items() - dataclasses.asdict(base).items()
            assert len(changed) <= 1, row.label
