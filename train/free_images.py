"""Collect the freely licensed photographs of installed packages in a training folder.

Nothing is downloaded and no package is imported: files are read by path.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from converse_jax.imaging import Image, ImageError, encode_image, read_image, resize
from converse_jax.messages import one_line
from train.errors import TrainError

NOTICE = "LICENSES.md"
"""The file beside the images that names their authors and licenses."""


class Photograph(NamedTuple):
    """A photograph in a package, and its license.

    `path` is below one of the roots of `collect`; `factor` divides its sides.
    """

    package: str
    path: str
    title: str
    author: str
    license: str
    factor: int

    @property
    def file(self) -> str:
        """Its name in the collected folder."""
        return re.sub(r"[^a-z0-9.]+", "-", f"{self.package} {self.title}".lower()) + ".png"


class Collected(NamedTuple):
    """What `collect` wrote, and what it did not find."""

    images: int
    megapixels: float
    missing: list[str]  # one sentence per package


# All images were inspected, and their licenses read in the Debian 12 packages (copyright files) and
# in the wheels. Left out: drawings, renderings and nearly black images; images without a license or
# under the GFDL; the held-out photographs (astronaut, camera, chelsea, coffee); collections that
# test sets may have been taken from (opencv-doc).
# Why they are reduced: most JPEG files hold color at half the resolution of luma, sensors measure
# one color per pixel, and both noise and the errors of 8x8 blocks lie mostly in the finest octave.
# A network must not learn to restore these. At half the size, the noise in the quiet areas of the
# noisiest (God-Rays, Yellow-Flower, Blinds) falls from 1.4-1.6 to 0.6-0.8 of 255 levels. Six that
# are soft even then are quartered. Only PNG files that had already been reduced are kept as they
# are.
_LOMIRI = "lomiri-wallpapers-16.04"
_MATE = "mate-backgrounds"
_PLASMA = "plasma-workspace-wallpapers"
_LXQT = "lxqt-themes"
_E = "enlightenment-data"

PHOTOGRAPHS: tuple[Photograph, ...] = (
    # The docstrings of skimage.data: those that name a license, and are photographs.
    *(
        Photograph("scikit-image", f"skimage/data/{name}", title, author, license, factor)
        for name, title, author, license, factor in (
            ("brick.png", "Brick wall", "CC0Textures", "CC0-1.0", 1),
            ("coins.png", "Greek coins", "Brooklyn Museum", "no known copyright restrictions", 1),
            ("grass.png", "Grass", "linolafett", "CC0-1.0", 1),
            ("gravel.png", "Gravel", "CC0Textures", "CC0-1.0", 1),
            ("hubble_deep_field.jpg", "Hubble deep field", "NASA", "public domain", 2),
            ("retina.jpg", "Retina", "Mikael Häggström", "CC0-1.0", 2),
            ("rocket.jpg", "Rocket", "SpaceX", "public domain", 2),
        )
    ),
    *(
        Photograph(
            "scikit-learn", f"sklearn/datasets/images/{name}.jpg", title, author, "CC-BY-2.0", 2
        )
        for name, title, author in (
            ("china", "China", "danielbuechele"),
            ("flower", "Flower", "vultilion"),
        )
    ),
    *(
        Photograph(_LOMIRI, f"share/backgrounds/{name}.jpg", title, author, license, factor)
        for name, title, author, license, factor in (
            ("aitzgorri_by_Aitzol_Berasategi", "Aitzgorri", "Aitzol Berasategi", "CC-BY-4.0", 2),
            ("Bridge_by_Sander_Klootwijk", "Bridge", "Sander Klootwijk", "CC-BY-SA-4.0", 4),
            ("Dragonfly_by_Bolly", "Dragonfly", "Bolly", "CC-BY-SA-4.0", 4),
            ("free_by_Peter_Nerlich", "Free", "Peter Nerlich", "CC-BY-SA-4.0", 2),
            ("friends_by_Aitzol_Berasategi", "Friends", "Aitzol Berasategi", "CC-BY-4.0", 2),
            ("greentock_by_Peter_Nerlich", "Greentock", "Peter Nerlich", "CC-BY-SA-4.0", 2),
            ("life_by_Aitzol_Berasategi", "Life", "Aitzol Berasategi", "CC-BY-4.0", 2),
            (
                "picosdeeuropa_by_Aitzol_Berasategi",
                "Picos de Europa",
                "Aitzol Berasategi",
                "CC-BY-4.0",
                2,
            ),
            ("Image_0B_by_freespace", "Image 0B", 'Trevor "Freespace"', "CC-BY-4.0", 2),
            ("Image_1A_by_freespace", "Image 1A", 'Trevor "Freespace"', "CC-BY-4.0", 2),
            ("seeding_by_Clements_Engelhardt", "Seeding", "Clemens Engelhardt", "CC0-1.0", 4),
            ("sunset_by_Aitzol_Berasategi", "Sunset", "Aitzol Berasategi", "CC-BY-4.0", 4),
            ("Wine_by_Jakkub_Mede", "Wine", "Jakub Mede", "CC-BY-4.0", 4),
        )
    ),
    Photograph(
        "lomiri-wallpapers-20.04",
        "share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg",
        "Kleiber",
        "Lukas Baubkus",
        "CC-BY-SA-3.0",
        4,
    ),
    *(
        Photograph(
            _MATE, f"share/backgrounds/mate/nature/{name}.jpg", title, author, "GPL-2.0-or-later", 2
        )
        for name, title, author in (
            ("Aqua", "Aqua", "Charles Barbin"),
            ("Blinds", "Blinds", "Lennart Poettering, Andrea Cimitan"),
            ("Dune", "Dune", "Marco Cogoni, Hylke Bons"),
            ("FreshFlower", "Fresh flower", "Jens Ansorg"),
            ("Garden", "Garden", "Charles Barbin"),
            ("GreenMeadow", "Green meadow", "Timothy Schellhase, Lapo Calamandrei"),
            ("LadyBird", "Lady bird", "Charles Barbin"),
            ("RainDrops", "Rain drops", "blackcombwhistler07"),
            ("Storm", "Storm", "Sergey Nazarov"),
            ("TwoWings", "Two wings", "Charles Barbin, Hylke Bons"),
            ("Wood", "Wood", "Jean-François Fortin Tam"),
            ("YellowFlower", "Yellow flower", "Charles Barbin"),
        )
    ),
    # According to the metadata beside each; Debian's file says GPL-2.0-or-later for all.
    *(
        Photograph(
            _PLASMA,
            f"share/wallpapers/{name}/contents/images/2560x1600.jpg",
            title,
            author,
            "LGPL-3.0-only",
            2,
        )
        for name, title, author in (
            ("BytheWater", "By the water", "Maciej Wiklo"),
            ("ColdRipple", "Cold Ripple", "Risto Saukonpää"),
            ("ColorfulCups", "Colorful Cups", "Dmitri Popov"),
            ("DarkestHour", "Darkest Hour", "Risto Saukonpää"),
            ("EveningGlow", "Evening Glow", "Ian Hex"),
            ("FallenLeaf", "Fallen Leaf", "Martin Klapetek"),
            ("Gray", "Gray", "Sigi Sagi"),
            ("Kite", "Kite", "Risto Saukonpää"),
            ("OneStandsOut", "One Stands Out", "Risto Saukonpää"),
            ("Path", "Path", "Risto Saukonpää"),
            ("summer_1am", "summer 1am", "Risto Saukonpää"),
        )
    ),
    # The authors are those in the files' EXIF and comments, or else the package's.
    *(
        Photograph(_LXQT, f"share/lxqt/wallpapers/{name}", title, author, "LGPL-2.1-or-later", 2)
        for name, title, author in (
            ("after-the-rain.jpg", "After the rain", "Stef Binde"),
            ("appleflower.png", "Appleflower", "Stef Binde"),
            ("beam.png", "Beam", "LXQt team"),
            ("butterfly.png", "Butterfly", "Stef Binde"),
            ("Butterfly-Kenneth-Wimer.jpg", "Butterfly Kenneth Wimer", "Kenneth Wimer"),
            ("drop.png", "Drop", "Stef Binde"),
            ("flowers.png", "Flowers", "Stef Binde"),
            ("fog.jpg", "Fog", "LXQt team"),
            ("this-is-not-windows.jpg", "This is not Windows", "LXQt team"),
            ("Valendas.png", "Valendas", "LXQt team"),
        )
    ),
    *(
        Photograph(
            _E,
            f"share/enlightenment/data/backgrounds/{name}.edj",
            name.replace("-", " "),
            "Carsten Haitzler and contributors",
            "BSD-2-Clause",
            2,
        )
        for name in (
            "Bamboo",
            "God-Rays",
            "Green-Maple",
            "Lichen-Branches",
            "Mountain",
            "Red-Maple",
            "Sea-of-Lanterns",
            "Snow-Trees",
            "Spruce-Needles",
            "Sunset-Clouds",
            "White-Flower",
            "Yellow-Flower",
        )
    ),
    # According to the .desktop file beside each; the two others there are under the GFDL.
    *(
        Photograph(
            "palapeli-data", f"share/palapeli/collection/{name}.jpg", title, author, license, 2
        )
        for name, title, author, license in (
            ("cincinnati-bridge", "Roebling bridge", "Derek Jensen", "public domain"),
            ("citrus-fruits", "Citrus fruits", "US Department of Agriculture", "public domain"),
            ("european-honey-bee", "European honey bee", "John Severns", "public domain"),
        )
    ),
)


def installed_roots() -> dict[str, Path]:
    """Folders of this machine's packages, by the first part of a photograph's path."""
    roots = {"share": Path("/usr/share")}
    for package in ("skimage", "sklearn"):
        spec = importlib.util.find_spec(package)  # does not run a top-level package
        if spec is not None and spec.origin is not None:
            roots[package] = Path(spec.origin).parent
    return roots


def collect(
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    roots: Mapping[str, Path] | None = None,
    photographs: Sequence[Photograph] = PHOTOGRAPHS,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Collected:
    """Write the installed photographs to a folder, completely or not at all.

    Each becomes an 8-bit PNG file, reduced but not cropped, and `LICENSES.md` names its title,
    author, license, package and hash. The same packages give the same bits.

    Args:
        target: the folder to make, with its parents if missing.
        overwrite: replace a folder that this function made.
        roots: where to look; `installed_roots()` by default.
        photographs: what to look for.
        advance: called with the number of photographs done and in total.

    Returns:
        What was written, and a sentence for each package that is missing or incomplete.

    Raises:
        TrainError: nothing was found, the target is not empty, a file is damaged, or the folder
            cannot be written.
    """
    folder = Path(target)
    _check_target(folder, overwrite)
    roots = installed_roots() if roots is None else roots
    there = [(photograph, _located(photograph, roots)) for photograph in photographs]
    installed = [(photograph, path) for photograph, path in there if path is not None]
    missing = _missing(photographs, [photograph for photograph, _ in installed])
    if not installed:
        raise TrainError(
            f"{folder}: got no photographs, as no package that carries them is installed; expected "
            f"at least one of {', '.join(dict.fromkeys(p.package for p in photographs))}"
        )
    rows, pixels = [], 0
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=folder.parent) as staging:
            images = Path(staging, "images")
            images.mkdir()
            for done, (photograph, path) in enumerate(installed):
                advance(done, len(installed))
                image = _reduced(photograph, path)
                data = encode_image(image, "png")
                (images / photograph.file).write_bytes(data)
                height, width = image.pixels.shape[:2]
                pixels += height * width
                rows.append(_row(photograph, width, height, hashlib.sha256(data).hexdigest()))
            advance(len(installed), len(installed))
            (images / NOTICE).write_text(_notice(rows), encoding="utf-8")
            if folder.exists():
                folder.rename(Path(staging, "replaced"))
            images.rename(folder)
    except OSError as error:
        raise TrainError(
            f"{folder}: cannot be written ({error.strerror}); check its permissions and its free "
            "space"
        ) from None
    return Collected(len(installed), pixels / 1e6, missing)


def _check_target(folder: Path, overwrite: bool) -> None:
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise TrainError(f"{folder}: got a file or a link; expected the name of a new folder")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    if not overwrite:
        raise TrainError(
            f"{folder}: got a folder that is not empty; expected a new name, or --overwrite"
        )
    try:
        notice = (folder / NOTICE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        notice = ""
    ours = set(re.findall(r"^\| `([^`]+)` \|", notice, re.MULTILINE))
    foreign = sorted(names - ours - {NOTICE})
    if foreign or not notice:
        what = foreign[0] if foreign else NOTICE
        raise TrainError(
            f"{folder}: got {what}, which is not from train.prepare free; expected a folder of its "
            "own to overwrite"
        )


def _located(photograph: Photograph, roots: Mapping[str, Path]) -> Path | None:
    root, _, below = photograph.path.partition("/")
    if root not in roots:
        return None
    path = roots[root] / below
    return path if path.is_file() else None


def _missing(wanted: Sequence[Photograph], installed: Sequence[Photograph]) -> list[str]:
    """A line for each incomplete package: how much is missing, and what to do."""
    counts = Counter(photograph.package for photograph in installed)
    lines = []
    for package, total in Counter(photograph.package for photograph in wanted).items():
        lacking = total - counts[package]
        if not lacking:
            continue
        python = package in ("scikit-image", "scikit-learn")
        command = f"{'pip' if python else 'apt'} install {package}"
        if lacking < total:
            command = f"this version of it does not carry them all; {command}"
        lines.append(f"{package}: {lacking} of {total} photographs missing; {command}")
    return lines


def _reduced(photograph: Photograph, path: Path) -> Image:
    try:
        source = _largest_jpeg(path) if path.suffix == ".edj" else path.read_bytes()
        pixels = read_image(source).pixels  # the few with alpha are opaque
        if photograph.factor > 1:
            pixels = resize(pixels, scale=1 / photograph.factor)
    except (ImageError, struct.error, ValueError, OSError) as error:
        reason = one_line(error)
        raise TrainError(
            f"{path}: got a damaged file ({reason}); expected that of the package, install "
            f"{photograph.package} again"
        ) from None
    return Image(pixels)


def _largest_jpeg(path: Path) -> bytes:
    """The largest JPEG in an Enlightenment theme, which holds its image at many sizes.

    An EET archive is big-endian: magic, number of entries, size of the dictionary of strings;
    then for each entry offset, size, size unpacked, offset and size of its name, flags
    (EFL, src/lib/eet, EET_MAGIC_FILE2). Images are stored without further compression.
    """
    data = path.read_bytes()
    magic, count, _ = struct.unpack_from(">3I", data)
    if magic != 0x1EE70F42:
        raise ValueError("not an EET archive")
    images = []
    for entry in range(count):
        offset, size, _, name, length, _ = struct.unpack_from(">6I", data, 12 + 24 * entry)
        held = data[offset : offset + size]
        if data[name : name + length].startswith(b"edje/images/") and held[:2] == b"\xff\xd8":
            images.append(held)
    if not images:
        raise ValueError("no JPEG in it")
    return max(images, key=len)


def _row(photograph: Photograph, width: int, height: int, digest: str) -> str:
    p = photograph
    cells = (
        f"`{p.file}`",
        p.title,
        p.author,
        p.license,
        p.package,
        f"{width}x{height}",
        f"`{digest}`",
    )
    return f"| {' | '.join(cells)} |"


def _notice(rows: Sequence[str]) -> str:
    return "\n".join(
        (
            "# Licenses of these photographs",
            "",
            "Written by `python -m train.prepare free`. Each file is a photograph that the named",
            "package carries, reduced in size and otherwise unchanged, and stays under the license",
            "of its original; the package holds the text of the license.",
            "",
            "| file | title | author | license | package | size | SHA-256 |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        )
    )
