"""Networks as files for other runtimes: ONNX, StableHLO, and packages for darktable."""

from converse_jax.export._errors import ExportError
from converse_jax.export._onnx import Layout, export_onnx

__all__ = ["ExportError", "Layout", "export_onnx"]
