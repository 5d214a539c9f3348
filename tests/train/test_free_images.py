"""Free photographs of packages, collected from stand-ins for the packages."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converse_jax.imaging import list_images, read_image
from train import prepare, sources
from train.errors import TrainError
from train.free_images import NOTICE, PHOTOGRAPHS, Collected, Photograph, collect, installed_roots

FREE = re.compile(
    r"CC0-1\.0|CC-BY(-SA)?-[234]\.0|L?GPL-[23]\.[01]-(only|or-later)|BSD-2-Clause|public domain"
    r"|no known copyright restrictions"
)


def encoded(height: int, width: int, format: str, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, format)
    return out.getvalue()


def archive(*entries: tuple[str, bytes]) -> bytes:
    """An EET archive, as Enlightenment's themes are."""
    start = 12 + 24 * len(entries)
    names = b"".join(name.encode() + b"\0" for name, _ in entries)
    head, body = struct.pack(">3I", 0x1EE70F42, len(entries), 0), b""
    for name, data in entries:
        offset = start + len(names) + len(body)
        where = start + names.index(name.encode() + b"\0")
        head += struct.pack(">6I", offset, len(data), len(data), where, len(name) + 1, 0)
        body += data
    return head + names + body


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """Every package, with small images; scikit-learn and one file of another are missing."""
    roots = {"share": tmp_path / "share", "skimage": tmp_path / "skimage"}
    for photograph in PHOTOGRAPHS:
        root, _, below = photograph.path.partition("/")
        if root not in roots or photograph.title == "Kite":
            continue
        path = roots[root] / below
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".edj":
            small, large = encoded(7, 9, "JPEG"), encoded(14, 18, "JPEG")
            path.write_bytes(archive(("edje/images/0", small), ("edje/images/1", large)))
        else:
            path.write_bytes(encoded(14, 18, "PNG" if path.suffix == ".png" else "JPEG"))
    (tmp_path / "share" / "backgrounds" / "gradient.png").write_bytes(encoded(8, 8, "PNG"))
    return roots


