"""The rows of the table, as data. Nothing here needs JAX or PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

_PAPER_BLOCKS = {"ConverseDnCNN": 20, "ConverseSRResNet": 16, "ConverseUSRNet": 7}

Pass = Literal["forward", "forward prepared", "gradient"]


@dataclass(frozen=True)
class Operator:
    """One call of the operator on a map `[batch, size, size, channels]`, before it is enlarged."""

    what: Pass
    batch: int
    channels: int
    size: int
    kernel_size: int
    padding: int
    scale: int = 1
    padding_mode: Literal["circular", "replicate"] = "circular"

    @property
    def padded(self) -> int:
        return self.size + 2 * self.padding

    @property
    def border(self) -> dict[str, Any]:
        """How the map is padded, as arguments of the operator on either side."""
        return {"padding": self.padding, "padding_mode": self.padding_mode}

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of map, kernel, lambda logit and, for the gradient, cotangent, as ours takes them."""
        n, c, k, side = self.batch, self.channels, self.kernel_size, self.scale * self.size
        inputs: list[tuple[int, ...]] = [(n, self.size, self.size, c), (k, k, c), (c,)]
        return [*inputs, (n, side, side, c)] if self.what == "gradient" else inputs

    @property
    def methods(self) -> list[str]:
        """The methods of ours that are valid here, other than "auto"."""
        return ["fft", "dft"] + ["direct"] * (self.kernel_size <= self.scale)

    @property
    def name(self) -> str:
        scale = f" x{self.scale}" * (self.scale > 1)
        mode = f" {self.padding_mode}" * (self.padding_mode != "circular")
        shape = f"{self.batch}x{self.channels}x{self.size}x{self.size}"
        return f"operator{scale} {self.what}, {shape} k{self.kernel_size} p{self.padding}{mode}"


@dataclass(frozen=True)
class Network:
    """One of the paper's networks, 64 features wide: inference of an image, or a training step.

    The step is the L1 loss of a batch of gray patches, its gradient, and Adam.
    """

    what: Literal["inference", "training step"]
    network: Literal["ConverseDnCNN", "ConverseSRResNet", "ConverseUSRNet"]
    size: int
    blocks: int
    iterations: int = 1
    batch: int = 1

    @property
    def options(self) -> dict[str, int]:
        """What the network is made with, on either side."""
        usrnet = {"num_iterations": self.iterations} if self.network == "ConverseUSRNet" else {}
        return {"num_blocks": self.blocks, **usrnet}

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the images, and for Converse-USRNet of the blur kernel, as ours takes them."""
        images = (self.batch, self.size, self.size, 1 if self.network == "ConverseDnCNN" else 3)
        return [images, (1, 7, 7)] if self.network == "ConverseUSRNet" else [images]

    @property
    def name(self) -> str:
        network = self.network.replace("Converse", "Converse-").replace("ResNet", "ResNet x4")
        batch = f"{self.batch}x" * (self.what == "training step")
        depth = f", {self.blocks} block{'s' * (self.blocks > 1)}"
        depth *= self.blocks != _PAPER_BLOCKS[self.network]
        return f"{network} {self.what}, {batch}{self.size}x{self.size}{depth}"


Row = Operator | Network


def suite(*, quick: bool) -> list[Row]:
    """All rows; `quick` has the same ones, smaller."""
    c, side, small, half = (16, 64, 32, 16) if quick else (128, 256, 64, 64)
    batch, low = (4, 32) if quick else (8, 128)
    passes: tuple[Pass, ...] = ("forward", "forward prepared", "gradient")
    rows: list[Row] = [Operator(what, 1, c, side, 7, 6) for what in passes]
    rows += [Operator(what, batch, c, small, 5, 4) for what in passes]
    # A kernel no larger than the stride has nothing to prepare: no transform is needed.
    for what in ("forward", "gradient"):
        rows.append(Operator(what, 1, half, low, 2, 2, scale=2, padding_mode="replicate"))
    for scale in (2, 3):
        rows += [Operator(what, 1, half, low, 5, 4, scale=scale) for what in passes]
    return [
        *rows,
        Network("inference", "ConverseDnCNN", *((64, 2) if quick else (256, 20))),
        Network("inference", "ConverseSRResNet", *((16, 1) if quick else (64, 16))),
        Network("inference", "ConverseUSRNet", *((32, 1, 2) if quick else (128, 7, 5))),
        Network("training step", "ConverseDnCNN", *((32, 1, 1, 4) if quick else (64, 20, 1, 8))),
    ]
