"""`converse-jax export`."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from converse_jax.cli._arguments import (
    UsageError,
    add_overwrite,
    add_plugin,
    load_plugins,
    loaded,
    number,
)
from converse_jax.messages import say

SUMMARY = "write a network for other runtimes: ONNX, StableHLO, darktable"

_STABLEHLO = (".stablehlo", ".bin")
_ENDINGS = (".onnx", *_STABLEHLO, ".dtmodel")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a name from `converse-jax models`, a .safetensors or an authors' .pth file; two of "
        "them, which enlarge by 2 and 4, only for darktable",
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        help="file to write: .onnx, .stablehlo (or .bin), or denoise-NAME.dtmodel or "
        "upscale-NAME.dtmodel for darktable",
    )
    parser.add_argument(
        "--layout",
        choices=("nhwc", "nchw"),
        help="ONNX: order of the axes of images (default: nhwc; darktable's is nchw)",
    )
    parser.add_argument(
        "--sigma",
        type=functools.partial(number, low=0, high=255, expected="a level from 0 to 255"),
        metavar="S",
        help="ONNX and darktable: fix the noise level that the network is told, of 255",
    )
    parser.add_argument(
        "--scale",
        type=int,
        default=1,
        metavar="S",
        help="also enlarge by S, for Converse-USRNet alone (default: 1)",
    )
    add_plugin(parser, "MODEL")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from converse_jax.export import export_dtmodel, export_onnx, export_stablehlo
    from converse_jax.export._onnx import check_target

    ending = Path(args.target).suffix
    if ending not in _ENDINGS:
        raise UsageError(f"{args.target}: the name of OUT must end in {', '.join(_ENDINGS)}")
    if ending != ".dtmodel" and len(args.models) > 1:
        raise UsageError(f"MODEL: got {len(args.models)}; {ending} files hold one")
    if ending != ".onnx" and args.layout is not None:
        raise UsageError(f"--layout is for .onnx, not for {ending}")
    if ending in _STABLEHLO and args.sigma is not None:
        raise UsageError(f"--sigma is for .onnx and .dtmodel, not for {ending}")
    if ending == ".dtmodel" and args.scale != 1:
        raise UsageError("--scale is for .onnx and .stablehlo, not for .dtmodel")
    if args.scale < 1:
        raise UsageError(f"--scale: got {args.scale}; expected an integer of at least 1")
    check_target(args.target, overwrite=args.overwrite)
    load_plugins(args)
    networks = [loaded(name) for name in args.models]
    sigma = None if args.sigma is None else args.sigma / 255
    model, card = networks[0]
    if ending in _STABLEHLO:
        export_stablehlo(model, args.target, scale=args.scale, overwrite=args.overwrite)
        checked = "for CPU, CUDA and TPU"
    else:
        if ending == ".onnx":
            error = export_onnx(
                model,
                card,
                args.target,
                layout=args.layout or "nhwc",
                sigma=sigma,
                scale=args.scale,
                overwrite=args.overwrite,
            )
        else:
            error = export_dtmodel(networks, args.target, sigma=sigma, overwrite=args.overwrite)
        checked = (
            "not checked against the model: onnxruntime is not installed"
            if error is None
            else f"differs from the model by {error:.0e} at most"
        )
    size = Path(args.target).stat().st_size / 1e6
    what = " and ".join(f"{card.name} ({card.purpose})" for _, card in networks)
    say(f"{args.target}: {what}, {size:.1f} MB, {checked}")
    return 0
