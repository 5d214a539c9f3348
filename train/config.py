"""A training run as one typed value: `configs/*.py` make it, the command line changes it."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from converse_jax import imaging
from converse_jax.plugins import PluginError, load_plugin
from train.check_types import misfits
from train.errors import TrainError
from train.networks import NetworkConfig
from train.tasks import Paired, Task

# Network fields that are counts.
_COUNTS = {
    "num_features",
    "num_blocks",
    "num_layers",
    "kernel_size",
    "downscale",
    "blur_size",
    "num_iterations",
}


def min_validation_side(task: Task) -> int:
    """The smallest side of a held-out image: SSIM's 11x11 window fits inside the cropped border."""
    return max(16, 8 * task.scale)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


@dataclass(frozen=True)
class Data:
    """Images and patches.

    Attributes:
        train: sources of clean images, any number: folders; "tfds:NAME@SPLIT"; "embedded", a few
            photographs that need no download.
        inputs: for each source of clean images, the source of its degraded images, matched by path
            without extension; if empty, the task degrades the clean images.
        weights: share of the examples from each source; if empty, every image has the same share.
        validation: sources of held-out images, each measured as a set, NAME=SOURCE or just SOURCE;
            the first decides which weights are best. If empty, some training images are held out.
        validation_inputs: like `inputs`, for the validation sources.
        num_validation: largest number of images to hold out in each set.
        validation_size: side of the central square of each held-out image that is measured; limited
            by the smallest of them.
        patch_size: side of the clean patches.
        detail: number of random patches from which the most detailed is taken; smooth ones, such as
            sky, teach little.
        threads: threads that read and degrade images.
        workers: processes that read and degrade images instead, each with `threads` threads.
        cache_mb: memory for decoded images, in megabytes.
        tfds_dir: folder of prepared TFDS data sets; None is TFDS's own default.
    """

    train: tuple[str, ...] = ("embedded",)
    inputs: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    validation: tuple[str, ...] = ()
    validation_inputs: tuple[str, ...] = ()
    num_validation: int = 8
    validation_size: int = 256
    patch_size: int = 128
    detail: int = 1
    threads: int = 4
    workers: int = 0
    cache_mb: float = 4096
    tfds_dir: str | None = None

    def validation_sets(self) -> list[tuple[str, str]]:
        """Name and source of each set; among several, an unnamed one takes its folder's name."""
        pairs = []
        for value in self.validation:
            name, equals, source = value.partition("=")
            if not (equals and re.fullmatch(r"[\w.+-]+", name)) or Path(value).is_dir():
                name, source = "", value
                if len(self.validation) > 1:
                    name = Path(os.path.abspath(value.removeprefix("tfds:").split("@")[0])).name
            pairs.append((name, source))
        return pairs

    def problem(self) -> str | None:
        """What is wrong with the sources, if anything."""
        names = [name for name, _ in self.validation_sets()]
        if len(set(names)) < len(names):
            return f"data.validation: sets are called {_listed(names)}; name them NAME=SOURCE"
        if self.inputs and len(self.inputs) != len(self.train):
            return (
                f"data.inputs: got {len(self.inputs)} for the {len(self.train)} of data.train; "
                "expected one for each, in the same order"
            )
        expected = len(self.validation) if self.inputs else 0
        if len(self.validation_inputs) != expected:
            return (
                f"data.validation-inputs: got {len(self.validation_inputs)}; "
                f"expected {expected}: one "
                "for each of data.validation if there are data.inputs"
            )
        if self.weights and len(self.weights) != len(self.train):
            return (
                f"data.weights: got {len(self.weights)} for the {len(self.train)} of data.train; "
                "expected one for each"
            )
        if not all(0 < weight < float("inf") for weight in self.weights):
            return f"data.weights: got {_listed(self.weights)}; expected positive numbers"
        return None


