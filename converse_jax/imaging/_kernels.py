"""Blur kernels as people have them: files of many kinds, and descriptions."""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from converse_jax.imaging._blur import disk_kernel, gaussian_kernel, motion_kernel
from converse_jax.imaging._files import read_image
from converse_jax.imaging._formats import sniff
from converse_jax.imaging._matlab import matrices
from converse_jax.imaging._tiff import read_directories
from converse_jax.messages import one_line, printable

MAX_TAPS = 4096 * 4096
"""Kernels with more taps are refused before they are decoded."""

_MAX_BYTES = 16 * MAX_TAPS
_NUMERIC = {"double", "single", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32))}
# The part of a kernel that may be cut off: in images of [0, 1] a blur changes by at most that.
_NEGLIGIBLE = 1e-3
_GAUSSIAN_REACH = 4.0  # standard deviations, beyond which 1.3e-4 of the blur remain

DESCRIPTIONS = "motion:LENGTH:ANGLE, gaussian:SIGMA, disk:RADIUS or box:N"
"""The kernels that are made from a description."""


class KernelError(ValueError):
    """A blur kernel that cannot be read or used: which one, why, and what to do, in a line."""


def read_kernel(
    source: str | os.PathLike[str], *, center: bool = False, flip: bool = False
) -> tuple[np.ndarray, list[str]]:
    """A blur kernel from a file or a description, divided by its sum.

    The convention is that of `circular_blur`: true convolution, about the tap `(kh//2, kw//2)`.
    Files are recognized by their contents: NumPy's `.npy` and `.npz`, MATLAB's `.mat` up to
    version 7 (nothing in them is run), gray images (PNG, TIFF and others, at any depth, floats
    too), and text: a line for each row, numbers separated by blanks, commas or semicolons. One
    array of several in a `.npz` or `.mat` is chosen as `file.mat:NAME`. Descriptions, in pixels:

    - `motion:LENGTH:ANGLE`, a straight line (`motion_kernel`), its angle in degrees
      counter-clockwise from the x axis as the image is seen;
    - `gaussian:SIGMA`, up to 4 standard deviations; `disk:RADIUS`, a lens out of focus;
    - `box:N`, N x N equal taps.

    Args:
        source: path or description.
        center: move the centroid to the center, see `centered_kernel`.
        flip: turn it by 180 degrees: it was made for correlation, as OpenCV's `filter2D` and the
            convolutions of neural networks.

    Returns:
        float64 `[kh, kw]`, and at most one note: what was changed and what is odd about it.

    Raises:
        KernelError: the file cannot be read or is of another kind, a description that means
            nothing, or numbers that are no kernel (`normalized_kernel`).
    """
    name = os.fspath(source)
    kind, *numbers = name.split(":")
    try:
        array, has_scale = (
            (_described(kind, numbers), True) if kind in _MAKERS else _read_array(name)
        )
        kernel, notes = normalized_kernel(array)
        notes = notes if has_scale else []
        if flip:
            kernel = flipped_kernel(kernel)
        if center:
            kernel = centered_kernel(kernel)
    except KernelError as error:
        raise KernelError(f"{name}: {error}") from None
    notes += _oddities(kernel)
    return kernel, [f"{name}: {'; '.join(notes)}"] if notes else []


