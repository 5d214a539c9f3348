"""Whether an exported file gives what the model gives."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from converse_jax.export._errors import ExportError

TOLERANCE = 1e-5
"""The largest difference from the model, of images in [0, 1]; relative where results are larger."""

SIZES = ((37, 26),)
"""A prime and an even side; small, as the model is compiled for each."""


def check_onnx(
    content: bytes,
    model: nnx.Module,
    takes: Any,
    *,
    layout: str = "nhwc",
    sigma: float | None = None,
    scale: int = 1,
    images_only: bool = False,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> float | None:
    """The largest difference of an ONNX file from the model, over batches of 2 of these sizes.

    None if ONNX Runtime is not installed.

    Raises:
        ExportError: the difference is larger than 1e-5.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(content, options, providers=providers)

    @nnx.jit
    def expected(model: Any, x: Any, arguments: dict[str, Any]) -> jax.Array:
        if "kernel" in arguments:
            options = {} if scale == 1 else {"scale": scale}
            return model(x, arguments["kernel"], **options)
        return model(x, *arguments.values())

    random = np.random.default_rng(0)
    error = 0.0
    for height, width in sizes:
        x = random.uniform(size=(2, height, width, takes.channels)).astype(np.float32)
        feeds = {"input": x}
        arguments: dict[str, np.ndarray] = {}
        if "kernel" in takes.inputs:
            side = model.blur_size  # type: ignore[attr-defined]
            taps = random.uniform(size=(2, side, side)).astype(np.float32)
            arguments["kernel"] = feeds["kernel"] = taps / taps.sum((1, 2), keepdims=True)
        if "sigma" in takes.inputs:
            shape = (2, height, width, 1) if images_only else (2, 1, 1, 1)
            levels = random.uniform(0, 50 / 255, shape).astype(np.float32)
            if sigma is None:
                feeds["sigma"] = levels
            else:
                levels = np.full(shape, sigma, np.float32)
            arguments["sigma"] = levels[..., 0] if images_only else levels[:, 0, 0, 0]
        if layout == "nchw":
            feeds = {
                key: value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
                for key, value in feeds.items()
            }
        (result,) = session.run(["output"], feeds)
        if layout == "nchw":
            result = result.transpose(0, 2, 3, 1)
        with jax.default_matmul_precision("highest"):
            wanted = np.asarray(expected(model, x, arguments))
        error = max(error, float(np.abs(result - wanted).max() / max(1, np.abs(wanted).max())))
    if not error <= TOLERANCE:
        raise ExportError(
            f"model: the result of its ONNX file differs from its own by {error:.1e}; "
            f"expected at most {TOLERANCE:.0e}: was it changed, or made to compute in less than "
            "float32?"
        )
    return error
