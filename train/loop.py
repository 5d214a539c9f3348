"""A training run from top to bottom."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

import jax

from train import run_folder
from train.checkpoint import Checkpoints
from train.config import Command, Config
from train.data import held_out_examples, host_batches, on_device, open_images
from train.errors import TrainError, TrainStopped
from train.initial import read_initial
from train.log import Log
from train.measure import HeldOut, Scores
from train.meter import Means, Meter
from train.processes import StopSignal, meet
from train.report import card_of, sample_sheet, write_report
from train.state import (
    FunctionalNetwork,
    abstract_state,
    make_mesh,
    make_optimizer,
    make_state,
    shared,
    start_from,
)
from train.step import Metrics, jit_step, make_step


def train(command: Command) -> int:
    """Train as configured, from the last checkpoint if there is one.

    Returns:
      The exit status: 0 when all steps are done, `processes.PREEMPTED` or `INTERRUPTED` when it was
      asked to stop and has saved.

    Raises:
      TrainError: a mistake, found before the first step.
      StoppedEarly: it was asked to stop before the first step; what compiles may still be at it.
      TrainStopped: it could not go on.
    """
    command.config.check()
    config = command.config.named()
    run = command.run or Path("runs") / config.name
    leader = jax.process_index() == 0

    def tell(line: str) -> None:
        if leader:
            print(line, file=sys.stderr, flush=True)

    # Whatever can be wrong is found before anything is written or computed.
    if command.init_partial and command.init is None:
        raise TrainError("--init-partial: there is nothing to take a part of; give --init WEIGHTS")
    mesh = make_mesh()
    config.check_devices(mesh.size)
    run_folder.check(run, config, resume=command.resume, overwrite=command.overwrite, say=tell)
    images, held_out_images = open_images(config, tell)
    held_out = held_out_examples(config, held_out_images, tell)

    network = FunctionalNetwork(config)
    for examples in held_out.values():
        network.check_output(examples[0])
    optimizer = make_optimizer(config.optimizer, config.steps)
    initial, init = None, None
    if command.resume and run_folder.has_checkpoints(run):
        init = run_folder.read_init(run)
    elif command.init is not None:
        initial = read_initial(config, network, command.init, partial=command.init_partial)
        tell(initial.remark)
        init = initial.record
    abstract = abstract_state(network, optimizer, mesh)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract))
    run_folder.check_space(run, size, config.keep + 2)
    meet("checked")

    with ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        if leader:
            record = None if initial is None else initial.record
            run_folder.claim(run, config, overwrite=command.overwrite, init=record)
        meet("claimed")
        checkpoints = stack.enter_context(Checkpoints(run, keep=config.keep))
        found = checkpoints.load_latest(abstract, tell) if command.resume else None
        if found is not None:
            state, start = found
            # Another sitting may have had batches of another size; old checkpoints do not say.
            patches_before = checkpoints.details(start).get("patches")
            tell(f"resuming after step {start}")
        else:
            state = stop.interruptible(lambda: make_state(network, optimizer, mesh))
            start = 0
            patches_before = 0
            if initial is not None:
                state = start_from(state, initial.arrays, mesh)

        def patches_after(done: int) -> int | None:
            if patches_before is None:
                return None
            return patches_before + (done - start) * config.batch_size

        measure = HeldOut(config, held_out, network, mesh)
        if start >= config.steps:
            tell(f"{run}: all {config.steps} steps are done; give more (--steps) to go on")
            if not (run / run_folder.SUMMARY).exists():  # stopped between the last step and this
                final = measure(state.ema)
                if leader:
                    skipped = int(state.skipped)
                    tell(
                        write_report(run, config, measure, final, Meter(), skipped, patches_before)
                    )
            return 0

        log = stack.enter_context(
            Log(
                run,
                start=start,
                steps=config.steps,
                leader=leader,
                psnr=config.task.measured_as,
            )
        )
        host = stack.enter_context(
            host_batches(config, images, start, jax.process_index(), jax.process_count())
        )
        batches = on_device(host, shared(mesh))
        batch = next(batches)
        log.say(
            f"{config.name}: {sum(x.size for x in state.params.values()):,} parameters, "
            f"{len(images)} images, {sum(map(len, held_out.values()))} held out, "
            f"batches of {config.batch_size} on {mesh.size} x {mesh.devices.flat[0].device_kind}"
        )
        began = time.perf_counter()
        jitted = jit_step(make_step(config, network, optimizer), mesh)
        step = stop.interruptible(lambda: jitted.lower(abstract, batch).compile())
        temporaries = step.memory_analysis().temp_size_in_bytes / 1e6
        log.say(
            f"compiled in {time.perf_counter() - began:.1f} s; a step needs {temporaries:.0f} MB "
            "besides weights and batch, on each device"
        )
        meter, means = Meter(), Means()

        def save(done: int, scores: Scores | None) -> None:
            psnr = None if scores is None else scores.psnr
            details = {
                "card": card_of(config, done, psnr, init),
                "config": config.to_dict(),
                "patches": patches_after(done),
            }
            checkpoints.save(done, state, details, psnr)

        unseen: Metrics | None = None
        for done in range(start + 1, config.steps + 1):
            if done > start + 1:
                try:
                    with meter.waiting():
                        batch = next(batches)
                except TrainError as error:  # a damaged image
                    checkpoints.wait()
                    if jax.process_count() == 1 and done - 1 not in checkpoints.steps:
                        save(done - 1, None)
                    raise TrainStopped(str(error)) from None
            state, metrics = step(state, batch)
            if unseen is not None:
                # Looked at only now: the devices have the next step to do meanwhile.
                look(done - 1, unseen, config, log, meter, means)
            unseen = metrics
            meter.add(config.batch_size)

            status = stop.status(done)
            last = done == config.steps
            measuring = last or done % config.eval_every == 0
            saving = last or status is not None or done % config.save_every == 0
            if not (measuring or saving or done % config.log_every == 0):
                continue
            unseen, numbers = None, look(done, metrics, config, log, meter, means)
            numbers |= means.take() | meter.take()
            with meter.pause():
                scores, shown = None, {}
                if measuring:
                    scores = measure(state.ema)
                    psnr = config.task.measured_as
                    numbers |= {psnr: scores.psnr, psnr.replace("psnr", "ssim"): scores.ssim}
                    numbers |= scores.by_set
                    shown = {"held_out": sample_sheet(measure, scores)}
                log.metrics(done, numbers, shown)
                if saving:
                    save(done, scores)
                if status is not None and not last:
                    checkpoints.wait()
                    log.say(f"stopped after step {done} and saved; go on with --resume")
                    return status
        checkpoints.wait()
        if leader:
            assert scores is not None  # the last step is always measured
            skipped, patches = int(numbers["skipped"]), patches_after(config.steps)
            log.say(write_report(run, config, measure, scores, meter, skipped, patches))
    return 0


def look(
    step: int, metrics: Metrics, config: Config, log: Log, meter: Meter, means: Means
) -> dict[str, float]:
    """A step's numbers, once it is done; shown, checked, and counted in the means.

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
