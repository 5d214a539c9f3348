"""`converse-jax restore`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from converse_jax.cli._arguments import (
    UsageError,
    add_kernel,
    add_model,
    add_overwrite,
    add_solver,
    given_kernel,
    given_restorer,
    number,
)
from converse_jax.messages import say
from converse_jax.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from converse_jax.imaging import Image
    from converse_jax.restore import Plan
    from converse_jax.restore_files import AnyRestorer, FileResult, Output

SUMMARY = "restore an image, or the images of a folder"

_FORMATS = ("png", "jpeg", "tiff", "webp", "bmp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", metavar="IN", help="image, folder, or - for standard input")
    parser.add_argument("target", metavar="OUT", help="image, folder, or - for standard output")
    parser.add_argument(
        "--task",
        choices=("photo", "denoise", "sr", "deblur"),
        help="what the bundled networks do: improve a photograph (default), remove noise of one "
        "level, enlarge, or reverse a known blur",
    )
    add_model(parser, required=False)
    parser.add_argument(
        "--sigma",
        type=_sigma,
        default="auto",
        metavar="S",
        help="noise standard deviation, 0-255 scale, or auto (default): estimate it per image",
    )
    add_solver(
        parser,
        "default: pnp to deblur, and to enlarge where --scale is not 2 or 4 or with --kernel or "
        "--sigma",
    )
    parser.add_argument(
        "--strength",
        type=_strength,
        default=1.0,
        metavar="T",
        help="blend with the original, from 0 (unchanged) to 1 (default: fully restored)",
    )
    add_kernel(parser, "blur to reverse: of --task deblur and sr, or for a --model that takes one")
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
        "--tile",
        type=int,
        metavar="N",
        help="restore in overlapping tiles of N pixels, smaller where memory runs out, or whole "
        "images with 0 (default: tiles for images of more than 4 megapixels, for those that do "
        "not fit into memory, and for folders of more than two sizes)",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="M",
        help="pixels that neighboring tiles share (default: as measured for the network)",
    )
    add_files(parser)


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the options of how files are read and written."""
    parser.add_argument(
        "--compare",
        metavar="SHEET",
        help="image to draw as well: before and after side by side, with a magnified detail; of "
        "several pages, the first",
    )
    parser.add_argument(
        "--white-level",
        type=float,
        metavar="N",
        help="the value in IN that is white, for 16-bit and float images that do not go up to the "
        "largest (default: what the file says, or a guess, which is said)",
    )
    parser.add_argument(
        "--tolerate-damage",
        action="store_true",
        help="restore a JPEG that is cut short as far as it goes",
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        help="image format of standard output (default png), or of all images of a folder "
        "(default: their own)",
    )
    parser.add_argument(
        "--quality",
        type=int,
        metavar="Q",
        help="quality of JPEG (default 95) and of WebP (default lossless), 1 to 100",
    )
    parser.add_argument(
        "--width",
        type=int,
        metavar="W",
        help="width of the result in pixels, its height in proportion: resized afterwards",
    )
    parser.add_argument(
        "--resize",
        type=float,
        metavar="F",
        help="size of the result over that of IN, e.g. 2 with a network that enlarges by 4",
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
    source, target = Path(args.source), Path(args.target)
    is_folder = args.source != "-" and os.path.isdir(source)
    if args.format and not is_folder and args.target != "-":
        raise UsageError(
            "--format is for standard output and folders; the name of OUT says the format"
        )
    if is_folder and args.target == "-":
        raise UsageError(f"{source} is a folder, whose images cannot go to standard output")
    if args.target == "-" and sys.stdout.isatty():
        raise UsageError("standard output is a terminal; send it to a file or another program")
    if not is_folder and args.target != "-" and os.path.isdir(target):
        raise UsageError(f"{target} is a folder; name the image to make in it")
    if args.compare is not None:
        _check_sheet(args, is_folder)
    if args.model is not None and args.task and args.solver != "pnp":
        raise UsageError("--task chooses a bundled network: leave it out, or --model")
    from converse_jax.restore_files import Output, restore_file

    output = Output(args.format, args.quality, args.width, args.resize)
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
        "tile": args.tile,
        "overlap": args.overlap,
        "white_level": args.white_level,
        "tolerate_damage": args.tolerate_damage,
        "output": output,
    }
    if is_folder:
        return _restore_folder(restorer, source, target, args.overwrite, options)
    given = sys.stdin.buffer if args.source == "-" else source
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    if args.compare is not None:

        def on_restored(before: Image, after: Image) -> None:
            if not shown:
                shown.append((before.pixels, after.pixels))

        options["on_restored"] = on_restored
    with progress_bar("restoring") as advance:

        def on_page(number: int, total: int) -> None:
            if total > 1:
                advance(number, total)

        options |= {"on_page": on_page, "on_tile": advance}
        if args.target == "-":
            plan = _restore_to_stdout(restorer, given, output, options)
        else:
            plan = restore_file(restorer, given, target, overwrite=args.overwrite, **options)
    _say_plan(plan)
    for before, after in shown:
        from converse_jax._sheet import write_comparison

        name = "standard input" if args.source == "-" else source.name
        by = f"restored by {plan.restorer.card.name}"
        write_comparison(args.compare, before, after, name, by, overwrite=args.overwrite)
    return 0


