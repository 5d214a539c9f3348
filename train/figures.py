r"""`python -m train.figures`: figures 2, 4, 5 and 6 of the paper, from any weights.

  python -m train.figures 2 --weights converse_dncnn.pth --image Set12/05.png
  python -m train.figures 4 --weights converse_dncnn.pth dncnn.safetensors --image Set12/05.png
  python -m train.figures 5 --weights converse_srresnet.pth --image Set5/bird.png
  python -m train.figures 6 --weights converse_usrnet.pth Ours=deblur conversenet.pth \
      --image building.png --kernel kernel_1.npy

2: maps Y of a block, its kernels K, the results X* of the reverse convolution, what they explain,
X* (*) K, and what is left. 4: noise that rises from 0 at the left to 50 at the right. 5:
super-resolution. 6: deblurring. Weights are files or names that `converse_jax.load` takes, each
with a LABEL= if wished. Writes OUT.png and OUT.pdf.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.block_figure import draw_block
from train.command import exit_status
from train.errors import TrainError
from train.panel_figure import Network, draw_panels

TASKS = {2: "denoise", 4: "denoise", 5: "sr", 6: "deblur"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return exit_status(
        "train.figures",
        lambda: _run(_parser().parse_args(argv)),
        interrupted="interrupted; nothing was written",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("figure", type=int, choices=list(TASKS), help="number of the figure in the paper")
    add("--weights", nargs="+", required=True, metavar="[LABEL=]FILE", help="networks to show")
    add("--image", required=True, metavar="FILE", help="clean image")
    add("--kernel", metavar="FILE", help="blur of figure 6")
    add("--block", type=int, metavar="N", help="block of figure 2, from 1 (default: the middle)")
    add(
        "--channels",
        type=int,
        nargs="+",
        metavar="N",
        help="channels of figure 2, from 0 (default: the three of highest contrast)",
    )
    add(
        "--detail",
        type=int,
        nargs=3,
        metavar=("ROW", "COLUMN", "SIDE"),
        help="square that is magnified (default: the busiest)",
    )
    add("--out", type=Path, help="files to write, without a suffix (default: runs/figures/figureN)")
    add("--overwrite", action="store_true", help="replace existing files")
    return parser


def _run(args: argparse.Namespace) -> int:
    from converse_jax.atomic import write_bytes
    from converse_jax.imaging import ImageError
    from converse_jax.messages import exists_already
    from converse_jax.restore import RestoreError
    from converse_jax.weights import WeightsError

    out = args.out or Path(f"runs/figures/figure{args.figure}")
    files = [out.with_name(out.name + suffix) for suffix in (".png", ".pdf")]
    if not args.overwrite:
        for file in files:
            if file.exists():
                raise TrainError(exists_already(file))
    _check_options(args)
    try:
        figure = _figure(args)
    except (ImageError, RestoreError, WeightsError) as error:
        raise TrainError(str(error)) from None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for file in files:
            drawn = io.BytesIO()
            # Without a date the same figure is the same file.
            fixed = {"CreationDate": None} if file.suffix == ".pdf" else None
            figure.savefig(drawn, format=file.suffix[1:], dpi=200, metadata=fixed)
            write_bytes(file, drawn.getvalue(), overwrite=args.overwrite)
    except OSError as error:
        raise TrainError(f"{out}: cannot be written ({error.strerror})") from None
    print(f"{files[0]}, {files[1]}")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Options that would be ignored, or are missing."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
    for name, figure in (("kernel", 6), ("block", 2), ("channels", 2)):
        if getattr(args, name) is not None and args.figure != figure:
            raise TrainError(f"--{name}: belongs to figure {figure}; leave it out")
    if args.figure == 2 and args.detail is not None:
        raise TrainError("--detail: belongs to figures 4, 5 and 6; leave it out")
    if args.figure == 2 and len(args.weights) > 1:
        raise TrainError(f"--weights: got {len(args.weights)} files; figure 2 shows one network")
    if args.figure == 6 and args.kernel is None:
        raise TrainError("--kernel: figure 6 blurs the image; give the kernel")


def _figure(args: argparse.Namespace) -> Any:
    from converse_jax.imaging import KernelError, read_image, read_kernel, to_reference_uint8

    networks = [_loaded(text) for text in args.weights]
    for label, _, card in networks:
        if card.task != TASKS[args.figure]:
            raise TrainError(
                f"--weights: {label} is a network for {card.task!r}; figure {args.figure} shows "
                f"{TASKS[args.figure]!r}"
            )
    if len(channels := {card.channels for _, _, card in networks}) > 1:
        raise TrainError("--weights: got networks for gray and for color images; expected one kind")
    clean = to_reference_uint8(read_image(args.image).pixels, channels.pop())
    name = Path(args.image).name
    if args.figure == 2:
        return draw_block(networks[0], clean, name=name, number=args.block, channels=args.channels)
    kernel = None
    if args.kernel is not None:
        try:
            kernel, _ = read_kernel(args.kernel)
        except KernelError as error:
            raise TrainError(f"--kernel: {error}") from None
    return draw_panels(args.figure, networks, clean, name=name, kernel=kernel, detail=args.detail)


def _loaded(text: str) -> Network:
    """The network of "[LABEL=]FILE"."""
    from converse_jax import load

    label, equals, file = text.rpartition("=")
    model, card = load(file)
    return Network(label if equals else card.architecture, model, card)


if __name__ == "__main__":
    sys.exit(main())
