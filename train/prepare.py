"""Prepare images on this machine as a TFDS data set, without TensorFlow and without a download.

    python -m train.prepare folder SOURCE_DIR --name bsd400 [--tile 480 --step 240]
    python -m train.prepare div2k EXTRACTED_DIR [--config bicubic_x4]

or collect the free photographs that installed packages carry, as a folder of PNG files:

    python -m train.prepare free OUT_DIR

Each prints the value for --data.train. Exit status: 0; 2 for a user error, with a one-line message;
130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from converse_jax.imaging import Image, ImageError, encode_image, list_images, read_image
from converse_jax.messages import one_line, printable
from converse_jax.progress import progress_bar
from train.command import exit_status
from train.errors import TrainError
from train.free_images import collect
from train.tfds_source import data_root, import_tfds, prepared_in

SHARD_BYTES = 128 << 20
"""Approximate size of a record file; as much is held in memory at a time."""


class Item(NamedTuple):
    """A source image: one example or, cut into tiles, several."""

    name: str
    paths: tuple[Path, ...]
    expected_bytes: float


class Plan(NamedTuple):
    """A data set to write: its names in TFDS, and its content."""

    name: str
    config: str
    version: str
    features: dict[str, str]  # name in an example -> class in tfds.features
    splits: dict[str, list[Item]]
    examples: Callable[[Item], list[dict[str, Any]]]
    fingerprint: str  # changes when the source does


def plan_folder(source: str | os.PathLike[str], name: str, *, tile: int = 0, step: int = 0) -> Plan:
    """Plan a data set of a folder's images, stored losslessly as 8-bit gray or RGB without alpha.

    Its config is named after the tiles and the state of the folder, so that one name always
    stands for the same pixels.

    Args:
        source: the folder; subfolders are included.
        name: name of the data set: lowercase letters, digits and underscores.
        tile: side in pixels of the squares into which larger images are cut, the last ones aligned
            to the edge, so that a training crop is read without decoding a whole large image; 0
            does not cut.
        step: distance from one tile to the next, in pixels.

    Raises:
        TrainError: no images, or an invalid name or sizes.
        ImageError: there is no such folder.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise TrainError(f"--name: got {name!r}; expected a-z, digits and underscores")
    if (tile or step) and not 1 <= step <= tile:
        raise TrainError(f"--tile, --step: got {tile} and {step}; expected both, 1 <= step <= tile")
    root = Path(source)
    paths = list_images(root)
    if not paths:
        raise TrainError(f"{root}: holds no images; give a folder with PNG, JPEG or TIFF files")
    overlap = (tile / step) ** 2 if tile else 1
    items = []
    for path in paths:
        # PNG takes about five times the room of a photograph's JPEG.
        growth = overlap * (5 if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else 1)
        items.append(Item(_name_below(root, path), (path,), path.stat().st_size * growth))

    def examples(item: Item) -> list[dict[str, Any]]:
        pixels = read_image(item.paths[0]).pixels
        return [
            {"image": encode_image(Image(part), "png"), "name": item.name + where}
            for where, part in _tiles(pixels, tile, step)
        ]

    fingerprint = _fingerprint(root, paths)
    config = (f"tile{tile}-step{step}" if tile else "whole") + f"-{fingerprint}"
    features = {"image": "Image", "name": "Text"}
    return Plan(name, config, "1.0.0", features, {"train": items}, examples, fingerprint)


def plan_div2k(source: str | os.PathLike[str], config: str) -> Plan:
    """Plan TFDS's own data set "div2k" from the extracted archives; the files are stored as is.

    Args:
        source: the folder that holds DIV2K_train_HR and the other extracted folders.
        config: one of TFDS's, such as "bicubic_x4".

    Raises:
        TrainError: an unknown config, a missing folder, images without a partner.
    """
    configs = import_tfds().builder_cls("div2k").builder_configs
    if config not in configs:
        raise TrainError(f"--config: got {config!r}; expected one of {', '.join(configs)}")
    root, version = Path(source), str(configs[config].version)
    splits = {
        "train": _div2k_items(root, "train", config),
        "validation": _div2k_items(root, "valid", config),
    }

    def examples(item: Item) -> list[dict[str, Any]]:
        for path in item.paths:
            read_image(path)  # find damaged files now, not in the middle of training
        high, low = (path.read_bytes() for path in item.paths)
        return [{"hr": high, "lr": low}]

    paths = [path for items in splits.values() for item in items for path in item.paths]
    features = {"lr": "Image", "hr": "Image"}
    return Plan("div2k", config, version, features, splits, examples, _fingerprint(root, paths))


