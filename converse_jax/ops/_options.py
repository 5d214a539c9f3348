"""What a call of the operator is made with, besides its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

InitialEstimate = Literal["nearest", "zero"]
Method = Literal["auto", "fft", "dft", "direct"]
PaddingMode = Literal["circular", "replicate", "reflect", "constant"]


@dataclass(frozen=True)
class Options:
    """The static options of the operator; those of `converse2d` where they bear its names.

    Attributes:
      scale: the stride s.
      padding: pixels added to each side of a map.
      padding_mode: how it is continued.
      x0: the initial estimate.
      plain: leave out every hint to a compiler and every rule of our own (`_memory`, `_adjoint`,
        `_partition`): what remains are plain array operations.
    """

    scale: int = 1
    padding: int = 0
    padding_mode: str = "circular"
    x0: str = "nearest"
    plain: bool = False

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size of a padded map."""
        return height + 2 * self.padding, width + 2 * self.padding