@dataclass(frozen=True)
class Optimizer:
    """Adam, or AdamW with weight decay.

    Attributes:
        learning_rate: learning rate after the warm-up.
        schedule: course of the learning rate: "halving" every `halve_every` steps, "cosine" down to
            the lowest at the last step, or "constant".
        halve_every: steps between the halvings of the schedule "halving".
        min_learning_rate: lowest learning rate of the schedule.
        warmup: steps over which the learning rate rises linearly from 0.
        clip: largest global norm of the gradient; None does not clip.
        betas: decay rates of Adam's running means of the gradient and of its square.
        weight_decay: AdamW's decay of kernels and matrices, multiplied by the learning rate;
            biases, scales, norms and lambdas do not decay. 0 is Adam.
    """

    learning_rate: float = 1e-4
    schedule: Literal["halving", "cosine", "constant"] = "halving"
    halve_every: int = 100_000
    min_learning_rate: float = 5e-7
    warmup: int = 0
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Config:
    """One training run. Defaults are the paper's.

    Attributes:
        name: name of the run and of the model it makes; {scale}, or another field of the task in
            braces, stands for its value.
        model: the network and its size.
        task: the degradation that the network learns to undo.
        data: images and patches.
        optimizer: the optimizer and its schedule.
        steps: total optimizer steps, including those before a resume.
        batch_size: patches per step, over all devices.
        accumulation: parts of a batch that are computed one after another, to save memory.
        remat: recompute the inside of the blocks in the backward pass, to save memory.
        dtype: number type of the computation; parameters, spectra and the loss are always float32.
        loss: loss function: "l1", "charbonnier" (eps 1e-3) or "l2".
        ema: decay of the averaged weights, which are the ones measured and exported.
        seed: seed of the initial weights and of the data.
        log_every: steps between lines of metrics.jsonl and between TensorBoard events.
        eval_every: steps between measurements of the held-out images.
        save_every: steps between checkpoints.
        keep: how many of the latest checkpoints to keep, besides the best.
        max_skipped: consecutive steps with a non-finite loss or gradient after which the run stops.
    """

    name: str
    model: NetworkConfig
    task: Task
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    steps: int = 800_000
    batch_size: int = 16
    accumulation: int = 1
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    loss: Literal["l1", "charbonnier", "l2"] = "l1"
    ema: float = 0.999
    seed: int = 0
    log_every: int = 100
    eval_every: int = 5000
    save_every: int = 5000
    keep: int = 3
    max_skipped: int = 20

    def __post_init__(self) -> None:
        """Paired inputs are not degraded: the task only says which kind they are."""
        if self.data.inputs and not isinstance(self.task, Paired):
            object.__setattr__(self, "task", Paired(self.task.name, self.task.scale))

    def to_dict(self) -> dict[str, Any]:
        """JSON-serializable values; `model` and `task` name their class as `kind`."""
        values = asdict(self)
        for part in ("model", "task"):
            values[part] = {"kind": type(getattr(self, part)).__name__, **values[part]}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    def named(self) -> Config:
        """The same, with the task's values filled into its name: x2 must not be called x4."""
        name = self.name
        for part in {"scale", *(f.name for f in fields(self.task))}:  # type: ignore[arg-type]
            value = getattr(self.task, part)
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            name = name.replace(f"{{{part}}}", shown)
        return replace(self, name=name)

    def check(self) -> None:
        """Raise a TrainError that names every field with an invalid value."""
        # Only values of the right type can be compared with others.
        problems = misfits(self) or [problem for problem in self._problems() if problem]
        if problems:
            raise TrainError("; ".join(problems))

    def _problems(self) -> list[str | None]:
        data, optimizer, task = self.data, self.optimizer, self.task
        at_least = {
            "steps": (self.steps, 1),
            "batch-size": (self.batch_size, 1),
            "accumulation": (self.accumulation, 1),
            "log-every": (self.log_every, 1),
            "eval-every": (self.eval_every, 1),
            "save-every": (self.save_every, 1),
            "keep": (self.keep, 1),
            "max-skipped": (self.max_skipped, 1),
            "seed": (self.seed, 0),
            "data.num-validation": (data.num_validation, 1),
            "data.validation-size": (data.validation_size, min_validation_side(task)),
            "data.patch-size": (data.patch_size, 8),
            "data.detail": (data.detail, 1),
            "data.threads": (data.threads, 0),
            "data.workers": (data.workers, 0),
            "data.cache-mb": (data.cache_mb, 0),
            "optimizer.halve-every": (optimizer.halve_every, 1),
            "optimizer.warmup": (optimizer.warmup, 0),
        }
        # A user's network may have none of these.
        for name in [f.name for f in fields(self.model) if f.name in _COUNTS]:
            if isinstance(value := getattr(self.model, name), int):
                at_least[f"model.{name.replace('_', '-')}"] = (value, 1)
        problems: list[str | None] = [
            f"{name}: got {value}; expected at least {least}"
            for name, (value, least) in at_least.items()
            if not value >= least
        ]
        if not data.train:
            problems.append('data.train: got nothing; expected folders, "tfds:NAME" or "embedded"')
        problems.append(data.problem())
        if self.model.channels not in (1, 3):
            problems.append(
                f"model.channels: got {self.model.channels}; expected 1 (gray) or 3 (RGB)"
            )
        if not 0 <= self.ema < 1:
            problems.append(f"ema: got {self.ema}; expected a decay in [0, 1), 0 for none")
        if not 0 < optimizer.learning_rate < float("inf"):
            problems.append(
                f"optimizer.learning-rate: got {optimizer.learning_rate}; "
                "expected a positive number"
            )
        if not 0 <= optimizer.min_learning_rate <= optimizer.learning_rate:
            problems.append(
                f"optimizer.min-learning-rate: got {optimizer.min_learning_rate}; expected 0 to "
                f"optimizer.learning-rate, {optimizer.learning_rate}"
            )
        if optimizer.warmup >= self.steps and optimizer.warmup > 0:
            problems.append(
                f"optimizer.warmup: got {optimizer.warmup}; "
                f"expected less than the {self.steps} steps"
            )
        if optimizer.clip is not None and not optimizer.clip > 0:
            problems.append(
                f"optimizer.clip: got {optimizer.clip}; expected a positive norm, or None"
            )
        if not all(0 <= beta < 1 for beta in optimizer.betas):
            problems.append(
                f"optimizer.betas: got {optimizer.betas}; "
                "expected two decays in [0, 1), e.g. 0.9 0.999"
            )
        if not 0 <= optimizer.weight_decay < float("inf"):
            problems.append(
                f"optimizer.weight-decay: got {optimizer.weight_decay}; expected 0 for none, or a "
                "positive number, e.g. 1e-4"
            )
        learns, kinds = self.model.registered().tasks, get_args(imaging.Task)
        lacking = set(self.model.inputs) - {"input", *task.gives}
        if (kind := getattr(task, "name", None)) not in kinds:
            problems.append(
                f"task: {type(task).__name__}.name is {kind!r}; give {' or '.join(kinds)}, the "
                "kind of restoration that it is"
            )
        elif kind not in learns:
            problems.append(
                f"task: {type(self.model).__name__} learns {' or '.join(learns)}, and "
                f"{type(task).__name__} is {kind}"
            )
        elif lacking and not isinstance(task, Paired):
            problems.append(
                f"task: {type(self.model).__name__} is called with {', '.join(sorted(lacking))}, "
                f"which {type(task).__name__} does not give"
            )
        if isinstance(task, Paired):
            problems.append(self._paired_problem())
        problems.append(task.problem())
        sizes = getattr(self.model, "blur_size", None), getattr(task, "kernel_size", None)
        if None not in sizes and sizes[0] != sizes[1]:
            problems.append(
                f"task.kernel-size: got {sizes[1]}, but the network takes kernels of {sizes[0]} "
                "(--model.blur-size); give one number"
            )
        if task.scale in (2, 3, 4) and data.patch_size % task.scale:
            problems.append(
                f"data.patch-size: got {data.patch_size}, not a multiple of scale {task.scale}; "
                f"expected {data.patch_size - data.patch_size % task.scale}"
            )
        if self.accumulation >= 1 and self.batch_size % self.accumulation:
            problems.append(
                f"accumulation: got {self.accumulation}, which does not divide batch-size "
                f"{self.batch_size}"
            )
        return problems

    def _paired_problem(self) -> str | None:
        network = type(self.model).__name__
        if not self.data.inputs:
            return "data.inputs: got nothing; expected the source of the inputs of the Paired task"
        further = [name for name in self.model.inputs if name != "input"]
        if further:
            return (
                f"data.inputs: pairs hold no {' and '.join(further)}, which "
                f"{network} needs; use a network that does not, or leave out data.inputs"
            )
        return None

    def check_devices(self, devices: int) -> None:
        """Raise a TrainError if the batch cannot be shared by so many devices."""
        parts = devices * self.accumulation
        if self.batch_size % parts:
            times = f" x accumulation {self.accumulation}" if self.accumulation > 1 else ""
            raise TrainError(
                f"batch-size: {self.batch_size} patches cannot be shared equally by {devices} "
                f"devices{times}; give a multiple of {parts}, e.g. "
                f"{max(parts, self.batch_size - self.batch_size % parts)}"
            )


