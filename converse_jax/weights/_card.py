"""The card of a model: what it is for, and where its weights come from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

FORMAT = "converse-jax/1"


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
    def from_metadata(cls, metadata: dict[str, str]) -> ModelCard:
        """Read a card from safetensors metadata.

        Raises:
            ValueError: the metadata holds no readable card.
        """
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its metadata has format {metadata.get('format')!r}, not {FORMAT!r}")
        try:
            values = json.loads(metadata["card"])
            if "licence" in values:  # as spelled in the first files
                values.setdefault("license", values["licence"])
            known = {f.name for f in fields(cls)}
            return cls(**{key: value for key, value in values.items() if key in known})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"its model card cannot be read ({error!r})") from None
