"""Restoring image files and folders of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converse_jax import _programs, restore_files
from converse_jax.imaging import Image, ImageError, read_image, write_image
from converse_jax.restore import RestoreError, Restorer
from converse_jax.restore_files import Counts, FileResult, restore_file, restore_folder
from tests.test_restore import Enlarge, card, image


def write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image)


@pytest.fixture
def brighter() -> Restorer:
    return Restorer(Enlarge(gain=2.0), card())


def test_16_bit_with_alpha_through_a_file(tmp_path: Path, brighter: Restorer) -> None:
    level = np.arange(30, dtype=np.float32).reshape(5, 6) / 65535
    write(tmp_path / "a.png", Image(level[..., None], alpha=level + 0.25, bits=16))
    plan = restore_file(brighter, tmp_path / "a.png", tmp_path / "made" / "b.png")
    got = read_image(tmp_path / "made" / "b.png")
    assert got.bits == 16 and plan.notes == () and plan.noise is None
    np.testing.assert_array_equal(np.round(got.pixels[..., 0] * 65535), 2 * np.round(level * 65535))
    assert got.alpha is not None
    np.testing.assert_allclose(got.alpha, 2 * (level + 0.25), atol=2e-5)


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was run")

    restorer = Restorer(Enlarge(), card())
    restorer._restore = never  # type: ignore[method-assign]
    write(tmp_path / "a.png", Image(image(4, 4, 1), alpha=image(4, 4)))
    write(tmp_path / "deep.png", Image(image(4, 4, 1), bits=16))
    for source, target, text in [
        ("a.png", "a.png", r"a\.png: exists already; name another file, or overwrite it"),
        ("a.png", "b.jpg", r"b\.jpg: format: JPEG holds no alpha channel"),
        ("deep.png", "b.jpg", r"b\.jpg: format: JPEG holds 8 bits"),
        ("a.png", "b.gif", r"b\.gif: the extension '\.gif' is not one of \.png"),
        ("none.png", "b.png", r"none\.png: there is no such file"),
    ]:
        with pytest.raises(ImageError, match=text):
            restore_file(restorer, tmp_path / source, tmp_path / target)
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=rXX):
        restore_file(Restorer(Enlarge(), card()), tmp_path / "a.png", tmp_path / "file" / "b.png")


def test_an_error_of_restoring_names_the_file(
    tmp_path: Path, brighter: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_programs, "available_memory", lambda: 1)
    write(tmp_path / "a.png", Image(image(40, 40, 1)))
    with pytest.raises(RestoreError, match=r"a\.png: image: 40x40 pixels need more memory"):
        restore_file(brighter, tmp_path / "a.png", tmp_path / "b.png")


def test_a_folder(tmp_path: Path, brighter: Restorer) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for name, size in [("b.png", 4), ("a.png", 5), ("deep/er/c.tif", 4), ("deep/done.png", 4)]:
        write(source / name, Image(image(size, 4, 1) / 4))
    write(source / "color.png", Image(image(4, 4, 3)))
    (source / "broken.png").write_bytes((source / "a.png").read_bytes()[:50])
    (source / "notes.txt").write_text("no image")
    done = Image(np.zeros((1, 1, 1), np.float32))
    write(target / "deep" / "done.png", done)
    results: list[FileResult] = []
    calls: list[tuple[int, int]] = []

    def on_result(result: FileResult, number: int, total: int) -> None:
        results.append(result)
        calls.append((number, total))

    counts = restore_folder(brighter, source, target, on_result=on_result)
    notes = (Path("notes.txt"),)
    assert counts == Counts(restored=4, skipped=1, failed=1, unread=notes)
    assert calls == [(n, 6) for n in range(1, 7)]
    assert read_image(target / "deep" / "done.png").pixels.shape == (1, 1, 1)
    for name in ("b.png", "a.png", "deep/er/c.tif"):
        given, got = read_image(source / name), read_image(target / name)
        np.testing.assert_allclose(got.pixels, 2 * given.pixels, atol=1e-6)
    (failed,) = (r for r in results if r.status == "failed")
    assert failed.reason is not None
    assert "broken.png: the PNG file is damaged or cut short" in failed.reason
    assert not (target / "broken.png").exists()
    (color,) = (r for r in results if r.source.name == "color.png")
    assert color.plan is not None and color.plan.notes == (brighter.channel_note(3),)
    # Equal sizes follow each other, so that each is compiled once.
    order = [r.source.name for r in results if r.status == "restored"]
    assert order[-1] == "a.png"
    assert sorted(p.name for p in target.rglob("*") if p.is_file()) == [
        *("a.png", "b.png", "c.tif", "color.png", "done.png")
    ]

    again = restore_folder(brighter, source, target)
    assert again == Counts(restored=0, skipped=5, failed=1, unread=notes)
    everything = restore_folder(brighter, source, target, overwrite=True)
    assert everything == Counts(restored=5, skipped=0, failed=1, unread=notes)
    assert read_image(target / "deep" / "done.png").pixels.shape == (4, 4, 1)


def test_a_target_inside_the_source_is_not_read(tmp_path: Path, brighter: Restorer) -> None:
    write(tmp_path / "a.png", Image(image(4, 4, 1)))
    for restored in (1, 0):
        counts = restore_folder(brighter, tmp_path, tmp_path / "out")
        assert counts == Counts(restored=restored, skipped=1 - restored)
    assert restore_folder(brighter, tmp_path, tmp_path / "out", overwrite=True).restored == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png"]


def test_a_source_inside_the_target(tmp_path: Path, brighter: Restorer) -> None:
    write(tmp_path / "in" / "a.png", Image(image(4, 4, 1)))
    assert restore_folder(brighter, tmp_path / "in", tmp_path).restored == 1
    assert (tmp_path / "a.png").exists()


def test_refused_folders(tmp_path: Path, brighter: Restorer) -> None:
    write(tmp_path / "in" / "a.png", Image(image(4, 4, 1)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for source, target, text in [
        ("none", "out", "none: there is no such folder"),
        ("empty", "out", r"empty: holds no images \(\.png"),
        ("in", "in/../in", "is the folder that is read; name another one"),
        ("in", "file", "file: is a file; the images of a folder need a folder"),
    ]:
        with pytest.raises(ImageError, match=text):
            restore_folder(brighter, tmp_path / source, tmp_path / target)
    with pytest.raises(RestoreError, match="takes none; leave it out"):
        restore_folder(brighter, tmp_path / "in", tmp_path / "out", kernel=np.ones((3, 3)))
    assert not (tmp_path / "out").exists()


def test_many_sizes_do_not_fill_the_memory(
    tmp_path: Path, brighter: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared = []
    monkeypatch.setattr(restore_files, "_SIZES_BETWEEN_CLEARINGS", 2)
    monkeypatch.setattr(
        "jax.clear_caches", lambda: cleared.append(len(brighter._programs._programs))
    )
    for n, height in enumerate((2, 2, 3, 4, 4, 5, 6)):
        write(tmp_path / "in" / f"{n}.png", Image(image(height, 3, 1)))
    assert restore_folder(brighter, tmp_path / "in", tmp_path / "out").restored == 7
    assert cleared == [2, 2]  # before the third and the fifth size


def test_an_interrupted_folder_leaves_whole_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / "in" / name, Image(image(4, 4, 1)))
    restorer = Restorer(Enlarge(), card())
    done = []

    def interrupt(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        restore_folder(restorer, tmp_path / "in", tmp_path / "out")
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]
    assert restore_folder(restorer, tmp_path / "in", tmp_path / "out") == Counts(1, 1, 0)