def normalized_kernel(kernel: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A blur kernel `[kh, kw]` divided by its sum, float64, and a note where that changed it.

    Raises:
        KernelError: not a two-dimensional array of finite real numbers, or a sum of 0.
    """
    kernel = np.asarray(kernel)
    if kernel.ndim != 2 or kernel.size == 0:
        raise KernelError(f"kernel: got shape {kernel.shape}; expected a two-dimensional [kh, kw]")
    if not (np.issubdtype(kernel.dtype, np.floating) or np.issubdtype(kernel.dtype, np.integer)):
        raise KernelError(f"kernel: got {kernel.dtype}; expected real numbers")
    taps = kernel.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total, size = float(taps.sum()), float(np.abs(taps).sum())
    if not math.isfinite(size):
        raise KernelError("kernel: holds NaN or infinity; give finite numbers")
    if abs(total) <= 1e-12 * size:
        raise KernelError("kernel: its taps sum to 0; give a blur kernel, whose sum is 1")
    if abs(total - 1) <= 1e-6:
        return taps, []
    return taps / total, [f"the kernel was divided by its sum, {total:.6g}"]


def flipped_kernel(kernel: np.ndarray) -> np.ndarray:
    """The kernel turned by 180 degrees about its center: that of a correlation, as a convolution.

    An even side grows by one, as the center of an even kernel is not its middle.
    """
    odd = [(0, 1 - side % 2) for side in kernel.shape]
    return np.ascontiguousarray(np.pad(kernel, odd)[::-1, ::-1])


def centered_kernel(kernel: np.ndarray) -> np.ndarray:
    """The kernel moved so that its centroid is nearest to its center, the tap `(kh//2, kw//2)`.

    It is moved by whole pixels, so that no tap changes and at most half a pixel remains; its rim of
    zeros is cut, and both sides become odd.

    Raises:
        KernelError: a centroid outside of the kernel, which negative taps may cause.
    """
    kernel, margins = _without_rim(kernel), []
    for side, place in zip(kernel.shape, _centroid(kernel), strict=True):
        middle = math.floor(place + 0.5)
        if not 0 <= middle < side:
            raise KernelError("kernel: its centroid lies outside of it; leave out --center-kernel")
        reach = max(middle, side - 1 - middle)
        margins.append((reach - middle, reach - (side - 1 - middle)))
    return np.pad(kernel, margins)


def fitted_kernel(
    kernel: np.ndarray, size: int, network: str = "the network"
) -> tuple[np.ndarray, list[str]]:
    """A kernel of sum 1 as `[size, size]` about the same center, and a note on what that changed.

    It is padded with zeros, or its rim is cut where that holds at most 0.001 of all taps.
    `network` is used in the message.

    Raises:
        KernelError: more would be cut.
    """
    (height, width), given = kernel.shape, kernel
    if kernel.shape == (size, size):
        return kernel, []
    for axis, side in enumerate(kernel.shape):
        before, after = size // 2 - side // 2, (size - size // 2) - (side - side // 2)
        kernel = np.take(kernel, np.arange(max(-before, 0), side + min(after, 0)), axis)
        margins = [(0, 0), (0, 0)]
        margins[axis] = max(before, 0), max(after, 0)
        kernel = np.pad(kernel, margins)
    cut = float(np.abs(given).sum() - np.abs(kernel).sum()) / float(np.abs(given).sum())
    if cut > _NEGLIGIBLE:
        advice = "crop it, or estimate a smaller one"
        with contextlib.suppress(KernelError):
            if max(centered_kernel(given).shape) <= size:
                advice = "move its centroid to its center (--center-kernel)"
        raise KernelError(
            f"kernel: got {height}x{width}, {network} takes at most {size}x{size}; {advice}"
        )
    if max(height, width) <= size:
        return kernel, [f"the kernel of {height}x{width} was padded with zeros to {size}x{size}"]
    lost = "zero" if cut < 1e-12 else f"{cut:.1g} of it"
    note = f"the kernel of {height}x{width} was cut to {size}x{size}: what lay outside is {lost}"
    return kernel / kernel.sum(), [note]


def check_kernel_fits(kernel: np.ndarray, height: int, width: int) -> None:
    """Raise a KernelError if a kernel, without its rim of zeros, is larger than an image."""
    rows, columns = _without_rim(kernel).shape
    if rows > height or columns > width:
        raise KernelError(
            f"kernel: got {rows}x{columns} for an image of {height}x{width}; "
            "expected a kernel no larger than the image"
        )


def _without_rim(kernel: np.ndarray) -> np.ndarray:
    # A motion along an axis leaves taps of 1e-17 beside it, as its cosine is not quite 0.
    rows, columns = np.nonzero(np.abs(kernel) > 1e-12 * np.abs(kernel).max())
    return kernel[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _centroid(kernel: np.ndarray) -> tuple[float, float]:
    """Row and column of the center of mass, by which the blur moves an image."""
    total, (height, width) = kernel.sum(), kernel.shape
    row = float(np.arange(height) @ kernel.sum(1) / total)
    return row, float(np.arange(width) @ kernel.sum(0) / total)


def _oddities(kernel: np.ndarray) -> list[str]:
    """What a blur kernel usually is not."""
    (height, width), notes = kernel.shape, []
    row, column = height // 2, width // 2
    negative = int((kernel < 0).sum())
    if negative:
        taps = f"{negative} taps are" if negative > 1 else "a tap is"
        notes.append(f"{taps} negative, down to {kernel.min():.3g}: a blur has none")
    if height % 2 == 0 or width % 2 == 0:
        notes.append(f"{height}x{width} is even, and its center the tap ({row}, {column})")
    down, right = (a - b for a, b in zip(_centroid(kernel), (row, column), strict=True))
    if max(abs(down), abs(right)) > 0.5 + 1e-9:
        notes.append(
            f"its centroid is {down:+.2g} rows and {right:+.2g} columns from its center: if that "
            "of the blur is not, the result is shifted (--center-kernel)"
        )
    return notes


# Descriptions


def _motion(length: float, angle: float) -> np.ndarray:
    return motion_kernel(_odd_size(length / 2), length=length, angle=angle)


def _gaussian(sigma: float) -> np.ndarray:
    return gaussian_kernel(_odd_size(_GAUSSIAN_REACH * sigma), sigma)


def _disk(radius: float) -> np.ndarray:
    return disk_kernel(_odd_size(radius), radius=radius)


def _box(size: float) -> np.ndarray:
    if not size.is_integer() or size < 1:
        raise KernelError(f"box: got {size:g}; expected a whole number of at least 1")
    _check_taps(size, size)
    return np.full((int(size), int(size)), 1 / size**2)


_MAKERS: dict[str, tuple[int, Callable[..., np.ndarray]]] = {
    "motion": (2, _motion),
    "gaussian": (1, _gaussian),
    "disk": (1, _disk),
    "box": (1, _box),
}


def _odd_size(reach: float) -> int:
    size = 2 * math.ceil(reach) + 1
    _check_taps(size, size)
    return size


def _check_taps(height: float, width: float) -> None:
    if height * width > MAX_TAPS:
        raise KernelError(
            f"kernel: got {height:g}x{width:g}; expected at most {MAX_TAPS} taps, as 4096x4096"
        )


def _described(kind: str, numbers: list[str]) -> np.ndarray:
    count, make = _MAKERS[kind]
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)) or values[0] < 0:
        raise KernelError(
            f"is no kernel; expected {DESCRIPTIONS}, in pixels and degrees, no size below 0"
        )
    try:
        return make(*values)
    except ValueError as error:
        raise KernelError(str(error)) from None


# Files


def _read_array(name: str) -> tuple[np.ndarray, bool]:
    """The one array of a file, and whether its scale means anything: that of an image does not."""
    path, member = name, ""
    if not os.path.lexists(name):
        path, _, member = name.rpartition(":")
        if not path.lower().endswith((".npz", ".mat")):
            path, member = name, ""
    data = _file_bytes(path)
    kind = sniff(data)
    try:
        if kind is not None:
            return _from_image(data, kind), False
        if data.startswith(b"\x93NUMPY"):
            array = _from_npy(data)
        elif data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            array = _from_npz(data, member)
        elif data.startswith(b"MATLAB") or path.lower().endswith(".mat"):
            array = _from_mat(data, member)
        else:
            array = _from_text(data)
    except (KernelError, ImportError):
        raise
    except Exception as error:  # damaged files make decoders raise almost anything
        raise KernelError(
            f"cannot be read as a kernel ({one_line(error, 100)}); give a .npy, .npz or .mat file, "
            f"an image, or text, or describe the kernel: {DESCRIPTIONS}"
        ) from None
    if array.ndim > 2:  # [1, kh, kw] and [kh, kw, 1] are no ambiguity
        array = array.reshape([side for side in array.shape if side != 1])
    return array, True


def _file_bytes(path: str) -> bytes:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise KernelError("is a folder; name the file of a kernel")
        if not stat.S_ISREG(status.st_mode):
            raise KernelError("is not a regular file; copy the kernel to one")
        if status.st_size > _MAX_BYTES:
            raise KernelError(f"holds more than {_MAX_BYTES >> 20} MiB; crop the kernel")
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, KernelError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise KernelError(
            f"cannot be read ({reason}); check the path, or describe the kernel: {DESCRIPTIONS}"
        ) from None
    if not data:
        raise KernelError("is empty; save the kernel again")
    return data


def _from_npy(data: bytes) -> np.ndarray:
    # Pickles are programs.
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _from_npz(data: bytes, member: str) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in file.infolist()}
        entry = entries[_one_of(dict.fromkeys(entries, ""), member)]
        if entry.file_size > _MAX_BYTES:  # what is read is never more than this says
            raise KernelError(f"unpacks to more than {_MAX_BYTES >> 20} MiB; crop the kernel")
        return _from_npy(file.read(entry))


def _from_mat(data: bytes, member: str) -> np.ndarray:
    """A matrix of a MATLAB file up to version 7."""
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise KernelError("is a MATLAB file of version 7.3; save it by save -v7 in MATLAB")
    if 0 in data[:4]:  # that of others begins with text
        return _from_mat4(data, member)
    found = matrices(data)
    name = _one_matrix({name: matrix.shape for name, matrix in found.items()}, member)
    try:
        return found[name].array(_MAX_BYTES)
    except OverflowError as error:
        raise KernelError(f"{error}; crop the kernel") from None


def _from_mat4(data: bytes, member: str) -> np.ndarray:
    """A matrix of a file of version 4; SciPy makes arrays of it and runs nothing."""
    from scipy import io as scipy_io

    shapes = {
        name: shape
        for name, shape, kind in scipy_io.whosmat(io.BytesIO(data))
        if kind in _NUMERIC and len(shape) == 2 and min(shape) > 0
    }
    name = _one_matrix(shapes, member)
    found: dict[str, np.ndarray] = scipy_io.loadmat(io.BytesIO(data), variable_names=[name])
    return found[name]


def _one_matrix(shapes: dict[str, tuple[int, int]], member: str) -> str:
    """The name of the matrix that is asked for, or of the only one, of not too many taps."""
    # Single numbers beside the kernel are its parameters.
    large = {name: shape for name, shape in shapes.items() if shape != (1, 1)} or shapes
    chosen = _one_of({name: " {}x{}".format(*shape) for name, shape in large.items()}, member)
    _check_taps(*large[chosen])
    return chosen


def _one_of(names: dict[str, str], member: str) -> str:
    """The array that is named, or the only one; `names` maps each to what to say of it."""
    if member in names:
        return member
    named = [printable(name[:50]) + more for name, more in list(names.items())[:8]]
    listed = ", ".join(named) or "no matrix"
    if member:
        raise KernelError(f"there is no such array in the file, which holds {listed}")
    if len(names) != 1:
        raise KernelError(f"holds {listed}; expected one array, or its name after a colon")
    return next(iter(names))


def _from_text(data: bytes) -> np.ndarray:
    lines = data.decode("utf-8-sig").replace(",", " ").replace(";", " ").splitlines()
    rows = [line.partition("#")[0].split() for line in lines]
    return np.array([[float(word) for word in row] for row in rows if row], dtype=np.float64)


def _from_image(data: bytes, kind: str) -> np.ndarray:
    if kind == "tiff":
        return _from_tiff(data)
    image = read_image(data, max_pixels=MAX_TAPS)
    if image.alpha is not None and (image.alpha != 1).any():
        raise KernelError("is partly transparent; save the kernel without transparency")
    return _gray(image.pixels)


def _from_tiff(data: bytes) -> np.ndarray:
    """The samples as they are: an image would round floats of 64 bits to 32."""
    import imagecodecs

    tags = next(read_directories(data))
    if tags.next:
        raise KernelError("holds several pages; export the kernel as a file of one")
    # ImageLength, ImageWidth, SamplesPerPixel, PhotometricInterpretation
    _check_taps(tags[257], tags[256] * tags.get(277, 1))
    samples: np.ndarray = imagecodecs.tiff_decode(data)
    if tags.get(262) == 0:  # white is zero
        samples = samples.max() - samples
    return _gray(samples[..., None] if samples.ndim == 2 else samples)


def _gray(pixels: np.ndarray) -> np.ndarray:
    if not (pixels == pixels[..., :1]).all():
        raise KernelError("is an image in color; save the kernel in gray")
    return np.asarray(pixels[..., 0])
