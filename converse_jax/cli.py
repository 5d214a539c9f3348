"""The command `converse-jax`.

Exit status: 0; 1 if some images of a folder failed; 2 for a mistake in the command or its files,
with a one-line message; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from converse_jax._version import __version__
from converse_jax.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from converse_jax.demo import Example, Restoration
    from converse_jax.restore import Plan, Restorer
    from converse_jax.restore_files import AnyRestorer, FileResult
    from converse_jax.weights import ModelCard

_APP_PACKAGES = {"PIL": "pillow", "imagecodecs": "imagecodecs", "skimage": "scikit-image"}
_FORMATS = ("png", "jpeg", "tiff", "webp", "bmp")


class UsageError(Exception):
    """A mistake in the command line, in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, the process's by default; return the exit status."""
    from converse_jax.imaging import ImageError
    from converse_jax.plugins import PluginError
    from converse_jax.restore import RestoreError
    from converse_jax.weights import WeightsError

    try:
        args = _parse(sys.argv[1:] if argv is None else list(argv))
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except (UsageError, ImageError, PluginError, RestoreError, WeightsError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        package = _APP_PACKAGES.get((error.name or "").split(".")[0])
        if package is None:
            raise
        return _fail(f'this needs the package {package}: pip install "converse-jax[app]"')
    except KeyboardInterrupt:
        _say("converse-jax: interrupted")
        return 130
    except BrokenPipeError:
        # The reader has gone: Python's last flush must not complain.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(str(error))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(message: str) -> int:
    _say("converse-jax: error: " + " ".join(message.split()))
    return 2


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, commands = _parsers()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command = commands[args.command]
        known = [option for action in command._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        hint = f": did you mean {near[0]}?" if near else f"; see converse-jax {args.command} --help"
        raise UsageError(f"{args.command} does not know {unknown[0]!r}{hint}")
    return args


def _parsers() -> tuple[_Parser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(
        prog="converse-jax",
        description="Restore images with reverse convolution networks.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"converse-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    def model(to: argparse.ArgumentParser, *, required: bool = True) -> None:
        text = "network: a name from `converse-jax models`, a .safetensors or an authors' .pth file"
        to.add_argument("--model", required=required, metavar="M", help=text)
        text = "Python file or module to run first, which registers the network of --model"
        to.add_argument("--plugin", action="append", default=[], metavar="NETWORK.PY", help=text)

    def overwrite(to: argparse.ArgumentParser) -> None:
        to.add_argument("--overwrite", action="store_true", help="replace existing files")

    restore = command("restore", _restore, "restore an image, or the images of a folder")
    restore.add_argument("source", metavar="IN", help="image, folder, or - for standard input")
    restore.add_argument("target", metavar="OUT", help="image, folder, or - for standard output")
    restore.add_argument(
        "--task",
        choices=("photo", "denoise", "sr", "deblur"),
        help="use the bundled network that improves a photograph (default), removes noise "
        "of one level, enlarges, or reverses a known blur",
    )
    model(restore, required=False)
    restore.add_argument(
        "--sigma",
        type=_sigma,
        default="auto",
        metavar="S",
        help="noise standard deviation, 0-255 scale, or auto (default): estimate it per image",
    )
    restore.add_argument(
        "--scale", type=int, choices=(2, 4), help="enlargement factor of --task sr (default 2)"
    )
    restore.add_argument(
        "--strength",
        type=_strength,
        default=1.0,
        metavar="T",
        help="blend with the original, from 0 (unchanged) to 1 (default: fully restored)",
    )
    restore.add_argument(
        "--kernel",
        metavar="K.NPY",
        help="blur kernel to reverse (true convolution), for a network that takes one",
    )
    restore.add_argument(
        "--self-ensemble",
        action="store_true",
        help="average over the 8 rotations and reflections: 8 times slower",
    )
    restore.add_argument(
        "--no-extend-borders",
        action="store_true",
        help="do not extend the borders before deblurring: the blur was circular",
    )
    restore.add_argument(
        "--format", choices=_FORMATS, help="image format of standard output (default png)"
    )
    overwrite(restore)

    evaluate = command("evaluate", _evaluate, "measure a model by the protocol of the paper")
    model(evaluate)
    evaluate.add_argument(
        "--task",
        required=True,
        choices=("denoise", "sr", "deblur"),
        help="degradation to apply and to reverse",
    )
    evaluate.add_argument("--data", required=True, metavar="DIR", help="folder of clean images")
    evaluate.add_argument(
        "--sigma",
        type=float,
        metavar="S",
        help="noise standard deviation, 0-255 scale (default 25 to denoise, 2.55 to deblur)",
    )
    evaluate.add_argument("--kernel", metavar="K.NPY", help="blur kernel of the task deblur")
    evaluate.add_argument("--json", metavar="OUT.JSON", help="JSON file for the figures")
    overwrite(evaluate)

    command("models", _models, "list the models that come with this package")

    convert = command("convert", _convert, "turn the authors' .pth weights into .safetensors")
    convert.add_argument("source", metavar="IN.PTH", help="authors' weights to read")
    convert.add_argument("target", metavar="OUT.SAFETENSORS", help="file to write")
    overwrite(convert)

    demo = command("demo", _demo, "restore photographs with the bundled networks, side by side")
    demo.add_argument("--out", default=".", metavar="OUT", help="image to make, or its folder")
    demo.add_argument(
        "--operator",
        action="store_true",
        help="reverse a blur and a down-sampling with the operator alone, without a network",
    )
    overwrite(demo)
    return parser, dict(commands.choices)


def _sigma(text: str) -> float | None:
    """A noise level on the scale of 0 to 255; None for auto."""
    if text == "auto":
        return None
    return _number(text, 0, 255, "a noise level from 0 to 255, or auto")


def _strength(text: str) -> float:
    return _number(text, 0, 1, "a number from 0 to 1")


def _number(text: str, low: float, high: float, expected: str) -> float:
    with contextlib.suppress(ValueError):
        if low <= (number := float(text)) <= high:
            return number
    raise argparse.ArgumentTypeError(f"got {text!r}; expected {expected}")


def _restorer(args: argparse.Namespace) -> tuple[Restorer, np.ndarray | None]:
    """The model and the kernel that the command names."""
    from converse_jax import compilation_cache
    from converse_jax.plugins import load_plugin
    from converse_jax.restore import Restorer
    from converse_jax.weights import load

    for plugin in args.plugin:
        load_plugin(plugin)
    kernel = None if args.kernel is None else read_kernel(args.kernel)
    compilation_cache.enable()
    return Restorer(*load(args.model)), kernel


def _bundled_restorer(args: argparse.Namespace) -> tuple[AnyRestorer, np.ndarray | None]:
    """The bundled networks for the command's task, and the kernel."""
    from converse_jax import compilation_cache
    from converse_jax.bundled import BundledRestorer, BundledTask

    task: BundledTask = args.task or "photo"
    if task == "deblur" and args.kernel is None:
        raise UsageError("--task deblur needs the blur: give --kernel K.NPY")
    if task != "deblur" and args.kernel is not None:
        raise UsageError(f"--kernel is for --task deblur, got --task {task}")
    if task not in ("photo", "denoise") and args.sigma is not None:
        raise UsageError(f"--sigma is for --task photo and denoise, got --task {task}")
    kernel = None if args.kernel is None else read_kernel(args.kernel)
    compilation_cache.enable()
    return BundledRestorer(task, scale=args.scale), kernel


def read_kernel(path: str | os.PathLike[str]) -> np.ndarray:
    """A blur kernel from a `.npy` file, divided by its sum.

    Raises:
        RestoreError: the file cannot be read or holds no kernel.
    """
    import numpy as np

    from converse_jax.restore import RestoreError, normalized_kernel

    try:
        with Path(path).open("rb") as file:
            # Pickles are programs, and an .npz is not one array.
            array = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise RestoreError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, EOFError, SyntaxError, MemoryError):
        raise RestoreError(
            f"{path}: is not a .npy file of numbers; write one with numpy.save(path, kernel)"
        ) from None
    try:
        kernel, notes = normalized_kernel(array)
    except RestoreError as error:
        raise RestoreError(f"{path}: {error}") from None
    for note in notes:
        _say(f"{path}: {note}")
    return kernel


def _restore(args: argparse.Namespace) -> int:
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
    if args.model is not None and (args.task or args.scale):
        option = "--task" if args.task else "--scale"
        raise UsageError(f"{option} chooses a bundled network: leave it out, or --model")
    restorer: AnyRestorer
    restorer, kernel = (_restorer if args.model is not None else _bundled_restorer)(args)
    if kernel is not None:
        kernel, notes = restorer.prepare_kernel(kernel)
        for note in notes:
            _say(note)
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
    _say_plan(restore_file(restorer, given, target, overwrite=args.overwrite, **options))
    return 0


def _say_plan(plan: Plan) -> None:
    for line in (*plan.notes, *(() if plan.noise is None else (plan.noise,))):
        _say(line)


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
                _say(f"failed: {result.reason}")
            if result.plan is not None:
                for note in result.plan.notes:
                    if note not in said:
                        _say(note)
                    said.add(note)
                if result.plan.noise is not None:
                    _say(f"{result.source}: {result.plan.noise}")
            advance(number, total)

        counts = restore_folder(
            restorer, source, target, overwrite=overwrite, on_result=on_result, **options
        )
    _say(
        f"{counts.restored} restored, {counts.skipped} skipped (there already), "
        f"{counts.failed} failed"
    )
    return 1 if counts.failed else 0


def _evaluate(args: argparse.Namespace) -> int:
    from converse_jax.evaluate import METRICS, Row, check_report_path, evaluate, write_report

    if args.json is not None:
        check_report_path(args.json, overwrite=args.overwrite)
    elif args.overwrite:
        raise UsageError("--overwrite is for the file of --json, and there is none")
    restorer, kernel = _restorer(args)

    def line(name: str, figures: Any) -> str:
        values = (f"{figures[m]:>9.{4 if m.startswith('ssim') else 2}f}" for m in METRICS)
        return f"{name:<32}" + "".join(values)

    print(f"{'':<32}" + "".join(f"{metric:>9}" for metric in METRICS), flush=True)
    with progress_bar("evaluating") as advance:

        def on_result(row: Row, number: int, total: int) -> None:
            print(line(row["name"], row), flush=True)
            advance(number, total)

        report = evaluate(
            restorer,
            args.data,
            task=args.task,
            sigma=args.sigma,
            kernel=kernel,
            on_result=on_result,
        )
    print(line(f"mean of {len(report['images'])}", report["mean"]))
    for note in report["notes"]:
        _say(note)
    if args.json is not None:
        write_report(args.json, report, overwrite=args.overwrite)
    return 0


def _models(args: argparse.Namespace) -> int:
    from converse_jax.weights import list_models

    cards = list_models()
    for name, card in cards.items():
        print(f"{name:<28} {card.architecture:<17} {_purpose(card):<41} {card.license}")
    if not cards:
        print("No models come with this version of converse-jax.")
        print("Give the path of weights instead: the authors' .pth files, or our .safetensors:")
        print("  converse-jax restore in.png out.png --model converse_dncnn.pth")
    return 0


def _purpose(card: ModelCard) -> str:
    kind = "color" if card.channels == 3 else "gray"
    if card.task == "sr":
        return f"x{card.scale} super-resolution, {kind}"
    kernel = ", kernel given" if card.needs_kernel else ""
    sigma = "" if card.sigma is None else f", sigma {card.sigma:g}"
    if card.sigma_range is not None:
        sigma = ", sigma {:g} to {:g}".format(*card.sigma_range)
    return f"{card.task}, {kind}{sigma}{kernel}"


def _convert(args: argparse.Namespace) -> int:
    from converse_jax.weights import WeightsError, load, save

    if Path(args.target).suffix != ".safetensors":
        raise UsageError(f"{args.target}: the name of OUT must end in .safetensors")
    if os.path.lexists(args.target) and not args.overwrite:
        raise WeightsError(
            f"{args.target}: exists already; name another file, or overwrite it (--overwrite)"
        )
    model, card = load(args.source)
    save(args.target, model, card, overwrite=args.overwrite)
    _say(f"{args.target}: {card.architecture}, {_purpose(card)}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from converse_jax import compilation_cache
    from converse_jax.demo import DEFAULT_NAME, choose_examples

    compilation_cache.enable()
    target = Path(args.out)
    if os.path.isdir(target):
        target = target / DEFAULT_NAME
    examples, missing = ([], []) if args.operator else choose_examples()
    if examples:
        _demo_networks(target, examples, args.overwrite)
        if missing:
            _say(f"left out, as their networks do not come with this package: {', '.join(missing)}")
    else:
        _demo_operator(target, args.overwrite)
        if not args.operator:
            _say("no network of the demo comes with this package: this is the operator alone")
    print(target)
    return 0


def _demo_networks(target: Path, examples: list[Example], overwrite: bool) -> None:
    from converse_jax import demo

    def on_result(result: Restoration) -> None:
        _print_gain(result.example.network, result.psnr_before, result.psnr_after)

    demo.demo_networks(target, examples, overwrite=overwrite, on_result=on_result)


def _demo_operator(target: Path, overwrite: bool) -> None:
    from converse_jax import demo

    deblurred, enlarged = demo.demo_operator(target, overwrite=overwrite)
    for what, x in (("deblurring", deblurred), ("super-resolution x2", enlarged)):
        _print_gain(what, x.psnr_before, x.psnr_after, f", lambda {x.lam:.2g}")


def _print_gain(name: str, before: float, after: float, more: str = "") -> None:
    line = f"{name:<20} {before:.2f} dB -> {after:.2f} dB ({after - before:+.2f} dB{more})"
    print(line, flush=True)
