"""What a run leaves for its user: model card, sample images, before/after sheet, summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converse_jax import ModelCard, __version__
from converse_jax.atomic import write_bytes
from converse_jax.imaging import ImageError
from train.config import Config
from train.errors import TrainStopped
from train.log import psnr_label
from train.measure import HeldOut, Scores
from train.meter import Meter, peak_memory
from train.run_folder import BEFORE_AFTER, SUMMARY
from train.sheet import enlarge, sheet, write_sheet

_SHOWN = 4  # held-out images in a figure


def make_card(
    config: Config, step: int, psnr: float | None, init: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The model card of the weights after a step, as JSON-serializable values.

    Args:
        config: the run.
        step: steps done.
        psnr: PSNR of the held-out images, if measured.
        init: name and sha256 of the weights the run started from; None for random ones.
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
        estimate_share=task.card_estimate_share,
        scale=task.scale,
        needs_kernel="kernel" in config.model.inputs,
        source=f"trained by converse-jax on {', '.join(config.data.train)}",
        license="unspecified",
        defined_in=config.model.registered().defined_in,
        notes=notes,
    )
    return asdict(card)


def sample_sheet(held_out: HeldOut, scores: Scores) -> np.ndarray:
    """Input, restored and clean versions of a few held-out images, float32 `[H, W, 3]`."""
    rows = []
    for example, restored in list(zip(held_out.examples, scores.restored, strict=True))[:_SHOWN]:
        given = enlarge(example["input"], *restored.shape[:2])
        rows.append([("input", given), ("restored", restored), ("clean", example["target"])])
    return sheet(rows)


def write_report(
    run: Path,
    config: Config,
    held_out: HeldOut,
    scores: Scores,
    meter: Meter,
    skipped: int,
    patches: int | None,
) -> str:
    """Write before_after.png and summary.md; return the summary.

    Args:
        run: the run's folder.
        config: the run.
        held_out: the held-out images.
        scores: scores of the final weights.
        meter: meter of this process.
        skipped: steps skipped in the whole run.
        patches: patches trained on in the whole run, if known.

    Raises:
        TrainStopped: a file cannot be written.
    """
    label = psnr_label(config.task.measured_as)
    given = [enlarge(e["input"], *e["target"].shape[:2]) for e in held_out.examples]
    baseline = held_out.baseline()
    rows = _before_after(config, held_out, given, baseline, scores)
    before = held_out.score(given)
    clean = held_out.num_clean
    if clean == len(given):
        verdict, result = "", f"All {clean} held-out images are already clean: nothing is measured"
    else:
        verdict = _verdict(config, before, baseline, scores)
        left_out = f" ({clean} already clean left out)" if clean else ""
        gain = _gain(before, baseline, scores)
        result = (
            f"On {len(given) - clean} held-out images{left_out} {label} {scores.psnr:.2f} dB "
            f"({label.replace('PSNR', 'SSIM')} {scores.ssim:.4f}), {gain}"
        )
    text = (
        f"{verdict}{config.name}: {_amount(config, patches)}. {result}. "
        f"{_by_set(scores)}{_speed(meter)}peak memory {peak_memory()}; {skipped} steps skipped. "
        f"Weights: python -m train.export {run} {config.name}.safetensors"
    )
    try:
        write_sheet(run / BEFORE_AFTER, rows)
        write_bytes(run / SUMMARY, f"{text}\n".encode(), overwrite=True)
    except ImageError as error:
        raise TrainStopped(str(error)) from None
    except OSError as error:
        raise TrainStopped(f"{run / SUMMARY}: cannot be written ({error.strerror})") from None
    return text


Baseline = tuple[str, Scores]


def _before_after(
    config: Config,
    held_out: HeldOut,
    given: Sequence[np.ndarray],
    baseline: Baseline,
    scores: Scores,
) -> list[list[tuple[str, np.ndarray]]]:
    """Rows of labeled panels: input, baseline, restored, clean."""
    unit = psnr_label(config.task.measured_as).replace("PSNR", "dB")
    rows = []
    for i in range(min(_SHOWN, len(given))):
        columns = [("input", given[i])]
        if baseline[0] != "input":
            columns.append((baseline[0], baseline[1].restored[i]))
        columns.append((config.name, scores.restored[i]))
        captioned = [(f"{name}  {held_out.psnr(i, x):.2f} {unit}", x) for name, x in columns]
        rows.append([*captioned, ("clean", held_out.examples[i]["target"])])
    return rows


def _verdict(config: Config, given: Scores, baseline: Baseline, scores: Scores) -> str:
    """A warning if the network is of no use."""
    # A network that enlarges has to beat plain interpolation.
    enlarges = config.task.name == "sr" and baseline[0] != "input"
    least, of = (baseline[1].psnr, f" ({baseline[0]})") if enlarges else (given.psnr, "")
    if scores.psnr >= least:
        return ""
    return (
        f"Worse than its input: {scores.psnr:.2f} dB against {least:.2f} dB{of}; train longer, or "
        "look at the loss and the learning rate. "
    )


def _amount(config: Config, patches: int | None) -> str:
    steps = f"{config.steps} steps"
    if patches is None:
        return steps
    if patches == config.steps * config.batch_size:
        return f"{steps} of {config.batch_size} patches"
    return f"{steps}, {patches} patches in batches of several sizes"


def _gain(given: Scores, baseline: Baseline, scores: Scores) -> str:
    gained = scores.psnr - given.psnr
    gain = f"{gained:+.2f} dB above" if gained >= 0 else f"{-gained:.2f} dB below"
    compared = "" if baseline[0] == "input" else f"; {baseline[0]}: {baseline[1].psnr:.2f} dB"
    return f"{gain} the input of {given.psnr:.2f} dB{compared}"


def _by_set(scores: Scores) -> str:
    listed = ", ".join(f"{name} {value:.4g}" for name, value in scores.by_set.items())
    return f"By set: {listed}. " if listed else ""


def _speed(meter: Meter) -> str:
    if meter.seconds <= 0:
        return ""
    return (
        f"{meter.images / meter.seconds:.1f} images/s on {jax.device_count()} x "
        f"{jax.devices()[0].device_kind}; at most {meter.waited / meter.seconds:.0%} of the time "
        "spent waiting for data; "
    )