@dataclass(frozen=True)
class Args:
    """The command line: a configuration and what to do with its folder.

    Attributes:
        config: the run.
        run: folder of the run; runs/NAME by default.
        resume: continue from the latest intact checkpoint in the folder.
        overwrite: delete an earlier run in the folder and start over.
        init: weights a new run starts from: a bundled model's name, a .safetensors file or one of
            the authors' .pth files. A resumed run continues from its checkpoint instead.
        init_partial: use the arrays of --init that fit this network, and random ones for the rest.
        distributed: train as one of several processes, identified by JAX's or the cluster's
            environment variables; automatic if JAX_COORDINATOR_ADDRESS is set.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    run: Path | None = None
    resume: bool = False
    overwrite: bool = False
    init: str | None = None
    init_partial: bool = False
    distributed: bool = False


def parse_args(config: Config, arguments: Sequence[str], **options: Any) -> Args:
    """Apply command-line arguments to a configuration; exit the process if they are wrong.

    Args:
        config: the defaults; the classes of its network and task determine the options.
        arguments: the command line.
        options: passed to `tyro.cli`.

    Raises:
        TrainError: options of the degradation together with paired inputs.
    """
    # tyro parses by declared types, which are known only now.
    parts = [("model", type(config.model)), ("task", type(config.task))]
    typed: Any = _subclass(Config, parts)
    whole: Any = _subclass(Args, [("config", Annotated[typed, tyro.conf.arg(name="")])])
    command = tyro.cli(
        tyro.conf.configure(tyro.conf.FlagCreatePairsOff)(whole),
        args=list(arguments),
        default=whole(config=typed(**_values(config))),
        **options,
    )
    if command.config.data.inputs:
        _check_no_degradation(arguments)
    return Args(**_values(command) | {"config": Config(**_values(command.config))})


def _check_no_degradation(arguments: Sequence[str]) -> None:
    # A configuration made for a degradation may be used with pairs; options for both cannot be
    # meant.
    given = (argument.partition("=")[0].replace("_", "-") for argument in arguments)
    for name in given:
        if name.startswith("--task.") and name not in ("--task.name", "--task.scale"):
            raise TrainError(
                f"{name}: got a degradation, but the pairs of data.inputs are used as they are; "
                "leave it out, or leave out --data.inputs"
            )


def _subclass(base: type, narrowed: Sequence[tuple[str, Any]]) -> Any:
    namespace = {"__doc__": base.__doc__}
    return make_dataclass(
        base.__name__, narrowed, bases=(base,), namespace=namespace, frozen=True, kw_only=True
    )


def _values(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def read_config(path: str) -> Config:
    """The value `config` of a Python file.

    Raises:
        TrainError: no such file, no `config` in it, or values of wrong types.
    """
    file = Path(path)
    if not file.is_file():
        known = sorted(str(p) for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        known = known or sorted(str(p) for p in Path("configs").glob("*.py"))
        close = difflib.get_close_matches(path, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"
        raise TrainError(f"{path}: there is no such configuration; {hint}")
    if file.suffix != ".py":
        raise TrainError(f"{path}: is not a Python file; give one that ends in .py")
    try:
        config = getattr(load_plugin(file), "config", None)
    except PluginError as error:
        raise TrainError(str(error)) from None
    if not isinstance(config, Config):
        raise TrainError(
            f"{path}: defines no `config` of type train.config.Config (it is {config!r}); "
            "see configs/quickstart.py"
        )
    if problems := misfits(config):
        raise TrainError(f"{path}: {'; '.join(problems)}")
    return config


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields in which two configurations differ, as `name: old -> new`."""
    changes = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            changes += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            changes.append(f"{prefix}{key}: {a} -> {b}")
    return changes
