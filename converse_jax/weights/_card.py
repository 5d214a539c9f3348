"""The card of a model: what it is for, and where its weights come from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from converse_jax.models._registry import TASKS
from converse_jax.weights._errors import shown

FORMAT = "converse-jax/1"

MAX_CARD = 2**20
"""Characters of a card; those that are written have about a thousand."""

_MAX_NESTING = 32
_MAX_SCALE, _MAX_OVERLAP, _MAX_LEVEL = 16, 4096, 1000.0
_MAX_TEXT, _MAX_NAME = 10_000, 200
_MAX_ARGUMENT = 65536
# A network is built before its arrays are looked at: what a small file says must not build for
# ever, or need all memory when it is called.
_MAX_ARGUMENTS = {"num_blocks": 128, "num_iterations": 128, "padding": 256}
# How a network is run is the user's choice, and no text that a file could hold.
_NOT_IN_FILES = ("block", "dtype", "param_dtype", "precision", "rngs")


@dataclass(frozen=True)
class ModelCard:
    """What a user should know before using a set of weights.

    Attributes:
        name: short name, e.g. "converse-dncnn".
        architecture: name of the network in `converse_jax.models.registered()`.
        config: arguments that build it.
        task: "denoise", "sr" or "deblur".
        channels: 1 for gray images, 3 for color.
        sigma: noise level it was trained for, on the scale of 0 to 255; None if unknown or several.
        sigma_range: the smallest and the largest level it was trained for, if there were several.
        scale: enlargement; 1 for denoising and deblurring.
        needs_kernel: whether the blur kernel is an input.
        needs_sigma: whether the noise level is an input.
        estimate_share: the share of an *estimated* noise level that it is told. Fine texture looks
            like noise to an estimator: told less, a network leaves it alone.
        overlap: pixels that neighboring tiles of an image must share so that the result agrees with
            that of the whole image to 60 dB (`tiles.measure_overlap`); None if not measured.
        source: who made the weights, and from what.
        license: terms of the weights.
        sha256: hash of the file that the weights were first read from.
        defined_in: file or module of the network's class, if not in this package; it is never run.
        notes: further remarks, e.g. measured PSNR.
    """

    name: str
    architecture: str
    config: dict[str, Any]
    task: str
    channels: int
    sigma: float | None = None
    sigma_range: tuple[float, float] | None = None
    scale: int = 1
    needs_kernel: bool = False
    needs_sigma: bool = False
    estimate_share: float = 1.0
    overlap: int | None = None
    source: str = ""
    license: str = "unknown"
    sha256: str = ""
    defined_in: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def purpose(self) -> str:
        """What the network is for, in a few words."""
        kind = "color" if self.channels == 3 else "gray"
        if self.task == "sr":
            return f"x{self.scale} super-resolution, {kind}"
        kernel = ", kernel given" if self.needs_kernel else ""
        untold = ", sigma unknown" if self.task == "denoise" and not self.needs_sigma else ""
        sigma = untold if self.sigma is None else f", sigma {self.sigma:g}"
        if self.sigma_range is not None:
            sigma = ", sigma {:g} to {:g}".format(*self.sigma_range)
        return f"{self.task}, {kind}{sigma}{kernel}"

    def to_metadata(self) -> dict[str, str]:
        """The card as safetensors metadata (strings only)."""
        return {"format": FORMAT, "card": json.dumps(asdict(self), sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> ModelCard:
        """Read a card from safetensors metadata.

        Raises:
            ValueError: the metadata holds no readable card, or one whose values mean nothing.
        """
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"its metadata has format {shown(metadata.get('format'))}, not {FORMAT!r}"
            )
        text = metadata.get("card", "")
        if len(text) > MAX_CARD:
            raise ValueError(f"its model card has {len(text)} characters, more than {MAX_CARD}")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("its model card cannot be read (it is not JSON)") from None
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: object) -> ModelCard:
        """A card from what JSON holds; fields that this version does not know are dropped.

        Raises:
            ValueError: a field is missing, or its value is of another type or out of range.
        """
        if not isinstance(values, dict):
            raise ValueError(f"its model card cannot be read (it is {shown(values)})")
        if "licence" in values:  # as spelled in the first files
            values = {"license": values["licence"], **values}
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in values.items() if key in known}
        for name, (valid, expected) in _FIELDS.items():
            if name in values and not valid(values[name]):
                raise ValueError(
                    f"its model card cannot be read ({name}: got {shown(values[name])}; "
                    f"expected {expected})"
                )
        missing = {"name", "architecture", "config", "task", "channels"} - values.keys()
        if missing:
            raise ValueError(f"its model card cannot be read (no {', '.join(sorted(missing))})")
        if values.get("sigma_range") is not None:
            values["sigma_range"] = tuple(values["sigma_range"])
        return cls(**values)


def check_arguments(config: Mapping[str, Any], arrays: int) -> None:
    """Raise a ValueError if no network of so many arrays can be meant by these arguments."""
    blocks = config.get("num_blocks")
    if isinstance(blocks, int) and blocks > arrays:
        raise ValueError(f"num_blocks: got {shown(blocks)}, and {arrays} arrays")
    for name, value in config.items():
        if name in _NOT_IN_FILES and value is not None:
            raise ValueError(f"{name}: is not for a file to choose")
        most = _MAX_ARGUMENTS.get(name, _MAX_ARGUMENT)
        for leaf in _leaves(value):
            if isinstance(leaf, str):
                fits = len(leaf) <= _MAX_NAME
            else:
                fits = leaf is None or -most <= leaf <= most
            if not fits or len(name) > _MAX_NAME:
                raise ValueError(
                    f"{shown(name)}: got {shown(leaf)}; expected at most {most}, or a text of at "
                    f"most {_MAX_NAME} characters"
                )


def _leaves(value: object) -> list[Any]:
    """The numbers, texts and None in a value that JSON can hold."""
    waiting, leaves = [value], []
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        else:
            leaves.append(value)
    return leaves


def _is_shallow(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_NESTING):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list | tuple)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return not level


def _is_number(value: object, low: float, high: float) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return low <= value <= high  # also false for NaN


def _is_integer(low: int, high: int) -> Callable[[object], bool]:
    return lambda x: isinstance(x, int) and not isinstance(x, bool) and low <= x <= high


def _is_text(longest: int) -> Callable[[object], bool]:
    return lambda x: isinstance(x, str) and len(x) <= longest


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict) and _is_shallow(value)


def _is_range(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(_is_number(x, 0, _MAX_LEVEL) for x in value)
        and value[0] <= value[1]
    )


_NAME = (_is_text(_MAX_NAME), f"a text of at most {_MAX_NAME} characters")
_TEXT = (_is_text(_MAX_TEXT), f"a text of at most {_MAX_TEXT} characters")
_MAPPING = (_is_mapping, f"an object, nested at most {_MAX_NESTING} deep")
_FLAG = (lambda x: isinstance(x, bool), "true or false")

_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": _NAME,
    "architecture": _NAME,
    "config": _MAPPING,
    "task": (lambda x: isinstance(x, str) and x in TASKS, f"one of {', '.join(TASKS)}"),
    "channels": (lambda x: _is_integer(1, 3)(x) and x != 2, "1 or 3"),
    "sigma": (
        lambda x: x is None or _is_number(x, 0, _MAX_LEVEL),
        f"a level from 0 to {_MAX_LEVEL:g}, or null",
    ),
    "sigma_range": (
        lambda x: x is None or _is_range(x),
        f"two levels from 0 to {_MAX_LEVEL:g}, in order, or null",
    ),
    "scale": (_is_integer(1, _MAX_SCALE), f"a whole number from 1 to {_MAX_SCALE}"),
    "needs_kernel": _FLAG,
    "needs_sigma": _FLAG,
    "estimate_share": (lambda x: _is_number(x, 0, 1), "a number from 0 to 1"),
    "overlap": (
        lambda x: x is None or _is_integer(0, _MAX_OVERLAP)(x),
        f"a whole number from 0 to {_MAX_OVERLAP}, or null",
    ),
    "source": _TEXT,
    "license": _TEXT,
    "sha256": _NAME,
    "defined_in": _TEXT,
    "notes": _MAPPING,
}
"""For each field, whether a value is one, and what is expected."""
