"""Structure of image files, read before anything is decoded: kind, size, and the parts that are not pixels.

Pure and bounded: each function is one pass over the file's own structure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import SourceTooLarge


class Kind(StrEnum):
    """The accepted kinds, by Pillow's names for them; HEIC by pillow-heif's."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    AVIF = "AVIF"
    HEIC = "HEIF"


MAX_SCANS = 100
"""Scans of one JPEG. Encoders write about ten; each costs a pass over all pixels, so 2 000 take 20 s of CPU."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
_HEIF = frozenset({b"mif1", b"msf1"})
"""Brands of the container, which say nothing about its content: it may be AV1, JPEG or uncompressed pixels, too."""

_HEVC = b"hvcC"
"""The box that configures an HEVC decoder: a file without one has no HEVC picture."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _APP0, _APP1, _APP14, _TEM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0x01
_STANDALONE = frozenset({_SOI, _TEM, *range(0xD0, 0xD8)})
_TABLES = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD})
"""Segments that a decoder needs: frame headers, Huffman and quantisation tables, restart intervals."""

_ARITHMETIC = frozenset(range(0xC9, 0xD0))
"""Frame headers of the arithmetic coding, and its tables."""

_JFIF_BYTES = 16
"""An APP0 of this length has no thumbnail."""

_ADOBE_BYTES = 12
"""Bytes that a decoder reads of an Adobe segment; the rest is dropped, because it could be anything."""

_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
"""Chunks that are kept: no animation, no colour profile, no compressed text, which can be a bomb."""


@dataclass(frozen=True, slots=True)
class JpegFile:
    """`data`: the first image, with only the segments that a decoder needs.

    `is_arithmetic`: arithmetic coding, which libjpeg can decode but browsers and most others cannot.
    """

    data: bytes
    exif: bytes
    is_arithmetic: bool


def sniff(data: bytes) -> Kind | None:
    """The kind, by the file's first bytes: file names and Content-Type may be wrong. None if it is not accepted."""
    if data.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    if data.startswith(PNG_SIGNATURE):
        return Kind.PNG
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Kind.GIF
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Kind.WEBP
    if data[4:8] == b"ftyp":
        return _sniff_iso(data)
    return None


def clean_jpeg(data: bytes) -> JpegFile:
    """Remove EXIF, XMP, comments, colour profile, thumbnails, further images and bytes after the end.

    A truncated file is returned as far as it goes: the decoder will report the truncation.
    Raises SourceTooLarge for more than MAX_SCANS scans.
    """
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    exif, scans, is_arithmetic = b"", 0, False
    for code, start, end in _segments(data):
        if code == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise SourceTooLarge(f"a JPEG of more than {MAX_SCANS} scans")
        if code == _APP1 and data.startswith(b"Exif\0\0", start + 4):
            exif = exif or data[start + 4 : end]
        is_arithmetic = is_arithmetic or code in _ARITHMETIC
        if _is_adobe(code, data, start, end):
            kept.append(b"\xff\xee" + (_ADOBE_BYTES + 2).to_bytes(2) + data[start + 4 : start + 4 + _ADOBE_BYTES])
        elif _is_needed(code, data, start, end):
            kept.append(memoryview(data)[start:end])
    return JpegFile(b"".join(kept), exif, is_arithmetic)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker code, start and end of each segment after the first marker; a scan's end is its entropy data's."""
    position = 2
    while marker := _MARKER.search(data, position):
        start, code = marker.start(), data[marker.end() - 1]
        position = marker.end()
        if code in _STANDALONE:
            continue
        if code == _EOI:
            yield code, start, position
            return
        position += int.from_bytes(data[position : position + 2])
        if code == _SOS:
            end = _END_OF_SCAN.search(data, position)
            position = end.start() if end else len(data)
        yield code, start, min(position, len(data))


def _is_needed(code: int, data: bytes, start: int, end: int) -> bool:
    if code == _APP0:
        return data.startswith(b"JFIF\0", start + 4) and end - start == _JFIF_BYTES + 2
    return code in _TABLES or code in {_SOS, _EOI}


def _is_adobe(code: int, data: bytes, start: int, end: int) -> bool:
    """Whether this segment says how colours are stored."""
    return code == _APP14 and data.startswith(b"Adobe", start + 4) and end - start >= _ADOBE_BYTES + 4


def clean_png(data: bytes) -> bytes:
    """Keep only the chunks of the still image and its orientation. Leaves checksums for the decoder to check."""
    kept, position = [memoryview(PNG_SIGNATURE)], len(PNG_SIGNATURE)
    while position + 8 <= len(data):
        name = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if name in _PNG_CHUNKS:
            kept.append(memoryview(data)[position:end])
        if name == b"IEND":
            break
        position = end
    return b"".join(kept)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Size of the canvas, from the header: Pillow allocates the canvas on opening, before its size can be checked."""
    head = data[12:16]
    if head == b"VP8X":
        return _little(data[24:27]) + 1, _little(data[27:30]) + 1
    if head == b"VP8L":
        bits = _little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head == b"VP8 ":
        return _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF
    return None


def heic_size(data: bytes) -> tuple[int, int] | None:
    """Size of the largest picture in the file: the primary picture may be a crop of it, or be derived from it."""
    sizes = (
        (int.from_bytes(data[start + 4 : start + 8]), int.from_bytes(data[start + 8 : start + 12]))
        for start in _find(data, (b"meta", b"iprp", b"ipco", b"ispe"), 0, len(data))
    )
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def first_heic(data: bytes) -> bytes:
    """The first of concatenated files: libheif would use the directory of a second file for the first one."""
    seen: set[bytes] = set()
    for name, start, _, _ in _boxes(data, 0, len(data)):
        if name in seen:
            return data[:start]
        if name in {b"ftyp", b"meta"}:
            seen.add(name)
    return data


def _find(data: bytes, path: tuple[bytes, ...], start: int, end: int) -> Iterator[int]:
    """Offsets of the bodies of the ISO media boxes at this path."""
    for name, _, body, stop in _boxes(data, start, end):
        if name == path[0] and len(path) == 1:
            yield body
        elif name == path[0]:
            yield from _find(data, path[1:], body + 4 if name == b"meta" else body, stop)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Each ISO media box between `start` and `end`: name, start, start of the body, end."""
    while start + 8 <= end:
        size, body = int.from_bytes(data[start : start + 4]), start + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8]), body + 8
        stop = min(start + size, end) if size else end
        if stop < body:
            return
        yield data[start + 4 : start + 8], start, body, stop
        start = stop


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _sniff_iso(data: bytes) -> Kind | None:
    brands = set(_brands(data))
    if _AVIF & brands:
        return Kind.AVIF
    if _HEIC & brands or (_HEIF & brands and _HEVC in data):
        return Kind.HEIC
    return None


def _brands(data: bytes) -> list[bytes]:
    """Major and compatible brands of an ISO media file."""
    end = min(int.from_bytes(data[:4]), 256)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
