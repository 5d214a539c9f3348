"""Networks as files for other runtimes: ONNX, StableHLO, and packages for darktable."""

from converse_jax.export._darktable import export_dtmodel
from converse_jax.export._errors import ExportError
from converse_jax.export._onnx import Layout, export_onnx
from converse_jax.export._stablehlo import export_stablehlo

__all__ = ["ExportError", "Layout", "export_dtmodel", "export_onnx", "export_stablehlo"]
