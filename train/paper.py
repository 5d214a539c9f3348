"""Every row of the paper's seven tables: its network, its task, and what the paper measured.

Rows of one configuration, like "5x5", "Circular" and "Converse-DnCNN", are one training run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from train.config import Config, Data, Optimizer
from train.networks import (
    ConvDnCNNConfig,
    ConverseDnCNNConfig,
    ConverseNetConfig,
    ConverseSRResNetConfig,
    ConverseUSRNetConfig,
    ConvNetConfig,
    ConvSRResNetConfig,
    ConvTransposeDnCNNConfig,
    ConvTransposeSRResNetConfig,
    ConvUSRNetConfig,
    DnCNNConfig,
    NetworkConfig,
    SRResNetConfig,
)
from train.tasks import Deblur, Denoise, SuperResolve, Task

Authors = Literal["ConverseDnCNN", "ConverseSRResNet", "ConverseUSRNet", "ConverseNet"]

KERNELS = 5
"""Blur kernels of table 7."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        table: 1 to 7.
        part: what is varied, where a table has two halves.
        name: as the paper calls it.
        model: the network.
        task: what it is trained for.
        paper: PSNR in dB by test set; of table 7 by "SET, kernel N".
        authors: the network whose released weights belong to this row.
        note: where the paper leaves something open, or the released weights differ.
    """

    table: int
    part: str
    name: str
    model: NetworkConfig
    task: Task
    paper: dict[str, float]
    authors: Authors | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """Unique within its table."""
        return f"{self.part}: {self.name}" if self.part else self.name


TITLES = {
    1: "Converse-DnCNN: initialization and size of the kernels",
    2: "Converse-DnCNN: padding",
    3: "Initial estimate X0",
    4: "Gaussian denoising, sigma 25",
    5: "Super-resolution x4, luma",
    6: "Up-samplers in SRResNet, x4, luma",
    7: "Deblurring, sigma 2.55",
}

_DENOISE, _SR, _DEBLUR = Denoise(sigma=25), SuperResolve(scale=4), Deblur(sigma=2.55)
_CONVERSE = ConverseDnCNNConfig()
_RELEASED_7X7 = "the released weights have 7x7 kernels"


def _rows(
    table: int,
    part: str,
    task: Task,
    sets: Sequence[str],
    listed: Iterable[tuple[str, NetworkConfig, Sequence[float], dict[str, Any]]],
) -> list[Row]:
    return [
        Row(table, part, name, model, task, dict(zip(sets, paper, strict=True)), **more)
        for name, model, paper, more in listed
    ]


_SET12_BSD68 = ("Set12", "BSD68")
_SR_SETS = ("Set5", "Set14", "BSD100", "Urban100")
_DEBLUR_SETS = [
    f"{name}, kernel {k + 1}" for name in ("BSD100", "Urban100") for k in range(KERNELS)
]
_NONE: dict[str, Any] = {}

ROWS: tuple[Row, ...] = (
    *_rows(
        1,
        "initialization",
        _DENOISE,
        _SET12_BSD68,
        [
            (
                "Uniform",
                replace(_CONVERSE, kernel_init="uniform"),
                (30.31, 28.92),
                {"note": "on [0, 1), which the paper does not say"},
            ),
            ("Gaussian", replace(_CONVERSE, kernel_init="normal"), (30.60, 29.30), _NONE),
            ("Gauss.+Softmax", _CONVERSE, (30.70, 29.36), _NONE),
        ],
    ),
    *_rows(
        1,
        "kernel size",
        _DENOISE,
        _SET12_BSD68,
        [
            ("3x3", replace(_CONVERSE, kernel_size=3), (30.58, 29.29), _NONE),
            ("5x5", _CONVERSE, (30.70, 29.36), _NONE),
            (
                "7x7",
                replace(_CONVERSE, kernel_size=7),
                (30.71, 29.36),
                {"authors": "ConverseDnCNN"},
            ),
        ],
    ),
    *_rows(
        2,
        "padding mode",
        _DENOISE,
        _SET12_BSD68,
        [
            ("Zero", replace(_CONVERSE, padding_mode="constant"), (30.63, 29.33), _NONE),
            ("Reflect", replace(_CONVERSE, padding_mode="reflect"), (30.65, 29.34), _NONE),
            ("Replicate", replace(_CONVERSE, padding_mode="replicate"), (30.66, 29.35), _NONE),
            ("Circular", _CONVERSE, (30.70, 29.36), _NONE),
        ],
    ),
    *_rows(
        2,
        "padding size",
        _DENOISE,
        _SET12_BSD68,
        [
            ("0x0", replace(_CONVERSE, padding=0), (30.67, 29.34), _NONE),
            ("2x2", replace(_CONVERSE, padding=2), (30.68, 29.35), _NONE),
            ("4x4", _CONVERSE, (30.70, 29.36), _NONE),
            ("5x5", replace(_CONVERSE, padding=5), (30.67, 29.34), _NONE),
        ],
    ),
    *_rows(
        3,
        "denoising",
        _DENOISE,
        _SET12_BSD68,
        [
            ("0", replace(_CONVERSE, x0="zero"), (30.66, 29.34), _NONE),
            ("Y", _CONVERSE, (30.70, 29.36), _NONE),
        ],
    ),
    *_rows(
        3,
        "super-resolution",
        _SR,
        ("Set5", "Urban100"),
        [
            (
                "0",
                ConverseSRResNetConfig(x0="zero"),
                (32.22, 26.24),
                {"note": "of the up-sampling layers; the blocks keep X0 = Y"},
            ),
            (
                "Interp(Y, s)",
                ConverseSRResNetConfig(),
                (32.25, 26.26),
                {"authors": "ConverseSRResNet"},
            ),
        ],
    ),
    *_rows(
        4,
        "",
        _DENOISE,
        _SET12_BSD68,
        [
            ("DnCNN", DnCNNConfig(), (30.43, 29.23), _NONE),
            ("Conv-DnCNN", ConvDnCNNConfig(), (30.64, 29.30), _NONE),
            ("ConvT-DnCNN", ConvTransposeDnCNNConfig(), (30.61, 29.29), _NONE),
            (
                "Converse-DnCNN",
                _CONVERSE,
                (30.70, 29.36),
                {"authors": "ConverseDnCNN", "note": _RELEASED_7X7},
            ),
        ],
    ),
    *_rows(
        5,
        "",
        _SR,
        _SR_SETS,
        [
            (
                "SRResNet",
                SRResNetConfig(),
                (32.21, 28.60, 27.59, 26.09),
                {"note": "here the network of table 6's pixel shuffle, for which it has more"},
            ),
            ("Conv-SRResNet", ConvSRResNetConfig(), (32.23, 28.73, 27.62, 26.24), _NONE),
            (
                "ConvT-SRResNet",
                ConvTransposeSRResNetConfig(),
                (32.09, 28.61, 27.56, 25.89),
                {"note": "5x5 blocks: the paper does not say"},
            ),
            (
                "Converse-SRResNet",
                ConverseSRResNetConfig(),
                (32.25, 28.72, 27.62, 26.24),
                {"authors": "ConverseSRResNet"},
            ),
        ],
    ),
    *_rows(
        6,
        "",
        _SR,
        _SR_SETS,
        [
            ("Pixelshuffle", SRResNetConfig(), (32.26, 28.74, 27.65, 26.33), _NONE),
            (
                "Nearest Interpolation",
                SRResNetConfig(upsampler="nearest"),
                (32.26, 28.77, 27.65, 26.36),
                _NONE,
            ),
            (
                "ConvT",
                SRResNetConfig(upsampler="conv_transpose"),
                (32.24, 28.74, 27.64, 26.33),
                _NONE,
            ),
            (
                "Converse2D",
                SRResNetConfig(upsampler="converse"),
                (32.26, 28.78, 27.66, 26.36),
                _NONE,
            ),
        ],
    ),
    *_rows(
        7,
        "",
        _DEBLUR,
        _DEBLUR_SETS,
        [
            (
                "ConvNet",
                ConvNetConfig(),
                (25.26, 22.96, 27.16, 26.91, 23.98, 22.27, 20.59, 23.43, 23.92, 21.12),
                _NONE,
            ),
            (
                "ConverseNet",
                ConverseNetConfig(),
                (27.69, 24.43, 31.28, 27.64, 27.31, 24.24, 21.52, 23.16, 24.56, 22.56),
                {"authors": "ConverseNet"},
            ),
            (
                "Conv-USRNet",
                ConvUSRNetConfig(),
                (32.18, 31.03, 37.80, 31.82, 34.33, 31.48, 30.19, 36.80, 31.23, 33.63),
                {"note": "our reading of it, see `ConvUSRNet`"},
            ),
            (
                "Converse-USRNet",
                ConverseUSRNetConfig(),
                (32.46, 31.20, 38.40, 32.21, 34.62, 31.96, 30.59, 37.48, 31.95, 33.99),
                {"authors": "ConverseUSRNet"},
            ),
        ],
    ),
)


@dataclass(frozen=True)
class Budget:
    """How large the networks are and how long they train.

    Without any of the first four it is the paper's: full size, 800,000 steps.

    Attributes:
        steps: optimizer steps, the same for every row.
        minutes: minutes of training, the same for every row, in place of steps.
        width: features of every network; None is its own.
        blocks: blocks of every network; DnCNN has 17 layers for 20 of them.
        batch_size: patches per step, if there is a limit.
        patch_size: side of the patches, if there is a limit; super-resolution takes 1.5 times that.
        learning_rate: at the start of a cosine, if there is a limit.
    """

    steps: int | None = None
    minutes: float | None = None
    width: int | None = None
    blocks: int | None = None
    batch_size: int = 8
    patch_size: int = 64
    learning_rate: float = 1e-3

    @property
    def full(self) -> bool:
        """Whether it is the paper's."""
        return not any((self.steps, self.minutes, self.width, self.blocks))

    @property
    def label(self) -> str:
        """What it is, in few words."""
        if self.full:
            return "full size"
        size = [f"width {self.width}"] if self.width else []
        size += [f"{self.blocks} blocks"] if self.blocks else []
        length = f"{self.steps} steps" if self.steps else f"{self.minutes:g} min"
        if not self.steps and not self.minutes:
            length = "800000 steps"
        return ", ".join([*(size or ["full size"]), length])


