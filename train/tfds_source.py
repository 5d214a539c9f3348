"""Images of a TFDS data set that was prepared as ArrayRecord, read without TensorFlow."""

from __future__ import annotations

import difflib
import importlib.util
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from converse_jax.messages import one_line
from train.errors import TrainError

_NAME = re.compile(r"([a-z]\w*)(?:/([\w+.-]+))?(?::(\d+\.\d+\.\d+))?", re.IGNORECASE | re.ASCII)
# What train.prepare adds to the name of a photograph for each of its tiles.
_TILE = re.compile(r"\[\d+:,\d+:\]$", re.ASCII)
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)


class Prepared(NamedTuple):
    """A finished data set on disk."""

    name: str
    config: str | None
    version: tuple[int, ...]
    folder: Path

    def __str__(self) -> str:
        return self.name if self.config is None else f"{self.name}/{self.config}"


class TfdsImages:
    """Random access to the encoded images of a prepared TFDS data set.

    Nothing is ever downloaded. Objects can be pickled, and read from several threads.
    """

    def __init__(self, spec: str, data_dir: str | None = None) -> None:
        """Open a data set.

        Args:
            spec: "NAME[/CONFIG][:VERSION][@SPLIT[@FEATURE]]", such as
                "div2k/bicubic_x4@train[:10]". CONFIG may be left out if only one is prepared. By
                default VERSION is the highest, SPLIT (as in TFDS, slices included) "train", and
                FEATURE the only image in an example, or "hr", or "image".
            data_dir: the folder of prepared data sets; by default $TFDS_DATA_DIR, or
                ~/tensorflow_datasets.

        Raises:
            TrainError: TFDS is not installed; the data set is unknown, not prepared, not in the
                format ArrayRecord, or incomplete; no such split or feature.
        """
        name, _, rest = spec.partition("@")
        split, _, feature = rest.partition("@")
        split = split or "train"
        match = _NAME.fullmatch(name)
        if match is None or "@" in feature:
            raise TrainError(
                f"tfds:{spec}: cannot be understood; write tfds:NAME[/CONFIG][:VERSION]"
                "[@SPLIT[@FEATURE]], for example tfds:div2k/bicubic_x4@train[:10]@hr"
            )
        tfds = import_tfds()
        data_set = _find(tfds, spec, match, data_root(data_dir))
        builder = _open_builder(tfds, spec, data_set)
        features = builder.info.features
        self._data_set, self._label = str(data_set), f"{data_set} {split}"
        self._feature = _image_feature(tfds, spec, features, feature)
        # Parse only what is used: TFDS would decode the other features too, needs TensorFlow for
        # some of them, and misreads palettes and alpha.
        parsed = {self._feature: features[self._feature]}
        # The name from train.prepare, which says what an image is a tile of.
        parsed |= {k: v for k, v in features.items() if k == "name" and _is_text(tfds, v)}
        self._parser = tfds.features.FeaturesDict(parsed)
        self._tile_of: dict[int, str | None] = {}
        self._decoders = {self._feature: tfds.decode.SkipDecoding()}
        self._records = _open_records(tfds, spec, builder, split)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"TfdsImages({self._label!r}, {len(self)} images)"

    def encoded(self, index: int) -> bytes:
        """An image file, as it is stored.

        Raises:
            IndexError: there is no such image.
            TrainError: the data set has been damaged or removed.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self._label}: got index {index} of {len(self)} images")
        try:
            record = self._records[index]
            example = self._parser.deserialize_example_np(record, decoders=self._decoders)
            if not example[self._feature]:
                raise ValueError("its file of records has been cut short")
            name = bytes(example.get("name", b"")).decode("utf-8", "replace")
            self._tile_of[index] = _TILE.sub("", name) if _TILE.search(name) else None
            return bytes(example[self._feature])
        except Exception as error:  # readers of damaged files raise almost anything
            raise TrainError(
                f"{self.name(index)}: cannot be read ({_reason(error)}); prepare the data set again"
            ) from None

    def open(self, index: int) -> BinaryIO:
        """An image file, as it is stored, open for reading; raises what `encoded` raises."""
        return _NamedBytes(self.encoded(index), self.name(index))

    def name(self, index: int) -> str:
        """Name of an image in messages: "div2k/bicubic_x4 train 17"."""
        return f"{self._label} {index}"

    def photograph(self, index: int) -> str:
        """The photograph it is a tile of, according to `train.prepare`, or its own name."""
        if index not in self._tile_of:
            self.encoded(index)
        tile_of = self._tile_of[index]
        # Without the split: other splits may hold further tiles of it.
        return self.name(index) if tile_of is None else f"{self._data_set} {tile_of}"

    def key(self, index: int) -> str:
        """Its index: the features of one example form a pair."""
        return str(index)


class _NamedBytes(io.BytesIO):
    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def import_tfds() -> Any:
    """The package tensorflow_datasets.

    Raises:
        TrainError: it cannot be imported, or cannot read ArrayRecord.
    """
    try:
        import tensorflow_datasets as tfds

        # If one of its own imports fails, it logs the error and remains as an empty module.
        _ = tfds.builder_from_directory
    except (ImportError, AttributeError) as error:
        raise TrainError(
            f'TFDS is not installed, or incomplete ({_reason(error)}): pip install -e ".[train]", '
            "or give a folder of images"
        ) from None
    if importlib.util.find_spec("array_record") is None:
        raise TrainError(
            "TFDS reads ArrayRecord with the package array_record, which exists for Linux only; "
            'there, pip install -e ".[train]"; elsewhere, give a folder of images'
        )
    return tfds


def data_root(data_dir: str | None) -> Path:
    """The folder of prepared data sets: the given one, or TFDS's own default."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(root).expanduser()