def table(folder: Path) -> dict[str, list[str]]:
    lines = (folder / NOTICE).read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_what_is_listed_is_free_and_not_held_out() -> None:
    assert len({photograph.file for photograph in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    assert len({photograph.path for photograph in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    held_out = {Path(name).stem for name in sources._HELD_OUT}
    assert len(held_out) == 4
    for photograph in PHOTOGRAPHS:
        assert FREE.fullmatch(photograph.license), photograph
        assert photograph.author and photograph.title and photograph.factor in (1, 2, 4)
        assert Path(photograph.path).stem not in held_out
        assert re.fullmatch(r"[a-z0-9.-]+\.png", photograph.file)
        # An encoder that loses something is always made up for by a reduction.
        assert photograph.factor > 1 or photograph.path.endswith(".png")


def test_collects_reduced_photographs(tmp_path: Path, roots: dict[str, Path]) -> None:
    out = tmp_path / "new" / "free"
    done = collect(out, roots=roots)
    files = list_images(out)
    wanted = [p for p in PHOTOGRAPHS if p.package != "scikit-learn" and p.title != "Kite"]
    assert [path.name for path in files] == sorted(p.file for p in wanted)
    pixels = 0
    for photograph in wanted:
        height, width = read_image(out / photograph.file).pixels.shape[:2]
        factor = photograph.factor
        assert (height, width) == (-(-14 // factor), -(-18 // factor))
        with Image.open(out / photograph.file) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
        pixels += height * width
    assert done == Collected(
        len(wanted),
        pixels / 1e6,
        [
            "scikit-learn: 2 of 2 photographs missing; pip install scikit-learn",
            (
                "plasma-workspace-wallpapers: 1 of 11 photographs missing; this version of it does "
                "not carry them all; apt install plasma-workspace-wallpapers"
            ),
        ],
    )
    assert sorted(path.name for path in out.parent.iterdir()) == ["free"]


def test_licenses_are_written(tmp_path: Path, roots: dict[str, Path]) -> None:
    out = tmp_path / "free"
    collect(out, roots=roots)
    rows = table(out)
    assert sorted(rows) == [path.name for path in list_images(out)]
    for photograph in PHOTOGRAPHS:
        if photograph.file not in rows:
            continue
        *facts, size, digest = rows[photograph.file]
        p = photograph
        assert facts == [p.title, p.author, p.license, p.package]
        data = (out / p.file).read_bytes()
        assert digest == f"`{hashlib.sha256(data).hexdigest()}`"
        assert size == f"{-(-18 // p.factor)}x{-(-14 // p.factor)}"


def test_same_bits_twice(tmp_path: Path, roots: dict[str, Path]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        collect(out, roots=roots)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    assert len(list(first.iterdir())) == len(list(second.iterdir()))


def test_reduction_is_antialiased_and_whole(tmp_path: Path) -> None:
    stripes = np.zeros((9, 31), np.uint8)
    stripes[:, 1::2] = 200  # at half the size they are an even gray, not black or white
    (tmp_path / "a").mkdir()
    Image.fromarray(stripes).save(tmp_path / "a" / "stripes.png")
    photograph = Photograph("package", "a/stripes.png", "Stripes", "me", "CC0-1.0", 2)
    collect(tmp_path / "out", roots={"a": tmp_path / "a"}, photographs=[photograph])
    with Image.open(tmp_path / "out" / "package-stripes.png") as image:
        assert (image.mode, image.size) == ("L", (16, 5))
        assert np.abs(np.asarray(image, float)[:, 2:-2] - 100).max() <= 1


def test_existing_folder(tmp_path: Path, roots: dict[str, Path]) -> None:
    out = tmp_path / "free"
    out.mkdir()
    collect(out, roots=roots)  # an empty folder is as good as none
    before = table(out)
    with pytest.raises(TrainError, match=r"free: got a folder that is not empty; expected a new"):
        collect(out, roots=roots)
    (roots["share"] / "backgrounds" / "Dragonfly_by_Bolly.jpg").unlink()
    collect(out, roots=roots, overwrite=True)
    assert before.keys() - table(out).keys() == {"lomiri-wallpapers-16.04-dragonfly.png"}
    assert not (out / "lomiri-wallpapers-16.04-dragonfly.png").exists()
    (out / "mine.png").write_bytes(b"mine")
    with pytest.raises(TrainError, match=r"got mine\.png, which is not from train\.prepare free"):
        collect(out, roots=roots, overwrite=True)
    assert (out / "mine.png").read_bytes() == b"mine"
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(out)
    for name in ("file", "link"):
        with pytest.raises(TrainError, match="got a file or a link; expected the name of a new"):
            collect(tmp_path / name, roots=roots, overwrite=True)


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"got no photographs.*at least one of scikit-image, "):
        collect(tmp_path / "free", roots={"share": tmp_path})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("backgrounds/Dragonfly_by_Bolly.jpg", b"\xff\xd8\xff", ""),
        ("enlightenment/data/backgrounds/Bamboo.edj", b"\x1e", "unpack_from requires"),
        ("enlightenment/data/backgrounds/Bamboo.edj", b"\0" * 99, "not an EET archive"),
        ("enlightenment/data/backgrounds/Bamboo.edj", archive(("a", b"b")), "no JPEG in it"),
    ],
)
def test_damaged_file_leaves_nothing(
    tmp_path: Path, roots: dict[str, Path], name: str, content: bytes, reason: str
) -> None:
    (roots["share"] / name).write_bytes(content)
    out = tmp_path / "out" / "free"
    with pytest.raises(TrainError, match=rf"{name}: got a damaged file \(.*{reason}.* again"):
        collect(out, roots=roots)
    assert list(out.parent.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path: Path, roots: dict[str, Path]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrainError, match="free: cannot be written"):
        collect(tmp_path / "file" / "free", roots=roots)


def test_roots_of_this_machine() -> None:
    roots = installed_roots()
    assert roots["share"] == Path("/usr/share")
    for photograph in PHOTOGRAPHS:
        root, _, below = photograph.path.partition("/")
        if root == "skimage":
            assert (roots[root] / below).is_file()


def test_command(
    tmp_path: Path,
    roots: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("train.free_images.installed_roots", lambda: roots)
    monkeypatch.setattr("train.prepare.import_tfds", lambda: pytest.fail("TFDS is not needed"))
    out = tmp_path / "free of charge"
    assert prepare.main(["free", str(out)]) == 0
    told = capsys.readouterr()
    assert told.out == f"--data.train '{out}'\n"
    lines = told.err.splitlines()
    assert lines[0] == "scikit-learn: 2 of 2 photographs missing; pip install scikit-learn"
    assert lines[-1].startswith(f"collected: {out}, {len(list_images(out))} photographs, ")
    assert len(lines) == 3
    assert prepare.main(["free", str(out)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"train.prepare: error: {out}: got a folder that is not empty")
    assert prepare.main(["free", str(out), "--overwrite"]) == 0
    source = sources.open_source(os.fspath(out))
    assert len(source) == len(list_images(out))
    roots.clear()
    capsys.readouterr()
    assert prepare.main(["free", str(tmp_path / "none")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "got no photographs" in line


def test_terminal_gets_a_bar(
    tmp_path: Path, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("train.free_images.installed_roots", lambda: roots)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert prepare.main(["free", str(tmp_path / "free")]) == 0
    assert "100%" in terminal.getvalue().split("missing")[0]
