"""`python -m tests.golden.make`: the golden numbers of this folder, float64.

`operator.npz`: some cases of `tests/ops/cases.py`, solved by the dense oracle, which shares no code
with the library. `networks.npz`: each network with seeded weights, evaluated by the library in
float64: what every later version must still compute, and the names of its parameters. To be made
anew only if a definition changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from converse_jax import models
from tests import oracles
from tests.ops.cases import CASES, Case

FOLDER = Path(__file__).parent
SMALL: dict[str, Any] = {"num_features": 4, "num_blocks": 1, "kernel_size": 3}
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[tuple[int, ...], ...]]] = {
    "dncnn": ("ConverseDnCNN", {}, ((9, 8, 1),)),
    "dncnn-fast": (
        "ConverseDnCNN",
        {"channels": 3, "downscale": 2, "noise_level": True, "residual": True},
        ((9, 8, 3), ()),
    ),
    "srresnet-x4": ("ConverseSRResNet", {"scale": 4}, ((5, 6, 3),)),
    "srresnet-x3-fast": ("ConverseSRResNet", {"scale": 3, "high_blocks": False}, ((5, 6, 3),)),
    "usrnet": ("ConverseUSRNet", {"num_iterations": 2, "blur_size": 5}, ((8, 9, 3), (5, 5))),
    "usrnet-differences": (
        "ConverseUSRNet",
        {"num_iterations": 2, "blur_size": 5, "kernel_residual": True},
        ((8, 9, 3), (5, 5)),
    ),
    "conversenet": ("ConverseNet", {"num_iterations": 2}, ((8, 9, 3),)),
}


def operator_cases() -> list[Case]:
    """Some cases, of every scale, padding mode and initial estimate."""
    return [case for case in CASES if case.shape != (1, 1)][::6]


def build(name: str) -> nnx.Module:
    """An untrained network."""
    architecture, options, _ = NETWORKS[name]
    model: nnx.Module = getattr(models, architecture)(**SMALL, **options, rngs=nnx.Rngs(0))
    return model


def parameters(model: nnx.Module) -> dict[str, nnx.Variable[Any]]:
    """Its parameters by their dotted names."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): variable for path, variable in flat}


def seeded(name: str) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Weights by name and inputs of a network, float32, the same on every machine."""
    rng = np.random.default_rng(0)
    model = nnx.eval_shape(lambda: build(name))
    weights = {
        key: np.float32(0.3 * rng.standard_normal(variable.shape))
        for key, variable in sorted(parameters(model).items())
    }
    return weights, [np.float32(rng.random(shape)) for shape in NETWORKS[name][2]]


def evaluate(name: str, dtype: type) -> np.ndarray:
    """The output of a network with its seeded weights."""
    model = build(name)
    weights, inputs = seeded(name)
    for key, variable in parameters(model).items():
        variable.set_value(jax.numpy.asarray(weights[key], dtype))
    return np.asarray(model(*(x.astype(dtype) for x in inputs)))


def main() -> None:
    """Write both files."""
    jax.config.update("jax_enable_x64", True)
    found = {}
    for case in operator_cases():
        found[str(case)] = oracles.converse2d(*case.arrays(), **case.options)
    np.savez_compressed(FOLDER / "operator.npz", **found)

    found = {}
    for name in NETWORKS:
        found[f"{name}/names"] = np.array(sorted(parameters(build(name))))
        found[f"{name}/output"] = evaluate(name, np.float64)
    np.savez_compressed(FOLDER / "networks.npz", **found)


if __name__ == "__main__":
    main()
