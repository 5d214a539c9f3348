"""A training run from top to bottom."""

from __future__ import annotations

import itertools
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jax

from converse_jax.messages import say
from train import run_folder
from train.checkpoint import Checkpoints
from train.config import Args, Config
from train.data import held_out_examples, host_batches, on_device, open_images
from train.errors import TrainError, TrainStopped
from train.initial import read_initial
from train.log import Log
from train.measure import HeldOut, Scores
from train.meter import Means, Meter
from train.processes import StopSignal, barrier
from train.report import make_card, sample_sheet, write_report
from train.state import (
    FunctionalNetwork,
    abstract_state,
    batch_sharding,
    make_mesh,
    make_optimizer,
    make_state,
    start_from,
)
from train.step import Metrics, jit_step, make_step


def train(args: Args) -> int:
    """Train as configured; with `resume`, from the latest checkpoint if there is one.

    Returns:
        The exit status: 0 when all steps are done, `processes.PREEMPTED` or `INTERRUPTED` when it
        was asked to stop and has saved.

    Raises:
        TrainError: a user error, found before the first step.
        StoppedEarly: it was asked to stop before the first step; a compilation may still be
            running.
        TrainStopped: the run could not continue.
    """
    # Find every mistake before anything is written or computed.
    args.config.check()
    config = args.config.named()
    run = args.run or Path("runs") / config.name
    if args.init_partial and args.init is None:
        raise TrainError("--init-partial: there is nothing to take a part of; give --init WEIGHTS")
    mesh = make_mesh()
    config.check_devices(mesh.size)
    run_folder.check(run, config, resume=args.resume, overwrite=args.overwrite, say=_say)
    images, held_out_images = open_images(config, _say)
    examples = held_out_examples(config, held_out_images, _say)
    network = FunctionalNetwork(config)
    for named in examples.values():
        network.check_output(named[0])
    optimizer = make_optimizer(config.optimizer, config.steps)
    initial, init = None, None
    if args.resume and run_folder.has_checkpoints(run):
        init = run_folder.read_init(run)
    elif args.init is not None:
        initial = read_initial(config, network, args.init, partial=args.init_partial)
        init = initial.record
        _say(initial.note)
    abstract = abstract_state(network, optimizer, mesh)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract))
    run_folder.check_space(run, size, config.keep + 2)
    barrier("checked")

    with ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        lock: run_folder.Lock | None = None
        if _is_leader():
            lock = stack.enter_context(run_folder.Lock(run))
            # Once more: another run may have begun and ended here since.
            run_folder.check(
                run, config, resume=args.resume, overwrite=args.overwrite, say=lambda line: None
            )
            record = None if initial is None else initial.record
            run_folder.claim(run, config, overwrite=args.overwrite, init=record)
        barrier("claimed")
        checkpoints = stack.enter_context(Checkpoints(run, keep=config.keep))
        loaded = checkpoints.load_latest(abstract, _say) if args.resume else None
        if loaded is not None:
            state, start = loaded
            _say(f"resuming after step {start}")
            # Earlier runs may have had another batch size; old checkpoints do not record it.
            patches = _Patches(start, checkpoints.details(start).get("patches"), config.batch_size)
        else:
            start, patches = 0, _Patches(0, 0, config.batch_size)
            state = stop.interruptible(lambda: make_state(network, optimizer, mesh))
            if initial is not None:
                state = start_from(state, initial.arrays, mesh)

        held_out = HeldOut(config, examples, network, mesh)
        if start >= config.steps:
            _say(f"{run}: all {config.steps} steps are done; give more (--steps) to go on")
            if not (run / run_folder.SUMMARY).exists():  # stopped before the report
                final, skipped = held_out(state.ema), int(state.skipped)
                if _is_leader():
                    done = patches.before
                    _say(write_report(run, config, held_out, final, Meter(), skipped, done))
            return 0

        log = stack.enter_context(
            Log(
                run,
                start=start,
                steps=config.steps,
                leader=_is_leader(),
                psnr=config.task.measured_as,
            )
        )
        host = stack.enter_context(
            host_batches(config, images, start, jax.process_index(), jax.process_count())
        )
        batches = on_device(host, batch_sharding(mesh))
        first = next(batches)
        log.say(
            f"{config.name}: {sum(x.size for x in state.params.values()):,} parameters, "
            f"{len(images)} images, {sum(map(len, examples.values()))} held out, "
            f"batches of {config.batch_size} on {mesh.size} x {mesh.devices.flat[0].device_kind}"
        )
        began = time.perf_counter()
        jitted = jit_step(make_step(config, network, optimizer), mesh)
        train_step = stop.interruptible(lambda: jitted.lower(abstract, first).compile())
        temporaries = train_step.memory_analysis().temp_size_in_bytes / 1e6
        log.say(
            f"compiled in {time.perf_counter() - began:.1f} s; a step needs {temporaries:.0f} MB "
            "besides weights and batch, on each device"
        )

        def save(step: int, scores: Scores | None) -> None:
            psnr = None if scores is None or not math.isfinite(scores.psnr) else scores.psnr
            details = {
                "card": make_card(config, step, psnr, init),
                "config": config.to_dict(),
                "patches": patches.after(step),
            }
            checkpoints.save(step, state, details, psnr)

        meter, means = Meter(), Means()
        batches = itertools.chain([first], batches)
        pending_metrics: Metrics | None = None
        scores: Scores | None = None
        for step in range(start + 1, config.steps + 1):
            try:
                with meter.waiting():
                    batch = next(batches)
            except TrainError as error:  # a damaged image
                checkpoints.wait()
                if jax.process_count() == 1 and step - 1 not in checkpoints.steps:
                    save(step - 1, None)
                raise TrainStopped(str(error)) from None
            state, metrics = train_step(state, batch)
            if pending_metrics is not None:
                # Read only now, while the devices are busy with the next step.
                check_metrics(step - 1, pending_metrics, config, log, meter, means)
            pending_metrics = metrics
            meter.add(config.batch_size)

            status = stop.status(step)
            last = step == config.steps
            measuring = last or step % config.eval_every == 0
            saving = last or status is not None or step % config.save_every == 0
            if not (measuring or saving or step % config.log_every == 0):
                continue
            if lock is not None:
                lock.check()
            pending_metrics = None
            numbers = check_metrics(step, metrics, config, log, meter, means)
            numbers |= means.take() | meter.take()
            with meter.pause():
                scores = None
                images_to_show = {}
                if measuring:
                    scores = held_out(state.ema)
                    numbers |= scores.numbers(config.task.measured_as)
                    images_to_show = {"held_out": sample_sheet(held_out, scores)}
                log.metrics(step, numbers, images_to_show)
                if saving:
                    save(step, scores)
                if status is not None and not last:
                    checkpoints.wait()
                    log.say(f"stopped after step {step} and saved; go on with --resume")
                    return status
        checkpoints.wait()
        if _is_leader():
            assert scores is not None  # the last step is always measured
            skipped, done = int(numbers["skipped"]), patches.after(config.steps)
            log.say(write_report(run, config, held_out, scores, meter, skipped, done))
    return 0