def _div2k_items(root: Path, short: str, config: str) -> list[Item]:
    kind, scale = config.rsplit("_x", 1)
    if kind.startswith("realistic_"):
        low = f"LR_{kind.removeprefix('realistic_')}"
    else:
        low = "LR_x8" if scale == "8" else f"LR_{kind}/X{scale}"
    high_root, low_root = root / f"DIV2K_{short}_HR", root / f"DIV2K_{short}_{low}"
    for folder in (high_root, low_root):
        if not folder.is_dir():
            raise TrainError(
                f"{folder}: there is no such folder; extract the archives of DIV2K for {config} "
                f"into {root}, or use the large images alone: python -m train.prepare folder "
                f"{root / 'DIV2K_train_HR'} --name div2k_hr"
            )
    items, partners = [], set()
    for path in list_images(low_root):
        high = high_root / f"{path.name[:4]}.png"  # 0001x4.png is made from 0001.png
        if not high.is_file():
            raise TrainError(f"{path}: its original {high} is missing; extract DIV2K again")
        partners.add(high)
        items.append(Item(path.name, (high, path), high.stat().st_size + path.stat().st_size))
    alone = sorted({*list_images(high_root)} - partners)
    if alone or not items:
        raise TrainError(
            f"{[*alone, high_root][0]}: nothing in {low_root} belongs to it; extract DIV2K again"
        )
    return items


def _name_below(root: Path, path: Path) -> str:
    # A name need not be UTF-8 on disk, but must be in a record.
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "replace")


def _fingerprint(root: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(os.fsencode(path.relative_to(root).as_posix()))
        digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:10]


def _tiles(pixels: Any, tile: int, step: int) -> Iterator[tuple[str, Any]]:
    height, width = pixels.shape[:2]
    if not tile or max(height, width) <= tile:
        yield "", pixels
        return
    for y in [*range(0, height - tile, step), max(0, height - tile)]:
        for x in [*range(0, width - tile, step), max(0, width - tile)]:
            yield f"[{y}:,{x}:]", pixels[y : y + tile, x : x + tile]


def prepare(
    plan: Plan, root: Path, advance: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Path, bool]:
    """Write a data set below a folder, completely or not at all.

    Args:
        plan: what to write; a data set from another state of the source is replaced at the end.
        root: the folder of prepared data sets; made if missing.
        advance: called with the number of items done and in total.

    Returns:
        The folder of the data set, and whether it was written now, False if it was there already.

    Raises:
        TrainError: something else is in its place, or it cannot be written.
        ImageError: an image that cannot be read.
    """
    target = root / plan.name / plan.config / plan.version
    if target.exists():
        written = _written_fingerprint(target)
        if written == plan.fingerprint:
            return target, False
        if written is None:
            raise TrainError(
                f"{target}: is there already, and not from train.prepare; use it as it is, remove "
                "it, or give another --data-dir"
            )
    import_tfds()
    try:
        root.mkdir(parents=True, exist_ok=True)
        # A hidden folder is never taken for a data set, even if this process is killed.
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=root) as staging:
            with _silence():
                builder = _builder(plan, Path(staging), advance)
                builder.download_and_prepare()
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(Path(staging, "replaced"))
            Path(builder.data_path).rename(target)
    except (OSError, RuntimeError) as error:  # the latter from the writer of ArrayRecord
        reason = one_line(error)
        raise TrainError(
            f"{root}: cannot be written ({reason}); check its permissions and its free space"
        ) from None
    return target, True