def prepared_in(root: Path, name: str = "*") -> list[Prepared]:
    """The finished data sets in a folder, of one name or of all."""
    prepared = []
    for depth in ("*", "*/*"):
        for features in root.glob(f"{name}/{depth}/features.json"):
            folder = features.parent
            parts = folder.relative_to(root).parts
            # While it writes, TFDS calls the folder incomplete.XXXX_1.0.0.
            if not _VERSION.fullmatch(parts[-1]) or parts[0].startswith("."):
                continue
            version = tuple(map(int, parts[-1].split(".")))
            config = parts[1] if len(parts) == 3 else None
            prepared.append(Prepared(parts[0], config, version, folder))
    return sorted(prepared, key=lambda p: (p.name, p.config or "", p.version))


def _find(tfds: Any, spec: str, match: re.Match[str], root: Path) -> Prepared:
    # Look only at files: TFDS would run the code of the data set, and might look for it on the
    # network.
    name, config, version = match.groups()
    there = prepared_in(root, name)
    fitting = [
        data_set
        for data_set in there
        if config in (None, data_set.config)
        and version in (None, ".".join(map(str, data_set.version)))
    ]
    configs = sorted({str(data_set) for data_set in fitting})
    if len(configs) > 1:
        raise TrainError(
            f"tfds:{spec}: {root} holds {', '.join(configs)}; name one of them, with tfds: before"
        )
    if fitting:
        return fitting[-1]
    known = set(tfds.list_builders(with_community_datasets=False))
    full = name if config is None else f"{name}/{config}"
    if name not in known and not there:
        names = known | {data_set.name for data_set in prepared_in(root)}
        close = difflib.get_close_matches(name.lower(), sorted(names), 3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise TrainError(
            f"tfds:{spec}: TFDS knows no {name!r}, and it is not in {root}; {hint}A folder of "
            f"images is prepared by: python -m train.prepare folder SOURCE_DIR --name {name}"
        )
    held = ", ".join(f"{d}:{'.'.join(map(str, d.version))}" for d in there)
    message = f"tfds:{spec}: is not prepared in {root}" + (
        f", which holds {held}; " if held else "; "
    )
    if name not in known:
        raise TrainError(
            f"{message}name one of these, or run python -m train.prepare folder SOURCE_DIR --name "
            f"{name} --data-dir {root}"
        )
    if name == "div2k":
        option = "" if config is None else f" --config {config}"
        raise TrainError(
            f"{message}extract DIV2K, then run python -m train.prepare div2k EXTRACTED_DIR{option} "
            f"--data-dir {root}"
        )
    raise TrainError(
        f"{message}nothing is downloaded here. On a machine with TensorFlow, run once "
        f"{_prepare_command(full)}, and copy ~/tensorflow_datasets/{name} to {root / name}"
    )


def _prepare_command(full_name: str) -> str:
    return (
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{full_name}', file_format='array_record').download_and_prepare()\""
    )


def _open_builder(tfds: Any, spec: str, data_set: Prepared) -> Any:
    try:
        builder = tfds.builder_from_directory(data_set.folder)
        formats = {format.value for format in builder.info.available_file_formats()}
    except ImportError as error:
        raise TrainError(
            f"tfds:{spec}: its features cannot be read without TensorFlow ({_reason(error)}); "
            "write its images to a folder, and train on that"
        ) from None
    except Exception as error:  # damaged JSON, features of another version of TFDS
        raise TrainError(
            f"tfds:{spec}: {data_set.folder} cannot be opened ({_reason(error)}); "
            "prepare or copy it again"
        ) from None
    if "array_record" not in formats:
        raise TrainError(
            f"tfds:{spec}: {data_set.folder} is prepared as {_listed(formats)}, which is read with "
            "TensorFlow only. On a machine with TensorFlow, convert it: python -m "
            "tensorflow_datasets.scripts.convert_format --out_file_format=array_record "
            f"--dataset_version_dir={data_set.folder}; or prepare it again in another folder: "
            f"{_prepare_command(str(data_set))}"
        )
    return builder


def _image_feature(tfds: Any, spec: str, features: Any, wanted: str) -> str:
    # Floating-point images of TFDS are bit patterns in a PNG, which no other reader knows.
    images = [
        name
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image) and feature.np_dtype in ("uint8", "uint16")
    ]
    if not images:
        raise TrainError(
            f"tfds:{spec}: has no images, only {_listed(features)}; give another data set"
        )
    if wanted and wanted not in images:
        raise TrainError(
            f"tfds:{spec}: has no images called {wanted!r}; give one of {_listed(images)}"
        )
    for name in (wanted, "hr", "image"):
        if name in images:
            return name
    if len(images) == 1:
        return images[0]
    raise TrainError(
        f"tfds:{spec}: has several images in an example, {_listed(images)}; add the one to "
        "learn from, as in tfds:NAME@train@FEATURE"
    )


def _is_text(tfds: Any, feature: Any) -> bool:
    return isinstance(feature, tfds.features.Text)


def _open_records(tfds: Any, spec: str, builder: Any, split: str) -> Any:
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError, AssertionError) as error:
        raise TrainError(
            f"tfds:{spec}: there is no split {split!r} ({_reason(error)}); give one of "
            f"{_listed(builder.info.splits)}, or a part of it such as train[:100]"
        ) from None
    if count == 0:
        raise TrainError(f"tfds:{spec}: the split {split!r} is empty; give a larger part")
    records = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    for part in builder.info.splits[split].file_instructions:
        if not os.path.isfile(part.filename):
            raise TrainError(
                f"tfds:{spec}: there is no file {part.filename}; copy or prepare it again"
            )
    return records


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _reason(error: Exception) -> str:
    return one_line(error)