def sized(model: NetworkConfig, budget: Budget) -> NetworkConfig:
    """The network with the width and depth of a budget."""
    names = {f.name for f in fields(model)}
    changes: dict[str, Any] = {}
    if budget.width is not None:
        changes["num_features"] = budget.width
    if budget.blocks is not None and "num_blocks" in names:
        changes["num_blocks"] = budget.blocks
    if budget.blocks is not None and "num_layers" in names:
        changes["num_layers"] = max(3, round(17 * budget.blocks / 20))
    return replace(model, **changes)


def make_config(
    row: Row, budget: Budget, *, steps: int | None, seed: int, train: tuple[str, ...]
) -> Config:
    """The training run of a row.

    Args:
        row: the row.
        budget: size and length.
        steps: of a budget in minutes, how many these are; else those of the budget.
        seed: of weights and data.
        train: sources of clean images.
    """
    model = sized(row.model, budget)
    sr = isinstance(row.task, SuperResolve)
    name = f"{type(model).architecture}-seed{seed}"
    if budget.steps is None and budget.minutes is None:
        data = Data(train=train, patch_size=192 if sr else 128)
        return Config(name=name, model=model, task=row.task, data=data, seed=seed)
    steps = steps or budget.steps
    assert steps is not None
    data = Data(
        train=train,
        patch_size=budget.patch_size * 3 // 2 if sr else budget.patch_size,
        num_validation=4,
        validation_size=128,
    )
    optimizer = Optimizer(
        learning_rate=budget.learning_rate,
        schedule="cosine",
        min_learning_rate=budget.learning_rate / 100,
        warmup=min(100, steps // 10),
    )
    return Config(
        name=name,
        model=model,
        task=row.task,
        data=data,
        optimizer=optimizer,
        steps=steps,
        batch_size=budget.batch_size,
        seed=seed,
        log_every=max(1, steps // 20),
        eval_every=steps,
        save_every=max(1, min(500, steps // 10)),
        keep=1,
    )