def _written_fingerprint(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "metadata.json").read_text())["fingerprint"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _builder(plan: Plan, staging: Path, advance: Callable[[int, int], None]) -> Any:
    import tensorflow_datasets as tfds

    done, total = 0, sum(map(len, plan.splits.values()))

    def shard(items: list[Item]) -> Callable[[], Iterator[tuple[str, dict[str, Any]]]]:
        def generate() -> Iterator[tuple[str, dict[str, Any]]]:
            nonlocal done
            pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
            try:
                for item, examples in zip(items, pool.map(plan.examples, items), strict=True):
                    yield from ((item.name, example) for example in examples)
                    done += 1
                    advance(done, total)
            finally:  # after a damaged image or Ctrl-C, the rest is not worth waiting for
                pool.shutdown(cancel_futures=True)

        return generate

    # Not a GeneratorBasedBuilder: it sorts a split by hashed keys, beyond 1 GB through temporary
    # files that it opens with TensorFlow. Shards are written as they come, in the order of names.
    class Images(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        name = plan.name
        VERSION = tfds.core.Version(plan.version)

        def _info(self) -> Any:
            # Declared as RGB; a gray PNG is read by TFDS as three equal channels.
            features = {name: getattr(tfds.features, k)() for name, k in plan.features.items()}
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                metadata=tfds.core.MetadataDict(fingerprint=plan.fingerprint),
            )

        def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Any]]:
            return {
                split: [shard(part) for part in _shards(items)]
                for split, items in plan.splits.items()
            }

    config = tfds.core.BuilderConfig(name=plan.config)
    return Images(config=config, data_dir=staging, file_format="array_record")


def _shards(items: Sequence[Item]) -> list[list[Item]]:
    shards: list[list[Item]] = []
    room = 0.0
    for item in items:
        if not shards or item.expected_bytes > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(item)
        room -= item.expected_bytes
    return shards


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep TFDS from reporting on standard output and error."""
    import tensorflow_datasets as tfds
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TrainError(f"{message}; see python -m train.prepare --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, the process's by default; return the exit status."""
    return exit_status(
        "train.prepare",
        lambda: _run(_parse(argv)),
        interrupted="interrupted; nothing is left behind",
        mistakes=(ImageError, OSError),
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m train.prepare", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    shared = _Parser(add_help=False)
    shared.add_argument(
        "--data-dir", metavar="DIR", help="default: $TFDS_DATA_DIR, or ~/tensorflow_datasets"
    )
    folder = commands.add_parser("folder", parents=[shared], help="any folder of images")
    folder.add_argument("source", metavar="SOURCE_DIR")
    folder.add_argument("--name", required=True, help="data set name, such as bsd400")
    folder.add_argument(
        "--tile", type=int, default=0, help="cut larger images into squares of this size"
    )
    folder.add_argument("--step", type=int, default=0, help="distance between tiles")
    div2k = commands.add_parser("div2k", parents=[shared], help="DIV2K, already extracted")
    div2k.add_argument("source", metavar="EXTRACTED_DIR", help="holds DIV2K_train_HR and so on")
    div2k.add_argument("--config", default="bicubic_x4", help="variant (default: %(default)s)")
    free = commands.add_parser("free", help="free photographs of installed packages, to a folder")
    free.add_argument("target", metavar="OUT_DIR")
    free.add_argument("--overwrite", action="store_true", help="replace a folder this made")
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
    if args.command == "free":
        return _run_free(args)
    import_tfds()
    if args.command == "folder":
        plan = plan_folder(args.source, args.name, tile=args.tile, step=args.step)
    else:
        plan = plan_div2k(args.source, args.config)
    root = data_root(args.data_dir)
    with progress_bar(plan.name) as advance:
        target, new = prepare(plan, root, advance)
    print(printable(f"{'prepared' if new else 'already there'}: {target}"), file=sys.stderr)
    if new and args.command == "folder":
        # Earlier states of a folder stay: runs may refer to them.
        for other in prepared_in(root, plan.name):
            if other.folder != target:
                print(f"prepared earlier by this name: {other.folder}", file=sys.stderr)
    option = "" if args.data_dir is None else f" --data.tfds-dir {shlex.quote(args.data_dir)}"
    print(f"--data.train tfds:{plan.name}/{plan.config}{option}")
    return 0


def _run_free(args: argparse.Namespace) -> int:
    with progress_bar("free") as advance:
        done = collect(args.target, overwrite=args.overwrite, advance=advance)
    for line in done.missing:
        print(printable(line), file=sys.stderr)
    size = f"{done.images} photographs, {done.megapixels:.1f} megapixels"
    print(f"collected: {args.target}, {size}", file=sys.stderr)
    print(f"--data.train {shlex.quote(args.target)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
