"""Kernels as people have them: every kind of file, descriptions, conventions, refusals."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image as PilImage
from scipy import io as scipy_io
from scipy import ndimage

from converse_jax.imaging import (
    KernelError,
    _kernels,
    centered_kernel,
    circular_blur,
    disk_kernel,
    flipped_kernel,
    gaussian_kernel,
    motion_kernel,
    read_kernel,
)

RAGGED = motion_kernel(7, length=4, angle=25)[1:, :6]
KERNEL = RAGGED / RAGGED.sum()
COUNTS = np.round(255 * KERNEL / KERNEL.max())

Write = Callable[[Path, np.ndarray], object]


def png(bits: int) -> Write:
    kind = np.uint8 if bits == 8 else np.uint16
    return lambda path, k: path.write_bytes(imagecodecs.png_encode(k.astype(kind)))


def tiff(kind: type) -> Write:
    return lambda path, k: path.write_bytes(imagecodecs.tiff_encode(k.astype(kind)))


def color(path: Path, k: np.ndarray) -> None:
    PilImage.fromarray(np.repeat(k[..., None], 3, -1).astype(np.uint8)).save(path)


def text(delimiter: str, **more: Any) -> Write:
    return lambda path, k: np.savetxt(path, k, delimiter=delimiter, **more)


FILES: list[tuple[str, Write, np.ndarray]] = [
    ("k.npy", np.save, KERNEL),
    ("k.npy", np.save, np.asfortranarray(KERNEL.astype(">f8"))),
    ("k.npy", np.save, KERNEL[..., None]),
    ("k.npy", np.save, KERNEL[None]),
    ("k.npz", np.savez, KERNEL),
    ("k.npz", np.savez_compressed, KERNEL),
    ("k.mat", lambda path, k: scipy_io.savemat(path, {"k": k, "sigma": 2.55}), KERNEL),
    ("k.mat", lambda p, k: scipy_io.savemat(p, {"k": k}, do_compression=True), KERNEL),
    ("k.mat", lambda path, k: scipy_io.savemat(path, {"k": k}, format="4"), KERNEL),
    ("k.txt", text(" "), KERNEL),
    ("k.csv", text(","), KERNEL),
    ("k.csv", text(";", header="a kernel", encoding="utf-8-sig"), KERNEL),
    ("k.tsv", text("\t"), KERNEL),
    ("k.tif", tiff(np.float64), KERNEL),
    ("k.tif", tiff(np.float64), KERNEL - 0.01),  # negative taps are not clipped
    ("k.tif", tiff(np.uint16), COUNTS),
    ("k.png", png(8), COUNTS),
    ("k.png", png(16), 257 * COUNTS),
    ("k.png", color, COUNTS),
    ("misnamed.jpg", png(8), COUNTS),
]


@pytest.mark.parametrize(("name", "write", "kernel"), FILES)
def test_every_kind_of_file(tmp_path: Path, name: str, write: Write, kernel: np.ndarray) -> None:
    write(tmp_path / name, kernel)
    got, _ = read_kernel(tmp_path / name)
    want = kernel.reshape(KERNEL.shape) / kernel.sum()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-7)
    assert got.dtype == np.float64


def test_one_array_of_several(tmp_path: Path) -> None:
    arrays = {"kernel": KERNEL, "noise": np.ones((2, 2))}
    np.savez(tmp_path / "k.npz", **arrays)
    scipy_io.savemat(tmp_path / "k.mat", arrays)
    for name, listed in [("k.npz", "kernel, noise"), ("k.mat", "kernel 6x6, noise 2x2")]:
        got, _ = read_kernel(f"{tmp_path / name}:kernel")
        np.testing.assert_array_equal(got, KERNEL)
        with pytest.raises(KernelError, match=f"{name}: holds {listed}; expected one array, or it"):
            read_kernel(tmp_path / name)
        with pytest.raises(KernelError, match=f"no such array in the file, which holds {listed}"):
            read_kernel(f"{tmp_path / name}:psf")


@pytest.mark.parametrize(
    ("description", "want"),
    [
        ("motion:5:20", motion_kernel(7, length=5, angle=20)),
        ("motion:0:45", np.ones((1, 1))),
        ("gaussian:1.6", gaussian_kernel(15, 1.6)),
        ("disk:2.5", disk_kernel(7, radius=2.5)),
        ("box:4", np.full((4, 4), 1 / 16)),
    ],
)
def test_descriptions(description: str, want: np.ndarray) -> None:
    got, _ = read_kernel(description)
    np.testing.assert_array_equal(got, want)
    # Nothing of it was cut off.
    larger = {"motion": motion_kernel(9, length=5, angle=20), "disk": disk_kernel(9, radius=2.5)}
    if (same := larger.get(description[:6].rstrip(":"))) is not None and got.size > 1:
        np.testing.assert_allclose(np.pad(got, 1), same, atol=1e-15)


def test_the_angle_is_counter_clockwise_as_seen() -> None:
    up_right, _ = read_kernel("motion:6:45")
    assert up_right[0, -1] == up_right[-1, 0] == 0 < up_right[1, -2]
    assert up_right[1, 1] == 0


def test_a_description_comes_before_a_file_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("box", KERNEL)
    os.rename("box.npy", "box:2")
    assert read_kernel("box:2")[0].shape == (2, 2)
    np.testing.assert_array_equal(read_kernel("./box:2")[0], KERNEL)


@pytest.mark.parametrize("shape", [(5, 3), (4, 6), (1, 2)])
def test_a_kernel_of_correlation_is_flipped(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    kernel, image = rng.random(shape), rng.random((9, 11))
    want = ndimage.correlate(image, kernel, mode="wrap")
    np.testing.assert_allclose(circular_blur(image, flipped_kernel(kernel)), want, atol=1e-14)
    assert np.abs(circular_blur(image, kernel) - want).max() > 0.1


def test_centering_moves_by_whole_pixels() -> None:
    kernel = np.zeros((8, 9))
    kernel[1:4, 5:7] = [[1, 0], [2, 1], [0, 3]]
    kernel /= 7
    image = np.random.default_rng(0).random((16, 15))
    moved = np.roll(circular_blur(image, kernel), (2, -2), (0, 1))
    centered = centered_kernel(kernel)
    np.testing.assert_allclose(circular_blur(image, centered), moved, atol=1e-14)
    assert centered.shape == (3, 3)  # the rim is cut
    np.testing.assert_array_equal(centered_kernel(centered), centered)
    wide = np.array([[0.7, 0, 0, 0.3]])
    np.testing.assert_array_equal(centered_kernel(wide), [[0, 0.7, 0, 0, 0.3]])


def test_what_is_odd_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "k.npy"
    kernel = np.zeros((4, 5))
    kernel[0, 0], kernel[1, 1], kernel[1, 2] = 2.5, -0.25, -0.25
    np.save(path, kernel)
    _, (note,) = read_kernel(path)
    assert note == (
        f"{path}: the kernel was divided by its sum, 2; 2 taps are negative, down to -0.125: a "
        "blur has none; 4x5 is even, and its center the tap (2, 2); its centroid is -2.2 rows and "
        "-2.4 columns from its center: if that of the blur is not, the result is shifted "
        "(--center-kernel)"
    )
    np.save(path, gaussian_kernel(5, 1.0))
    assert read_kernel(path)[1] == []
    png(8)(tmp_path / "k.png", COUNTS[:5, :5])
    assert "sum" not in "".join(read_kernel(tmp_path / "k.png")[1])  # the scale of an image is none
    assert read_kernel("motion:9:33")[1] == read_kernel("disk:3")[1] == []


class Trap:
    """Pickled, it would end the tests when it is loaded."""

    def __reduce__(self) -> Any:
        return os._exit, (66,)


def test_refused_files(tmp_path: Path) -> None:
    def saved(write: Callable[[io.BytesIO], object]) -> bytes:
        file = io.BytesIO()
        write(file)
        return file.getvalue()

    def npy(array: Any) -> bytes:
        return saved(lambda file: np.save(file, array))

    def archive(**arrays: Any) -> bytes:
        return saved(lambda file: np.savez(file, **arrays))

    def mat(**arrays: Any) -> bytes:
        return saved(lambda file: scipy_io.savemat(file, arrays))

    trap = npy(np.array([Trap()], dtype=object))
    noise = np.random.default_rng(0).integers(0, 255, (5, 5, 3)).astype(np.uint8)
    transparent = np.full((3, 3, 2), 128, np.uint8)
    pages = saved(
        lambda file: PilImage.new("L", (3, 3), 9).save(
            file, "TIFF", save_all=True, append_images=[PilImage.new("L", (3, 3))]
        )
    )
    unreadable = "cannot be read as a kernel"
    cases: list[tuple[bytes, str]] = [
        (b"", "is empty; save the kernel again"),
        (npy(np.ones(3)), r"kernel: got shape \(3,\); expected a two-dimensional \[kh, kw\]"),
        (npy(np.ones((2, 3, 3))), r"kernel: got shape \(2, 3, 3\)"),
        (npy(np.array([[1.0, -1.0]])), "kernel: its taps sum to 0"),
        (npy(np.full((3, 3), np.nan)), "kernel: holds NaN or infinity"),
        (npy(np.full((3, 3), 1e308)), "kernel: holds NaN or infinity"),
        (npy(np.ones((3, 3), complex)), "kernel: got complex128; expected real numbers"),
        (npy(KERNEL)[:-9], unreadable),
        (trap, unreadable),
        (archive(), "holds no matrix; expected one array"),
        (archive(k=KERNEL)[:-30], unreadable),
        (archive(k=np.array([Trap()], dtype=object)), unreadable),
        (mat(name="a kernel"), "holds no matrix; expected one array"),
        (mat(k=KERNEL)[:-40], unreadable),
        (mat(k=KERNEL * 1j), "kernel: got complex128"),
        (
            b"MATLAB 7.3 MAT-file, Platform",
            "is a MATLAB file of version 7.3; save it by",
        ),
        (b"1 2 3\n4 5", unreadable),
        (b"one two", unreadable),
        (b"\xff\xfe\x00", unreadable),
        (b"# nothing", r"kernel: got shape \(0,\)"),
        (imagecodecs.png_encode(noise), "is an image in color; save the kernel in gray"),
        (imagecodecs.png_encode(transparent), "is partly transparent"),
        (imagecodecs.png_encode(noise)[:40], unreadable),
        (imagecodecs.tiff_encode(noise), "is an image in color"),
        (imagecodecs.tiff_encode(KERNEL)[:-200], unreadable),
        (pages, "holds several pages; export the kernel as a file of one"),
    ]
    for data, expected in cases:
        path = tmp_path / "k.any"
        path.write_bytes(data)
        with pytest.raises(KernelError, match=f"^{re.escape(str(path))}: {expected}") as caught:
            read_kernel(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(KernelError, match="is a folder; name the file of a kernel"):
        read_kernel(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KernelError, match="is not a regular file"):
        read_kernel(tmp_path / "pipe")
    with pytest.raises(KernelError, match=r"none.npy: cannot be read \(No such file"):
        read_kernel("none.npy")
    with pytest.raises(KernelError, match=r"cannot be read \(.*embedded null"):
        read_kernel("\0")


def test_files_that_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernels, "MAX_TAPS", 10_000)
    monkeypatch.setattr(_kernels, "_MAX_BYTES", 100_000)
    path, zeros = tmp_path / "k.mat", np.zeros((400, 400))
    kernel = io.BytesIO()
    scipy_io.savemat(kernel, {"k": KERNEL})
    # Its dimensions are small, and the bytes that follow them are not.
    element = kernel.getvalue()[128:]
    bomb = zlib.compress(element + bytes(10**6))
    path.write_bytes(kernel.getvalue()[:128] + struct.pack("<II", 15, len(bomb)) + bomb)
    with pytest.raises(KernelError, match="unpacks to more than 0 MiB; crop the kernel"):
        read_kernel(path)
    with zipfile.ZipFile(tmp_path / "k.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("k.npy", bytes(10**6))
    with pytest.raises(KernelError, match="unpacks to more than 0 MiB"):
        read_kernel(tmp_path / "k.npz")
    (tmp_path / "k.tif").write_bytes(imagecodecs.tiff_encode(zeros, compression="deflate"))
    with pytest.raises(KernelError, match="kernel: got 400x400; expected at most 10000 taps"):
        read_kernel(tmp_path / "k.tif")
    png(8)(tmp_path / "k.png", zeros)
    with pytest.raises(KernelError, match="400x400 pixels are more than the limit of 10000"):
        read_kernel(tmp_path / "k.png")
    np.save(tmp_path / "k.npy", zeros)
    with pytest.raises(KernelError, match="holds more than 0 MiB"):
        read_kernel(tmp_path / "k.npy")


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ("motion:5", "motion:5: is no kernel; expected motion:LENGTH:ANGLE, gaussian:SIGMA, disk:"),
        ("motion:-5:0", "is no kernel; expected"),
        ("motion:nan:0", "is no kernel; expected"),
        ("motion:five:0", "is no kernel; expected"),
        ("gaussian:-1", "is no kernel; expected"),
        ("gaussian:0", "sigma: got 0.0; expected positive standard deviations in pixels"),
        ("disk:1e9", r"kernel: got 2e\+09x2e\+09; expected at most 16777216 taps"),
        ("box:2.5", "box: got 2.5; expected a whole number of at least 1"),
        ("box:0", "box: got 0; expected a whole number"),
        ("box:1e300", r"kernel: got 1e\+300x1e\+300; expected at most"),
        ("gausian:1", r"gausian:1: cannot be read \(No such file.*or describe the kernel: motion:"),
    ],
)
def test_refused_descriptions(description: str, text: str) -> None:
    with pytest.raises(KernelError, match=text):
        read_kernel(description)


def test_a_centroid_outside() -> None:
    with pytest.raises(KernelError, match="its centroid lies outside of it; leave out --center-k"):
        centered_kernel(np.array([[2.0, -1.0]]))
