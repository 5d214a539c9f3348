"""`python -m train.pack RUN OUT_DIR`: pack what is needed to resume a run into a few files.

`python -m train.pack --unpack PACKED_DIR RUN` turns them back into a run folder, which `--resume`
continues to the same bits. They hold the latest intact checkpoint, the configuration, the metrics,
and the report of a finished run, but neither earlier checkpoints nor TensorBoard events.

The files are manifest.json and step-STEP-HASH.zip.000, .001, ...: one ZIP file, cut into parts.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from converse_jax.atomic import write_bytes
from converse_jax.messages import one_line, say
from train.command import exit_status
from train.errors import TrainError
from train.json_file import write_object

MANIFEST = "manifest.json"
_FORMAT = "converse-jax packed run 1"
_STATE, _CHECKPOINT = "state.safetensors", "checkpoint.json"


def pack(run: Path, target: Path, *, max_mb: float = 15, overwrite: bool = False) -> dict[str, Any]:
    """Write the latest intact checkpoint of a run, and the files beside it, as a few files.

    Args:
        run: the run's folder; it is not changed.
        target: the folder to write to; other files in it stay.
        max_mb: largest size of a part, in 10^6 bytes.
        overwrite: replace an earlier pack there; one of the two exists at any time.

    Returns:
        The manifest: step, and name, bytes and sha256 of each part.

    Raises:
        TrainError: no such run, no whole checkpoint, something is packed there already, or the
            files cannot be written.
    """
    # Orbax takes a second to import: report a wrong path without waiting for it.
    from train.checkpoint import CHECKPOINT_DIR, Checkpoints
    from train.log import METRICS
    from train.run_folder import BEFORE_AFTER, CONFIG, INIT, SUMMARY

    if max_mb < 0.001:
        raise TrainError(f"--max-mb: got {max_mb:g}; expected at least 0.001")
    if (target / MANIFEST).exists() and not overwrite:
        raise TrainError(f"{target}: holds a packed run; name another, or replace it (--overwrite)")
    if not (run / CHECKPOINT_DIR).is_dir():
        raise TrainError(f"{run}: holds no checkpoints; give the folder of a run, e.g. runs/NAME")
    with Checkpoints(run, keep=1, read_only=True) as checkpoints:
        step, details, arrays = checkpoints.last_whole(say)
        try:
            psnr = checkpoints.psnr(step)
        except ValueError:  # the weights are whole
            psnr = None
    checkpoint = {"step": step, "psnr": psnr, "details": details}
    content = {
        _CHECKPOINT: json.dumps(checkpoint, sort_keys=True).encode(),
        _STATE: safetensors.numpy.save({k: np.asarray(x) for k, x in arrays.items()}),
    }
    for name in (CONFIG, INIT, METRICS, SUMMARY, BEFORE_AFTER):
        with contextlib.suppress(FileNotFoundError):
            content[name] = (run / name).read_bytes()
    if CONFIG not in content:
        raise TrainError(f"{run}: holds no {CONFIG}; give the folder of a run, e.g. runs/NAME")
    archive = _zipped(content)
    most = int(max_mb * 1e6)
    stem = f"step-{step}-{_sha256(archive)[:8]}.zip"
    parts = {
        f"{stem}.{i:03d}": archive[start : start + most]
        for i, start in enumerate(range(0, len(archive), most))
    }
    manifest = {
        "format": _FORMAT,
        "step": step,
        "parts": [
            {"name": name, "bytes": len(data), "sha256": _sha256(data)}
            for name, data in parts.items()
        ],
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, data in parts.items():
            write_bytes(target / name, data, overwrite=True)
        # Until now the earlier manifest and its parts are valid.
        write_object(target / MANIFEST, manifest)
        for path in target.glob("step-*.zip.[0-9][0-9][0-9]"):
            if path.name not in parts:
                path.unlink()
    except OSError as error:
        raise TrainError(f"{target}: cannot be written to ({error.strerror})") from None
    return manifest


def unpack(packed: Path, run: Path, *, overwrite: bool = False) -> int:
    """Turn what `pack` wrote back into a run's folder.

    Args:
        packed: the folder with the manifest and the parts.
        run: the folder to make; it appears only when complete.
        overwrite: replace an existing run's folder.

    Returns:
        The step of its checkpoint.

    Raises:
        TrainError: a part is missing or damaged, or the folder exists already or cannot be written.
    """
    from train.checkpoint import CHECKPOINT_DIR, Checkpoints, checksum
    from train.run_folder import CONFIG, others

    if os.path.lexists(run) and not (run.is_dir() and not any(run.iterdir())):
        if not overwrite:
            raise TrainError(f"{run}: exists already; name another, or replace it (--overwrite)")
        if not (run / CONFIG).is_file():
            raise TrainError(f"{run}: is not the folder of a run, and stays; name another")
        if strangers := others(run):
            raise TrainError(
                f"{run}: holds {strangers[0]}, which is no part of a run, and stays; move it away, "
                "or name another folder"
            )
    content = _read(packed)
    checkpoint = json.loads(content.pop(_CHECKPOINT))
    step, details = checkpoint["step"], checkpoint["details"]
    arrays = safetensors.numpy.load(content.pop(_STATE))
    # Compare what was packed with what the training wrote.
    for name, expected in details.pop("checksums").items():
        if name not in arrays or checksum(arrays[name]) != expected:
            raise TrainError(f"{packed}: array {name} is not what was written; pack the run again")
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        with _beside(run) as folder:
            made = folder / "new"
            (made / CHECKPOINT_DIR).mkdir(parents=True)
            for name, data in content.items():
                (made / name).write_bytes(data)
            with Checkpoints(made, keep=1) as checkpoints:
                checkpoints.save(step, arrays, details, checkpoint["psnr"])
            if os.path.lexists(run):
                os.replace(run, folder / "old")
            os.replace(made, run)
    except OSError as error:
        raise TrainError(f"{run}: cannot be written to ({error.strerror})") from None
    return int(step)


def _read(packed: Path) -> dict[str, bytes]:
    """The files in the archive by name; each part is compared with its checksum."""
    path = packed / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise TrainError(
                f"{path}: is of format {manifest['format']!r}, this reads {_FORMAT!r}; unpack it "
                "with the version that packed it"
            )
        parts = [(str(p["name"]), str(p["sha256"])) for p in manifest["parts"]]
    except FileNotFoundError:
        raise TrainError(f"{path}: is missing; give the folder that train.pack wrote") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainError(f"{path}: is damaged ({one_line(error, 200)}); copy it again") from None
    archive = b""
    for name, expected in parts:
        if Path(name).name != name:
            raise TrainError(f"{path}: names a part {name!r} in another folder; copy it again")
        try:
            data = (packed / name).read_bytes()
        except FileNotFoundError:
            raise TrainError(f"{packed / name}: is missing; copy it as well") from None
        except OSError as error:
            raise TrainError(f"{packed / name}: cannot be read ({error.strerror})") from None
        if _sha256(data) != expected:
            raise TrainError(f"{packed / name}: is damaged; copy it again")
        archive += data
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            content = {name: file.read(name) for name in file.namelist()}
    except zipfile.BadZipFile as error:
        raise TrainError(f"{path}: its parts are not an archive ({error}); copy it again") from None
    missing = {_CHECKPOINT, _STATE} - content.keys()
    if missing or any(Path(name).name != name for name in content):
        raise TrainError(f"{path}: its parts are not a packed run; copy it again")
    return content


def _zipped(content: dict[str, bytes]) -> bytes:
    """A ZIP file; equal content gives equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in content.items():
            # Without a date.
            file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@contextlib.contextmanager