def _check_sheet(args: argparse.Namespace, is_folder: bool) -> None:
    """Refuse a sheet of `--compare` that could not be made, before the work."""
    from converse_jax._sheet import check_target

    if is_folder:
        raise UsageError(f"--compare shows one image, and {args.source} is a folder")
    places = [os.path.abspath(path) for path in (args.source, args.target)]
    if os.path.abspath(args.compare) in places:
        raise UsageError(f"--compare {args.compare}: is IN or OUT; name another file")
    check_target(args.compare, overwrite=args.overwrite)


def _bundled_restorer(args: argparse.Namespace) -> tuple[AnyRestorer, np.ndarray | None]:
    """The bundled networks for the command's task, and the kernel."""
    from converse_jax import compilation_cache
    from converse_jax.bundled import BundledRestorer, BundledTask, default_solver

    task: BundledTask = args.task or "photo"
    if task == "deblur" and args.kernel is None:
        raise UsageError("--task deblur needs the blur: give --kernel K")
    if task not in ("deblur", "sr") and args.kernel is not None:
        raise UsageError(f"--kernel is for --task deblur and sr, got --task {task}")
    kernel = given_kernel(args)
    solver = args.solver or default_solver(task, kernel=kernel, sigma=args.sigma)
    compilation_cache.enable()
    return BundledRestorer(task, scale=args.scale, solver=solver), kernel


def _say_plan(plan: Plan) -> None:
    for line in (*plan.notes, *(() if plan.noise is None else (plan.noise,)), *plan.remarks):
        say(line)


def _restore_to_stdout(
    restorer: AnyRestorer, source: BinaryIO | Path, output: Output, options: dict[str, Any]
) -> Plan:
    from converse_jax.restore_files import restore_bytes

    format = output.format or "png"
    data, plan = restore_bytes(restorer, source, format, name="standard output", **options)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return plan


def _restore_folder(
    restorer: AnyRestorer, source: Path, target: Path, overwrite: bool, options: dict[str, Any]
) -> int:
    from converse_jax.restore_files import restore_folder, shown

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
                for remark in result.plan.remarks:
                    say(f"{result.source}: {remark}")
            advance(number, total)

        counts = restore_folder(
            restorer, source, target, overwrite=overwrite, on_result=on_result, **options
        )
    say(
        f"{counts.restored} restored, {counts.skipped} skipped (there already), "
        f"{counts.failed} failed"
    )
    if counts.unread:
        say(shown(counts.unread))
    return 1 if counts.failed else 0