@dataclass(frozen=True)
class _Patches:
    """Number of patches trained on: `before` step `start` (None if unknown), and `after` others."""

    start: int
    before: int | None
    batch_size: int

    def after(self, step: int) -> int | None:
        if self.before is None:
            return None
        return self.before + (step - self.start) * self.batch_size


def _is_leader() -> bool:
    return jax.process_index() == 0


def _say(line: str) -> None:
    if _is_leader():
        say(line)


def check_metrics(
    step: int, metrics: Metrics, config: Config, log: Log, meter: Meter, means: Means
) -> dict[str, float]:
    """Wait for the metrics of a step; show them, check them, and add them to the means.

    Raises:
        TrainStopped: too many steps in a row were skipped.
    """
    numbers = {key: float(value) for key, value in jax.device_get(metrics).items()}
    in_a_row = int(numbers.pop("skipped_in_a_row"))
    if in_a_row == 0:
        means.add({name: numbers[name] for name in ("loss", "grad_norm")})
    log.step(step, numbers["loss"], meter.rate)
    if in_a_row >= config.max_skipped:
        raise TrainStopped(
            f"step {step}: the last {in_a_row} losses or gradients were not finite (loss "
            f"{numbers['loss']}) and were skipped; the weights are as before them. Look for "
            "damaged images, lower --optimizer.learning-rate or clip (--optimizer.clip 1), then "
            "go on with --resume"
        )
    return numbers
