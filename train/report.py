"""What stays of a run for people: the model card, sample images, before/after, a paragraph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converse_jax import ModelCard, __version__
from converse_jax.imaging import ImageError
from train.config import Config
from train.errors import TrainStopped
from train.figures import enlarge, sheet, write_sheet
from train.log import psnr_label
from train.measure import HeldOut, Scores
from train.meter import Meter, peak_memory
from train.run_folder import BEFORE_AFTER, SUMMARY

_SHOWN = 4  # held-out images in a figure


def card_of(
    config: Config, step: int, psnr: float | None, init: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The model card of the weights after a step, as JSON holds it.

    Args:
      config: the run.
      step: steps done.
      psnr: of the held-out images, if measured.
      init: the weights the run started from, if not from random ones: name and sha256.
    """
    task = config.task
    notes: dict[str, Any] = {
        "step": step,
        "held_out_psnr": psnr,
        "held_out_metric": task.measured_as,
        "task": config.to_dict()["task"],
        "trained_on": list(config.data.train),
        "versions": {"converse-jax": __version__, "jax": jax.__version__, "flax": version("flax")},
    }
    if init is not None:
        notes["init"] = dict(init)
    card = ModelCard(
        name=config.name,
        architecture=config.model.architecture,
        config=config.model.arguments(task.scale),
        task=task.name,
        channels=config.model.channels,
        sigma=task.card_sigma,
        sigma_range=task.card_sigma_range,
        needs_sigma="sigma" in config.model.inputs,
        scale=task.scale,
        needs_kernel="kernel" in config.model.inputs,
        source=f"trained by converse-jax on {', '.join(config.data.train)}",
        license="unspecified",
        defined_in=config.model.registered().defined_in,
        notes=notes,
    )
    return asdict(card)


def sample_sheet(measure: HeldOut, scores: Scores) -> np.ndarray:
    """Input, restored and clean of a few held-out images, float32 ``[H, W, 3]``."""
    rows = []
    for example, restored in list(zip(measure.examples, scores.restored, strict=True))[:_SHOWN]:
        given = enlarge(example["input"], *restored.shape[:2])
        rows.append([("input", given), ("restored", restored), ("clean", example["target"])])
    return sheet(rows)


def write_report(
    run: Path,
    config: Config,
    measure: HeldOut,
    scores: Scores,
    meter: Meter,
    skipped: int,
    patches: int | None,
) -> str:
    """Write before_after.png and summary.md; the summary.

    Args:
      run: the run's folder.
      config: the run.
      measure: the held-out images.
      scores: of the final weights.
      meter: of this sitting.
      skipped: steps skipped in all sittings.
      patches: in all sittings, if that is known.
    """
    baseline_name, baseline = measure.baseline()
    examples = measure.examples
    given = [enlarge(e["input"], *e["target"].shape[:2]) for e in examples]
    rows = []
    for i in range(min(_SHOWN, len(examples))):
        columns = [("input", given[i]), (baseline_name, baseline.restored[i])]
        if baseline_name == "input":
            del columns[1]
        columns += [(config.name, scores.restored[i]), ("clean", examples[i]["target"])]
        rows.append([(name, pixels, i) for name, pixels in columns])
    label = psnr_label(config.task.measured_as)
    unit = label.replace("PSNR", "dB")
    captioned = [
        [
            (f"{name}  {measure.psnr(i, pixels):.2f} {unit}" if name != "clean" else name, pixels)
            for name, pixels, i in row
        ]
        for row in rows
    ]
    try:
        write_sheet(run / BEFORE_AFTER, captioned)
    except ImageError as error:
        raise TrainStopped(str(error)) from None
    before = measure.score(given).psnr
    compared = "" if baseline_name == "input" else f"; {baseline_name}: {baseline.psnr:.2f} dB"
    steps = f"{config.steps} steps"
    if patches == config.steps * config.batch_size:
        steps += f" of {config.batch_size} patches"
    elif patches is not None:
        steps += f", {patches} patches in batches of several sizes"
    gained = scores.psnr - before
    gain = f"{gained:+.2f} dB above" if gained >= 0 else f"{-gained:.2f} dB below"
    gain += f" the input of {before:.2f} dB{compared}"
    # A network that enlarges has to be better than an enlargement without one.
    least, of = before, ""
    if config.task.name == "sr" and baseline_name != "input":
        least, of = baseline.psnr, f" ({baseline_name})"
    worse = ""
    if not scores.psnr >= least:
        worse = (
            f"Worse than its input: {scores.psnr:.2f} dB against {least:.2f} dB"
            f"{of}; train longer, or look at the loss and the learning rate. "
        )
    speed = ""
    if meter.seconds > 0:
        speed = (
            f"{meter.images / meter.seconds:.1f} images/s on {jax.device_count()} x "
            f"{jax.devices()[0].device_kind}; at most {meter.waited / meter.seconds:.0%} of the "
            "time spent waiting for data; "
        )
    by_set = ""
    if scores.by_set:
        listed = ", ".join(f"{name} {value:.4g}" for name, value in scores.by_set.items())
        by_set = f"By set: {listed}. "
    text = (
        f"{worse}{config.name}: {steps}. On {len(examples)} held-out images {label} "
        f"{scores.psnr:.2f} dB ({label.replace('PSNR', 'SSIM')} {scores.ssim:.4f}), {gain}. "
        f"{by_set}{speed}peak memory {peak_memory()}; {skipped} steps skipped. "
        f"Weights: python -m train.export {run} {config.name}.safetensors"
    )
    temporary = run / (SUMMARY + ".tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, run / SUMMARY)
    except OSError as error:
        raise TrainStopped(f"{run / SUMMARY}: cannot be written ({error.strerror})") from None
    return text