def _beside(run: Path) -> Iterator[Path]:
    """A temporary folder on the same disk."""
    folder = Path(tempfile.mkdtemp(prefix=f".{run.name}.unpacking-", dir=run.parent))
    try:
        yield folder
    finally:
        if (folder / "old").exists() and not os.path.lexists(run):
            os.replace(folder / "old", run)
        shutil.rmtree(folder, ignore_errors=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return exit_status("train.pack", lambda: _run(argv), interrupted="interrupted; start it again")


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="the run's folder; with --unpack the packed one")
    parser.add_argument("target", type=Path, help="the folder to write; with --unpack the run's")
    parser.add_argument("--unpack", action="store_true", help="unpack instead")
    parser.add_argument("--max-mb", type=float, help="largest part, in 10^6 bytes (default: 15)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    args = parser.parse_args(argv)
    if args.unpack:
        if args.max_mb is not None:
            raise TrainError("--max-mb: the parts have their size; leave it out with --unpack")
        step = unpack(args.source, args.target, overwrite=args.overwrite)
        print(f"{args.target}: a run after step {step}; go on with --run and --resume")
        return 0
    max_mb = 15 if args.max_mb is None else args.max_mb
    done = pack(args.source, args.target, max_mb=max_mb, overwrite=args.overwrite)
    sizes = [part["bytes"] for part in done["parts"]]
    print(
        f"{args.target}: step {done['step']} in {len(sizes)} parts of at most "
        f"{max(sizes) / 1e6:.2f} MB, together {sum(sizes) / 1e6:.2f} MB, and {MANIFEST}"
    )
    return 0


if __name__ == "__main__":
    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    sys.exit(main())
