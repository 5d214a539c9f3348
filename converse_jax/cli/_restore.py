"""`converse-jax restore`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converse_jax.cli._arguments import (
    UsageError,
    add_kernel,
    add_model,
    add_overwrite,
    given_kernel,
    given_restorer,
    number,
    say,
)
from converse_jax.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from converse_jax.restore import Plan
    from converse_jax.restore_files import AnyRestorer, FileResult

SUMMARY = "restore an image, or the images of a folder"

_FORMATS = ("png", "jpeg", "tiff", "webp", "bmp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", metavar="IN", help="image, folder, or - for standard input")
    parser.add_argument("target", metavar="OUT", help="image, folder, or - for standard output")
    parser.add_argument(
        "--task",
        choices=("photo", "denoise", "sr", "deblur"),
        help="use the bundled network that improves a photograph (default), removes noise "
        "of one level, enlarges, or reverses a known blur",
    )
    add_model(parser, required=False)
    parser.add_argument(
        "--sigma",
        type=_sigma,
        default="auto",
        metavar="S",
        help="noise standard deviation, 0-255 scale, or auto (default): estimate it per image",
    )
    parser.add_argument(
        "--scale", type=int, choices=(2, 4), help="enlargement factor of --task sr (default 2)"
    )
    parser.add_argument(
        "--strength",
        type=_strength,
        default=1.0,
        metavar="T",
        help="blend with the original, from 0 (unchanged) to 1 (default: fully restored)",
    )
    add_kernel(parser, "blur to reverse, for a network that takes one")
    parser.add_argument(
        "--self-ensemble",
        action="store_true",
        help="average over the 8 rotations and reflections: 8 times slower",
    )
    parser.add_argument(
        "--no-extend-borders",
        action="store_true",
        help="do not extend the borders before deblurring: the blur was circular",
    )
    parser.add_argument(
        "--compare",
        metavar="SHEET",
        help="image to draw as well: before and after side by side, with a magnified detail",
    )
    parser.add_argument(
        "--format", choices=_FORMATS, help="image format of standard output (default png)"
    )
    add_overwrite(parser)


def _sigma(text: str) -> float | None:
    """A noise level on the scale of 0 to 255; None for auto."""
    if text == "auto":
        return None
    return number(text, 0, 255, "a noise level from 0 to 255, or auto")


def _strength(text: str) -> float:
    return number(text, 0, 1, "a number from 0 to 1")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    if args.format and args.target != "-":
        raise UsageError("--format is for standard output; the name of OUT says the format")
    source, target = Path(args.source), Path(args.target)
    is_folder = args.source != "-" and os.path.isdir(source)
    if is_folder and args.target == "-":
        raise UsageError(f"{source} is a folder, whose images cannot go to standard output")
    if args.target == "-" and sys.stdout.isatty():
        raise UsageError("standard output is a terminal; send it to a file or another program")
    if not is_folder and args.target != "-" and os.path.isdir(target):
        raise UsageError(f"{target} is a folder; name the image to make in it")
    if args.compare is not None:
        _check_sheet(args, is_folder)
    if args.model is not None and (args.task or args.scale):
        option = "--task" if args.task else "--scale"
        raise UsageError(f"{option} chooses a bundled network: leave it out, or --model")
    restorer: AnyRestorer
    restorer, kernel = (given_restorer if args.model is not None else _bundled_restorer)(args)
    if kernel is not None:
        kernel, notes = restorer.prepare_kernel(kernel)
        for note in notes:
            say(note)
    options: dict[str, Any] = {
        "kernel": kernel,
        "sigma": None if args.sigma is None else args.sigma / 255,
        "strength": args.strength,
        "self_ensemble": args.self_ensemble,
        "extend_borders": not args.no_extend_borders,
    }
    if is_folder:
        return _restore_folder(restorer, source, target, args.overwrite, options)
    if args.target == "-":
        _restore_to_stdout(restorer, args, options)
        return 0
    from converse_jax.restore_files import restore_file

    given = sys.stdin.buffer if args.source == "-" else source
    plan = restore_file(restorer, given, target, overwrite=args.overwrite, **options)
    _say_plan(plan)
    if args.compare is not None:
        from converse_jax._sheet import write_comparison

        by = f"restored by {plan.restorer.card.name}"
        write_comparison(args.compare, source, target, subtitle=by, overwrite=args.overwrite)
    return 0


def _check_sheet(args: argparse.Namespace, is_folder: bool) -> None:
    """Refuse a sheet of `--compare` that could not be made, before the work."""
    from converse_jax._sheet import check_target

    if is_folder:
        raise UsageError(f"--compare shows one image, and {args.source} is a folder")
    if "-" in (args.source, args.target):
        raise UsageError("--compare reads IN and OUT again: name files instead of -")
    places = [os.path.abspath(path) for path in (args.source, args.target)]
    if os.path.abspath(args.compare) in places:
        raise UsageError(f"--compare {args.compare}: is IN or OUT; name another file")
    check_target(args.compare, overwrite=args.overwrite)


def _bundled_restorer(args: argparse.Namespace) -> tuple[AnyRestorer, np.ndarray | None]:
    """The bundled networks for the command's task, and the kernel."""
    from converse_jax import compilation_cache
    from converse_jax.bundled import BundledRestorer, BundledTask

    task: BundledTask = args.task or "photo"
    if task == "deblur" and args.kernel is None:
        raise UsageError("--task deblur needs the blur: give --kernel K")
    if task != "deblur" and args.kernel is not None:
        raise UsageError(f"--kernel is for --task deblur, got --task {task}")
    if task not in ("photo", "denoise") and args.sigma is not None:
        raise UsageError(f"--sigma is for --task photo and denoise, got --task {task}")
    kernel = given_kernel(args)
    compilation_cache.enable()
    return BundledRestorer(task, scale=args.scale), kernel


def _say_plan(plan: Plan) -> None:
    for line in (*plan.notes, *(() if plan.noise is None else (plan.noise,))):
        say(line)


def _restore_to_stdout(
    restorer: AnyRestorer, args: argparse.Namespace, options: dict[str, Any]
) -> None:
    from converse_jax.imaging import encode_image, read_image
    from converse_jax.restore import restore_image
    from converse_jax.restore_files import check_holds

    format = args.format or "png"
    image = read_image(sys.stdin.buffer if args.source == "-" else args.source)
    check_holds("standard output", image, format)
    plan = restorer.plan(image.pixels, sigma=options.pop("sigma"))
    _say_plan(plan)
    restored = restore_image(plan.restorer, image, sigma=plan.sigma, **options)
    data = encode_image(restored, format)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _restore_folder(
    restorer: AnyRestorer, source: Path, target: Path, overwrite: bool, options: dict[str, Any]
) -> int:
    from converse_jax.restore_files import restore_folder

    said: set[str] = set()
    with progress_bar("restoring") as advance:

        def on_result(result: FileResult, number: int, total: int) -> None:
            if result.reason is not None:
                say(f"failed: {result.reason}")
            if result.plan is not None:
                for note in result.plan.notes:
                    if note not in said:
                        say(note)
                    said.add(note)
                if result.plan.noise is not None:
                    say(f"{result.source}: {result.plan.noise}")
            advance(number, total)

        counts = restore_folder(
            restorer, source, target, overwrite=overwrite, on_result=on_result, **options
        )
    say(
        f"{counts.restored} restored, {counts.skipped} skipped (there already), "
        f"{counts.failed} failed"
    )
    return 1 if counts.failed else 0
