"""Which format a file has, from its first bytes."""

from __future__ import annotations

from pathlib import PurePath

HEAD = 32
"""How many bytes tell a format."""

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"\xff\x0a": "jxl",
    b"\0\0\0\x0cJXL \r\n\x87\n": "jxl",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jp2",
    b"\xff\x4f\xff\x51": "jp2",
}
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BRANDS = {b"avif": "avif", b"avis": "avif"}

RAW = "a camera's raw file, which is not developed here; export a 16-bit TIFF from it"
_NOT_READ = {
    b"FUJIFILMCCD-RAW": RAW,
    b"IIRO": RAW,
    b"IIRS": RAW,
    b"MMOR": RAW,
    b"IIU\0": RAW,
    b"FOVb": RAW,
    b"\0MRM": RAW,
    b"SIMPLE  =": "a FITS file, which is not read; export a TIFF of floats from it",
    b"v/1\x01": "an OpenEXR file, which is not read; export a TIFF of floats from it",
    b"#?RADIANCE": "a Radiance HDR file, which is not read; export a TIFF of floats from it",
    b"8BPS": "a Photoshop document, which is not read; export a TIFF or PNG from it",
    b"%PDF": "a PDF document, which is not read; export its images as PNG",
}
_HEIF = "an HEIC image, which is not read; export a PNG, TIFF or JPEG from it"
_NOT_READ_BRANDS = {b"heic": _HEIF, b"heix": _HEIF, b"hevc": _HEIF, b"hevx": _HEIF, b"heim": _HEIF}
_NOT_READ_BRANDS |= {b"mif1": _HEIF, b"msf1": _HEIF, b"crx ": RAW}

# Of the raw files that begin as a TIFF.
_RAW_EXTENSIONS = (
    *(".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos"),
    *(".nef", ".nrw", ".pef", ".rwl", ".sr2", ".srf", ".srw"),
)


def sniff(data: bytes, name: str = "") -> str | None:
    """The format the first bytes announce, or None; TGA has no mark but its extension."""
    for start, format in _STARTS.items():
        if data.startswith(start):
            return format
    if data.startswith(_TIFF):
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        # A still of AVIF may have the general brand first.
        brands = [data[8:12], *(data[n : n + 4] for n in range(16, len(data[:HEAD]) - 3, 4))]
        return "avif" if any(brand in _BRANDS for brand in brands) else None
    if data[:1] == b"P" and data[1:2] in b"123456Ff" and data[2:3] in b" \t\r\n#":
        return "netpbm"
    if PurePath(name).suffix.lower() == ".tga" and _is_tga(data):
        return "tga"
    return None


def _is_tga(data: bytes) -> bool:
    # Color map type, image type, and bits a pixel.
    return len(data) >= 18 and data[1] < 2 and data[2] in (1, 2, 3, 9, 10, 11) and data[16] <= 32


def why_not_read(data: bytes, name: str = "") -> str | None:
    """What a file is, and what to do, if it is an image of a known kind that is not read."""
    if data[8:10] == b"CR" and data.startswith(b"II*\0"):
        return RAW
    kind = sniff(data, name)
    if kind is not None:
        raw = kind == "tiff" and PurePath(name).suffix.lower() in _RAW_EXTENSIONS
        return RAW if raw else None
    if data[4:8] == b"ftyp":
        return _NOT_READ_BRANDS.get(data[8:12])
    for start, reason in _NOT_READ.items():
        if data.startswith(start):
            return reason
    return None
