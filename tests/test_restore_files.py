"""Restoring image files and folders of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converse_jax import _programs, restore_files
from converse_jax.imaging import (
    Image,
    ImageError,
    Resolution,
    encode_image,
    gaussian_kernel,
    read_image,
    read_pages,
    resize,
    write_image,
    write_pages,
)
from converse_jax.restore import Plan, RestoreError, Restorer
from converse_jax.restore_files import (
    Counts,
    FileResult,
    Output,
    restore_file,
    restore_folder,
    shown,
)
from tests.test_restore import Deblur, Enlarge, card, image
from tests.test_tiling import programs_built


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
    with pytest.raises(ImageError, match=r"b\.png: cannot be written, as .*file is no folder"):
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
    assert restore_folder(brighter, tmp_path / "in", tmp_path / "out", tile=0).restored == 7
    assert cleared == [2, 2]  # before the third and the fifth size


def test_twenty_sizes_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(20):
        write(tmp_path / "in" / f"{n}.png", Image(image(20 + n, 30, 1)))
    results: list[FileResult] = []

    def restored(target: str, restorer: Restorer, **options: Any) -> list[tuple[int, ...]]:
        built = programs_built(monkeypatch, restorer)
        results.clear()
        counts = restore_folder(
            *(restorer, tmp_path / "in", tmp_path / target),
            on_result=lambda result, *_: results.append(result),
            **options,
        )
        assert counts.restored == 20
        return built

    deblur = {"kernel": gaussian_kernel(5, 1.0)}
    for name, restorer, options in (
        ("darker", Restorer(Enlarge(gain=0.5), card()), {}),
        ("sharper", Restorer(Deblur(), card("deblur", needs_kernel=True)), deblur),
    ):
        assert restored(name, restorer, **options) == [(256, 256, 1)]
        note = "images of 20 sizes: restored in tiles of 256 pixels, as each size of whole images"
        assert all(r.plan is not None and r.plan.notes[-1].startswith(note) for r in results)
    for path in (tmp_path / "in").iterdir():
        half = read_image(path).pixels / 2
        got = read_image(tmp_path / "darker" / path.name).pixels
        np.testing.assert_allclose(got, half, atol=0.51 / 255)
    assert len(restored("whole", Restorer(Enlarge(), card()), tile=0)) == 20
    assert all(r.plan is not None and r.plan.notes == () for r in results)


def test_tiles_that_cannot_be_are_refused_before_an_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no image")
    restorer = Restorer(Enlarge(), card(overlap=16))
    for source, run in (("in", restore_folder), ("in/a.png", restore_file)):
        with pytest.raises(RestoreError, match="tile: got 7; expected at least 32"):
            run(restorer, tmp_path / source, tmp_path / "out.png", tile=7)
    assert not (tmp_path / "out.png").exists()


def test_an_interrupted_image_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.png", Image(image(60, 60, 1)))

    def interrupt(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_file(
            *(Restorer(Enlarge(), card(overlap=8)), tmp_path / "a.png", tmp_path / "b.png"),
            tile=32,
            on_tile=interrupt,
        )
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


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


def enlarger(scale: int = 4) -> Restorer:
    return Restorer(Enlarge(scale), card("sr", 1, scale))


def test_pages_are_restored_one_by_one(tmp_path: Path, brighter: Restorer) -> None:
    given = [Image(image(6, 5, 1, seed=n) / 4) for n in range(3)]
    write_pages(tmp_path / "a.tif", given)
    calls: list[tuple[int, int]] = []
    restore_file(
        brighter, tmp_path / "a.tif", tmp_path / "b.tif", on_page=lambda *n: calls.append(n)
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    got = read_pages(tmp_path / "b.tif")
    assert len(got) == 3
    for before, after in zip(read_pages(tmp_path / "a.tif"), got, strict=True):
        np.testing.assert_allclose(after.pixels, 2 * before.pixels, atol=1e-6)
    brighter._restore = never  # type: ignore[method-assign]
    with pytest.raises(ImageError, match=r"b\.png: format: PNG holds one image, and there are 3"):
        restore_file(brighter, tmp_path / "a.tif", tmp_path / "b.png")


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the network was run")


def test_what_the_format_cannot_hold_is_said_before_the_work(tmp_path: Path) -> None:
    restorer = enlarger()
    restorer._restore = never  # type: ignore[method-assign]
    write(tmp_path / "wide.png", Image(image(2, 4100, 1)))
    write(tmp_path / "wider.png", Image(image(2, 16400, 1)))
    for name, target, output, text in [
        ("wide", "b.webp", Output(), "WEBP holds at most 16383 pixels a side.*16400x8"),
        ("wider", "b.jpg", Output(), "JPEG holds at most 65500 pixels a side.*65600x8"),
        ("wide", "b.png", Output(resize=1000), "the result would have 4100000x2000 pixels"),
        ("wide", "b.png", Output(quality=80), "quality: PNG is written without loss"),
    ]:
        with pytest.raises(ImageError, match=rf"{target}: .*{text}"):
            restore_file(restorer, tmp_path / f"{name}.png", tmp_path / target, output=output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wide.png", "wider.png"]


def test_a_place_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.png", Image(image(4, 4, 1)))
    restorer = enlarger()
    restorer._restore = never  # type: ignore[method-assign]
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ImageError, match=r"b\.png: cannot be written, as .* may not be written to"):
        restore_file(restorer, tmp_path / "a.png", tmp_path / "new" / "folder" / "b.png")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("output", "size"),
    [
        (Output(), (32, 24)),
        (Output(resize=2), (16, 12)),
        (Output(resize=6), (48, 36)),
        (Output(width=9), (12, 9)),
        (Output(width=24), (32, 24)),
    ],
)
def test_the_final_size(tmp_path: Path, output: Output, size: tuple[int, int]) -> None:
    given = Image(image(8, 6, 1), alpha=image(8, 6, seed=1), resolution=Resolution(100, 100))
    write(tmp_path / "a.png", given)
    restore_file(enlarger(), tmp_path / "a.png", tmp_path / "b.png", output=output)
    got = read_image(tmp_path / "b.png")
    large = read_image(tmp_path / "a.png").pixels.repeat(4, 0).repeat(4, 1)
    want = np.clip(resize(large, size), 0, 1)
    np.testing.assert_allclose(got.pixels, want, atol=0.51 / 255)
    assert got.alpha is not None and got.alpha.shape == size
    # The size in print stays.
    assert got.resolution is not None
    np.testing.assert_allclose(got.resolution[:2], 100 * size[1] / 6, rtol=1e-3)


def test_refused_outputs() -> None:
    for arguments, text in [
        ({"width": 0}, "width: got 0; expected at least 1"),
        ({"resize": 0.0}, "resize: got 0; expected a positive"),
        ({"resize": float("nan")}, "resize: got nan"),
        ({"width": 3, "resize": 2.0}, "width, resize: give one of them"),
        ({"quality": 101}, "quality: got 101; expected 1 to 100"),
        ({"quality": 50, "format": "png"}, "quality: PNG is written without loss"),
    ]:
        with pytest.raises(ImageError, match=text):
            Output(**arguments)


def test_one_format_and_quality_for_a_folder(tmp_path: Path, brighter: Restorer) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    smooth = np.repeat(np.linspace(0, 0.4, 64, dtype=np.float32)[:, None], 64, axis=1)[..., None]
    for name in ("a.png", "b.tif", "c.JPG", "d.webp"):
        write(source / name, Image(smooth))
    (source / "e.gif").write_bytes(gif())
    counts = restore_folder(brighter, source, target, output=Output(format="jpeg", quality=30))
    assert counts == Counts(restored=5)
    assert sorted(p.name for p in target.iterdir()) == ["a.jpg", "b.jpg", "c.JPG", "d.jpg", "e.jpg"]
    fine = len(encode_image(Image(2 * smooth), "jpeg"))
    assert all(p.read_bytes()[:2] == b"\xff\xd8" for p in target.iterdir())
    assert (target / "a.jpg").stat().st_size < fine
    assert restore_folder(brighter, source, target, output=Output(format="jpeg")).skipped == 5


def gif() -> bytes:
    import io

    from PIL import Image as PilImage

    out = io.BytesIO()
    PilImage.fromarray(np.full((5, 5), 60, np.uint8)).save(out, "GIF")
    return out.getvalue()


def test_quality_is_for_the_formats_of_a_folder_that_take_one(
    tmp_path: Path, brighter: Restorer
) -> None:
    for name in ("a.png", "b.jpg"):
        write(tmp_path / "in" / name, Image(image(16, 16, 1) / 2))
    for quality in (10, 90):
        options: Any = {"output": Output(quality=quality), "overwrite": True}
        assert restore_folder(brighter, tmp_path / "in", tmp_path / str(quality), **options) == (
            Counts(restored=2)
        )
    sizes = [[(tmp_path / q / n).stat().st_size for q in ("10", "90")] for n in ("a.png", "b.jpg")]
    assert sizes[0][0] == sizes[0][1] and sizes[1][0] < sizes[1][1]


def test_every_file_of_a_folder_is_counted(tmp_path: Path, brighter: Restorer) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    write(source / "a.png", Image(image(4, 4, 1) / 2))
    (source / "IMG_0001").write_bytes((source / "a.png").read_bytes())
    (source / "b.gif").write_bytes(gif())
    (source / "a.gif").write_bytes(gif())  # its result would be a.png, which is that of a.png
    (source / "c.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (source / "d.dng").write_bytes(b"II*\0\x08\0\0\0")
    (source / "e.txt").write_text("text")
    (source / ".hidden.png").write_bytes(b"")
    os.mkfifo(source / "pipe.png")
    (source / "loop.png").symlink_to("loop.png")
    (source / "link.png").symlink_to("a.png")
    (source / "dangling.png").symlink_to("nowhere.png")
    results: list[FileResult] = []
    counts = restore_folder(brighter, source, target, on_result=lambda r, *_: results.append(r))
    unread = ("c.heic", "d.dng", "dangling.png", "e.txt", "loop.png", "pipe.png")
    assert counts == Counts(restored=4, failed=1, unread=tuple(map(Path, unread)))
    made = ["IMG_0001.png", "a.png", "b.png", "link.png"]
    assert sorted(p.name for p in target.iterdir()) == made
    (failed,) = (r for r in results if r.status == "failed")
    assert failed.source.name == "a.gif" and "another image is written to" in (failed.reason or "")
    assert shown(counts.unread) == (
        "6 files are no image that is read: c.heic, d.dng, dangling.png, e.txt, loop.png and 1 more"
    )
    (source / "a.png").unlink()
    for name in ("IMG_0001", "b.gif", "a.gif", "link.png"):
        (source / name).unlink()
    with pytest.raises(ImageError, match="in: holds no images .*6 files are no image that is read"):
        restore_folder(brighter, source, target)


def test_two_processes_may_share_the_work(tmp_path: Path, brighter: Restorer) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b.png", "c.png"):
        write(source / name, Image(image(4, 4, 1) / 2))
    calls: list[str] = []

    class Slow:
        """Meanwhile another process restores the same images."""

        cards = brighter.cards
        prepare_kernel = staticmethod(brighter.prepare_kernel)

        def plan(self, pixels: np.ndarray, *, sigma: float | None = None) -> Plan:
            calls.append("plan")
            assert restore_folder(brighter, source, target).failed == 0
            return brighter.plan(pixels, sigma=sigma)

    counts = restore_folder(Slow(), source, target)
    assert counts == Counts(skipped=3)
    assert calls == ["plan"]  # the others were found finished before the work


def test_what_was_guessed_or_dropped_is_in_the_plan(tmp_path: Path, brighter: Restorer) -> None:
    level = np.linspace(0, 0.4, 16, dtype=np.float32).reshape(4, 4, 1)
    write(tmp_path / "a.png", Image(level, bits=16, white=4095, text={"Title": "x", "Who": "y"}))
    plan = restore_file(brighter, tmp_path / "a.png", tmp_path / "b.tif")
    assert plan.remarks == (
        "values up to 1638 of 65535, so white is taken to be 4095 (--white-level N)",
        "TIFF has no place for it, dropped: text 'Title', text 'Who'",
    )
    got = read_image(tmp_path / "b.tif")
    assert got.white == 4095
    np.testing.assert_allclose(got.pixels, 2 * level, atol=1e-3)


def test_floats_come_back_as_floats_and_are_not_clipped(tmp_path: Path, brighter: Restorer) -> None:
    level = np.linspace(-0.05, 1.05, 12, dtype=np.float32).reshape(3, 4, 1)
    write(tmp_path / "a.tif", Image(level, bits=32))
    restore_file(brighter, tmp_path / "a.tif", tmp_path / "b.tif")
    got = read_image(tmp_path / "b.tif", white_level=1)
    assert got.bits == 32
    np.testing.assert_allclose(got.pixels, 2 * level, rtol=1e-6)


def test_a_damaged_jpeg_is_restored_when_told_so(tmp_path: Path, brighter: Restorer) -> None:
    data = encode_image(Image(np.full((32, 32, 1), 0.25, np.float32)), "jpeg")
    (tmp_path / "a.jpg").write_bytes(data[:-2])
    with pytest.raises(ImageError, match="--tolerate-damage"):
        restore_file(brighter, tmp_path / "a.jpg", tmp_path / "b.jpg")
    plan = restore_file(brighter, tmp_path / "a.jpg", tmp_path / "b.jpg", tolerate_damage=True)
    assert "cut short" in plan.remarks[0]
    np.testing.assert_allclose(read_image(tmp_path / "b.jpg").pixels[0], 0.5, atol=0.01)
