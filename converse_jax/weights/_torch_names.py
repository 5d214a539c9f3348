"""The authors' PyTorch state dicts: which network each belongs to, and where its arrays go."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

_BLOCK = {
    "conv1.0": "norm1",
    "conv1.1": "expand1",
    "conv1.3": "spatial",
    "conv1.5": "project1",
    "conv2.0": "norm2",
    "conv2.1": "expand2",
    "conv2.3": "project2",
}
_MODULES = {
    "ConverseDnCNN": {"m_head.0": "head", "m_body.": "body.", "m_tail.0": "tail"},
    "ConverseSRResNet": {
        "conv_first": "head",
        "conv_body.": "body.",
        "upconv1": "up_blocks.0",
        "upconv2": "up_blocks.1",
        "up1": "upsamplers.0",
        "up2": "upsamplers.1",
        "conv_hres": "high_block",
        "conv_last": "tail",
    },
    "ConverseNet": {"conv1": "head", "p.m_body.": "body.", "conv2": "tail"},
    "ConverseUSRNet": {
        "conv1": "head",
        "kernelnet.": "kernel_net.",
        "convs.": "kernel_maps.",
        "d.alpha": "lam_logit",
        "p.m_body.": "body.",
        "conv2": "tail",
    },
}

AUTHORS = tuple(_MODULES)
"""The networks whose weights the authors released."""


def recognize(arrays: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any]] | None:
    """Class name and arguments of the network that PyTorch-named arrays belong to.

    The arrays do not show padding, the number of ConverseNet's iterations, or the step of a single
    up-sampling layer (x2 or x3): the defaults are taken, and x2.

    Returns:
        `(architecture, config)`, or None if the names match none of the four networks.
    """
    shape = {name: array.shape for name, array in arrays.items()}
    for architecture, head, block in (
        ("ConverseDnCNN", "m_head.0.weight", "m_body"),
        ("ConverseSRResNet", "conv_first.weight", "conv_body"),
        ("ConverseUSRNet", "conv1.weight", "p.m_body"),
    ):
        spatial = shape.get(f"{block}.0.conv1.3.weight", ())
        if len(shape.get(head, ())) != 4 or len(spatial) != 4:
            continue
        config: dict[str, Any] = {
            "channels": shape[head][1],
            "num_features": shape[head][0],
            "num_blocks": _count(arrays, block),
            "kernel_size": spatial[2] if spatial[2] == spatial[3] else spatial[2:],
        }
        if architecture == "ConverseSRResNet":
            config["scale"] = {0: 1, 1: 2}.get(_count_flat(arrays, "up"), 4)
        if architecture == "ConverseUSRNet":
            if not any(name.startswith("kernelnet.") for name in arrays):
                return "ConverseNet", config
            config["num_iterations"] = _count(arrays, "convs")
            config["blur_size"] = math.isqrt(shape.get("kernelnet.fc1.weight", (0, 0))[-1])
        return architecture, config
    return None


def _count(arrays: Mapping[str, np.ndarray], prefix: str) -> int:
    return len({m[1] for name in arrays if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))})


def _count_flat(arrays: Mapping[str, np.ndarray], prefix: str) -> int:
    return len({m[1] for name in arrays if (m := re.match(rf"{re.escape(prefix)}(\d+)\.", name))})


def translate(
    architecture: str, arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Rename and reshape PyTorch arrays to ours.

    Returns:
        Our arrays by dotted path, e.g. `body.0.spatial.kernel`, and the names unknown to this
        architecture.
    """
    known, unknown = {}, []
    for name, array in arrays.items():
        path = _path(_MODULES[architecture], name)
        if path is None:
            unknown.append(name)
        else:
            known[path] = _layout(path, array)
    return known, unknown


def _path(modules: Mapping[str, str], name: str) -> str | None:
    # The longest prefix wins.
    for theirs in sorted(modules, key=len, reverse=True):
        if name == theirs:
            return modules[theirs]
        if name.startswith(theirs if theirs.endswith(".") else theirs + "."):
            rest = name[len(theirs) :].removeprefix(".")
            return _leaf(modules[theirs].removesuffix(".") + "." + rest)
    return None


def _leaf(path: str) -> str | None:
    for theirs, ours in _BLOCK.items():
        path = path.replace(f".{theirs}.", f".{ours}.")
    path = re.sub(r"\.alpha([12])$", r".scale\1", path)
    module, _, leaf = path.rpartition(".")
    kind = module.rsplit(".", 2)
    if leaf == "weight":
        return f"{module}.{'scale' if kind[-1].startswith('norm') else 'kernel'}"
    if leaf == "bias" and (kind[-1] == "spatial" or "upsamplers" in kind):
        return f"{module}.lam_logit"
    return path


def _layout(path: str, array: np.ndarray) -> np.ndarray:
    """Channels first, as PyTorch has them, to channels last."""
    converse = "spatial." in path or "upsamplers." in path
    if path.endswith(".kernel") and converse and array.ndim == 4 and array.shape[0] == 1:
        array = array[0].transpose(1, 2, 0)  # [1, C, kh, kw] -> [kh, kw, C]
    elif path.endswith(".kernel") and array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0].T  # a 1x1 convolution [O, I, 1, 1] -> a matrix [I, O]
    elif path.endswith(".kernel") and array.ndim == 2:
        array = array.T
    elif array.ndim == 4 and array.shape == (1, array.shape[1], 1, 1):
        array = array.reshape(-1)  # per-channel values [1, C, 1, 1] -> [C]
    return np.ascontiguousarray(array)
