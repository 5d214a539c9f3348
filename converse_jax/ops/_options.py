"""The options of a call of the operator, and the type of its maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Array

InitialEstimate = Literal["nearest", "zero"]
PreparedEstimate = Literal["nearest", "zero", "array"]
Method = Literal["auto", "fft", "dft", "direct"]
PaddingMode = Literal["circular", "replicate", "reflect", "constant"]

Maps = Array | tuple[Array, Array]
"""Y, and X0 where it is an array: the operator is linear in both together."""


@dataclass(frozen=True)
class Options:
    """The static options of `converse2d`, by the same names."""

    scale: int = 1
    padding: int = 0
    padding_mode: str = "circular"
    x0: str = "nearest"

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size of a padded map."""
        return height + 2 * self.padding, width + 2 * self.padding
