"""Operator and networks against the numbers in `golden/`, made by `tests.golden.make`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converse_jax import converse2d
from tests.golden import make
from tests.ops.cases import Case


def relative(a: Any, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))


@pytest.mark.parametrize("case", make.operator_cases(), ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operator(case: Case, dtype: type, request: pytest.FixtureRequest) -> None:
    if dtype is np.float64:
        request.getfixturevalue("x64")
    with np.load(make.FOLDER / "operator.npz") as file:
        expected = file[str(case)]
    arrays = [array.astype(dtype) for array in case.arrays()]
    for method in case.methods:
        y = converse2d(*arrays, **case.options, method=method)
        assert relative(y, expected) < (1e-10 if dtype is np.float64 else 2e-6), method


@pytest.mark.parametrize("name", make.NETWORKS)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_network(name: str, dtype: type, request: pytest.FixtureRequest) -> None:
    if dtype is np.float64:
        request.getfixturevalue("x64")
    with np.load(make.FOLDER / "networks.npz") as file:
        names, expected = file[f"{name}/names"], file[f"{name}/output"]
    assert sorted(make.parameters(make.build(name))) == names.tolist()  # as in files of weights
    result = make.evaluate(name, dtype)
    assert relative(result, expected) < (1e-10 if dtype is np.float64 else 1e-5)
