"""What is read from a file's structure alone: its kind, its size, and which parts are not pixels."""

import io
import struct
import zlib
from typing import Any

import pillow_heif
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pipeline.errors import SourceTooLarge
from pipeline.intake.media import (
    MAX_SCANS,
    PNG_SIGNATURE,
    Kind,
    clean_jpeg,
    clean_png,
    first_heic,
    heic_size,
    sniff,
    webp_size,
)

PICTURE = Image.radial_gradient("L").resize((40, 24)).convert("RGB")
SECRET = b"37.5665N 126.9780E"


def encoded(kind: Kind, image: Image.Image = PICTURE, **options: Any) -> bytes:
    out = io.BytesIO()
    if kind is Kind.HEIC:
        pillow_heif.from_pillow(image).save(out, **options)
    else:
        image.save(out, kind, **options)
    return out.getvalue()


def segment(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(body) + 2).to_bytes(2) + body


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def box(name: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I", sum(map(len, parts)) + 8) + name + b"".join(parts)


def brands(major: bytes, *compatible: bytes) -> bytes:
    return box(b"ftyp", major, bytes(4), *compatible)


def sizes(*pictures: tuple[int, int]) -> bytes:
    """The directory of an ISO media file that holds pictures of these sizes."""
    properties = [box(b"ispe", bytes(4), struct.pack(">II", *picture)) for picture in pictures]
    return box(b"meta", bytes(4), box(b"hdlr"), box(b"iprp", box(b"ipco", box(b"pixi"), *properties)))


def with_scans(count: int) -> bytes:
    """A grey JPEG whose one scan is repeated."""
    data = encoded(Kind.JPEG, PICTURE.convert("L"))
    start = data.index(b"\xff\xda")
    return data[:start] + data[start:-2] * count + b"\xff\xd9"


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


JPEG = encoded(Kind.JPEG)
PNG = encoded(Kind.PNG)
HEIC = encoded(Kind.HEIC)
HEVC = box(b"meta", bytes(4), box(b"hvcC"))


@pytest.mark.parametrize("kind", Kind)
def test_a_file_is_known_by_its_first_bytes(kind: Kind) -> None:
    assert sniff(encoded(kind)) is kind


def test_an_animated_avif_is_an_avif() -> None:
    assert sniff(encoded(Kind.AVIF, save_all=True, append_images=[PICTURE.rotate(180)])) is Kind.AVIF


BRANDS = {
    "heic": (brands(b"heic", b"mif1"), Kind.HEIC),
    "heix": (brands(b"heix"), Kind.HEIC),
    "heim": (brands(b"heim"), Kind.HEIC),
    "heis": (brands(b"heis"), Kind.HEIC),
    "hevc": (brands(b"hevc", b"msf1"), Kind.HEIC),
    "hevx": (brands(b"hevx"), Kind.HEIC),
    "heic among the compatible": (brands(b"mif1", b"miaf", b"heic"), Kind.HEIC),
    "mif1 with HEVC in it": (brands(b"mif1", b"miaf") + HEVC, Kind.HEIC),
    "msf1 with HEVC in it": (brands(b"msf1") + HEVC, Kind.HEIC),
    "mif1 with something else in it": (brands(b"mif1", b"miaf") + box(b"meta", bytes(4), box(b"jpgC")), None),
    "msf1 with something else in it": (brands(b"msf1") + box(b"moov"), None),
    "a video with HEVC in it": (brands(b"mp42", b"isom") + HEVC, None),
    "avif": (brands(b"avif", b"mif1"), Kind.AVIF),
    "avis": (brands(b"avis", b"avif", b"msf1"), Kind.AVIF),
    "avif among the compatible": (brands(b"mif1", b"miaf", b"avif") + HEVC, Kind.AVIF),
    "avif that claims to be HEIC too": (brands(b"avif", b"heic"), Kind.AVIF),
}


@pytest.mark.parametrize(("data", "kind"), BRANDS.values(), ids=BRANDS.keys())
def test_an_iso_media_file_is_known_by_its_brands_and_codec(data: bytes, kind: Kind | None) -> None:
    assert sniff(data) is kind


PRETENDERS = {
    "nothing": b"",
    "text": b"this is a photo, believe me",
    "a web page": b"<!DOCTYPE html><html><img src=a.jpg></html>",
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": b"%PDF-1.7\n",
    "TIFF": b"II*\x00" + bytes(20),
    "BMP": b"BM" + bytes(60),
    "video": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42",
    "sound": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "a box that ends before its brand": b"\x00\x00\x00\x10ftypmp42\x00\x00\x00\x00avif",
    "JPEG's first two bytes": b"\xff\xd8",
    "a photo after a blank line": b"\n" + JPEG,
}


@pytest.mark.parametrize("data", PRETENDERS.values(), ids=PRETENDERS.keys())
def test_what_is_not_accepted_is_no_kind(data: bytes) -> None:
    assert sniff(data) is None


def test_only_what_decodes_is_left_of_a_jpeg() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    data = encoded(Kind.JPEG, comment=SECRET, icc_profile=profile, exif=exif, xmp=b"<x>" + SECRET + b"</x>")
    thumbnail = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1" + b"rgb")
    extension = segment(0xE0, b"JFXX\0\x10" + SECRET)
    data = data[:2] + thumbnail + extension + segment(0xED, b"Photoshop 3.0\0" + SECRET) + data[2:]
    assert clean_jpeg(data).data == clean_jpeg(JPEG).data


def test_a_jpeg_that_is_clean_stays_as_it_is() -> None:
    assert clean_jpeg(JPEG).data == JPEG
    assert clean_jpeg(JPEG).exif == b""


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_cleaning_leaves_a_jpegs_pixels_alone(options: dict[str, Any]) -> None:
    data = encoded(Kind.JPEG, exif=b"Exif\0\0" + SECRET, **options)
    clean = clean_jpeg(data).data
    assert SECRET not in clean
    assert pixels(clean) == pixels(data)


def test_the_first_exif_block_is_handed_out() -> None:
    first, second = segment(0xE1, b"Exif\0\0first"), segment(0xE1, b"Exif\0\0second")
    data = JPEG[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0") + first + second + JPEG[2:]
    assert clean_jpeg(data).exif == b"Exif\0\0first"


def test_the_adobe_mark_that_tells_the_colours_is_kept() -> None:
    data = encoded(Kind.JPEG, PICTURE.convert("CMYK"))
    assert b"Adobe" in clean_jpeg(data).data
    assert pixels(clean_jpeg(data).data) == pixels(data)


@pytest.mark.parametrize("code", [0xDC, 0xEE])
def test_a_segment_of_no_use_to_a_decoder_hides_nothing(code: int) -> None:
    data = JPEG[:2] + segment(code, b"Adobe\0\x64\0\0\0\0\1" + SECRET) + JPEG[2:]
    clean = clean_jpeg(data).data
    assert SECRET not in clean
    assert pixels(clean) == pixels(data)


def test_an_adobe_mark_that_breaks_off_is_left_out() -> None:
    assert clean_jpeg(JPEG[:2] + segment(0xEE, b"Adobe\0\x64") + JPEG[2:]).data == JPEG


def test_the_arithmetic_coding_is_told() -> None:
    assert not clean_jpeg(JPEG).is_arithmetic
    assert not clean_jpeg(encoded(Kind.JPEG, progressive=True)).is_arithmetic
    assert clean_jpeg(JPEG.replace(b"\xff\xc0", b"\xff\xc9")).is_arithmetic


def test_what_follows_a_jpegs_end_is_left_out() -> None:
    assert clean_jpeg(JPEG + encoded(Kind.JPEG, PICTURE.rotate(180)) + SECRET).data == JPEG


def test_a_jpeg_that_breaks_off_is_not_completed() -> None:
    cut = JPEG[: len(JPEG) * 2 // 3]
    assert clean_jpeg(cut).data == cut


def test_filling_bytes_before_a_marker_are_skipped() -> None:
    filled = JPEG[:2] + b"\xff\xff\xff" + JPEG[2:]
    assert clean_jpeg(filled).data == JPEG


def test_a_jpeg_may_have_so_many_scans_and_not_one_more() -> None:
    most = with_scans(MAX_SCANS)
    assert clean_jpeg(most).data == most
    with pytest.raises(SourceTooLarge):
        clean_jpeg(with_scans(MAX_SCANS + 1))


def test_only_what_makes_the_still_image_is_left_of_a_png() -> None:
    extra = b"".join(chunk(name, SECRET) for name in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"acTL", b"tIME", b"prVt"))
    header = PNG.index(b"IDAT") - 4
    assert clean_png(PNG[:header] + extra + PNG[header:] + SECRET) == clean_png(PNG)
    assert pixels(clean_png(PNG)) == pixels(PNG)


@pytest.mark.parametrize("name", [b"PLTE", b"tRNS", b"eXIf"])
def test_colours_and_orientation_of_a_png_are_kept(name: bytes) -> None:
    kept = chunk(name, b"abc")
    assert clean_png(PNG_SIGNATURE + kept) == PNG_SIGNATURE + kept


def test_a_png_chunk_that_claims_more_than_there_is_ends_the_file() -> None:
    lying = struct.pack(">I", 0xFFFFFFFF) + b"tEXt"
    assert clean_png(PNG_SIGNATURE + lying + PNG[len(PNG_SIGNATURE) :]) == PNG_SIGNATURE


@pytest.mark.parametrize("size", [(1, 1), (40, 24), (1000, 3), (3, 1000)])
@pytest.mark.parametrize(
    ("head", "options"),
    [(b"VP8 ", {"quality": 80}), (b"VP8L", {"lossless": True}), (b"VP8X", {"exif": b"Exif\0\0x"})],
    ids=["lossy", "lossless", "extended"],
)
def test_a_webps_size_is_in_its_header(head: bytes, options: dict[str, Any], size: tuple[int, int]) -> None:
    data = encoded(Kind.WEBP, PICTURE.resize(size), **options)
    assert data[12:16] == head
    assert webp_size(data[:30]) == size


def test_a_webp_of_another_make_has_no_size_to_be_read() -> None:
    assert webp_size(b"RIFF\0\0\0\0WEBPALPH" + bytes(20)) is None


@pytest.mark.parametrize(
    ("size", "stored"), [((64, 64), (64, 64)), ((120, 80), (120, 80)), ((1000, 3), (1000, 64)), ((3, 1000), (64, 1000))]
)
def test_a_heics_size_is_in_its_directory_as_it_is_stored(size: tuple[int, int], stored: tuple[int, int]) -> None:
    data = encoded(Kind.HEIC, PICTURE.resize(size))
    assert heic_size(data[: data.index(b"mdat")]) == stored


def test_a_heic_is_as_large_as_the_largest_of_its_pictures() -> None:
    assert heic_size(brands(b"heic") + sizes((64, 48), (4000, 3000), (320, 240))) == (4000, 3000)


def test_a_box_may_have_a_long_size_or_reach_to_the_end() -> None:
    properties = sizes((40, 24))[8:]
    long = struct.pack(">I4sQ", 1, b"meta", len(properties) + 16)
    endless = struct.pack(">I4s", 0, b"meta")
    assert heic_size(HEIC[:28] + long + properties) == (40, 24)
    assert heic_size(HEIC[:28] + endless + properties) == (40, 24)


@pytest.mark.parametrize(
    "data",
    [b"", brands(b"heic"), brands(b"heic") + sizes(), box(b"mdat", sizes((9, 9))), b"\0\0\0\7meta" + sizes((9, 9))],
    ids=["nothing", "no directory", "no picture", "a directory among the pixels", "a box shorter than its head"],
)
def test_a_heic_that_names_no_size_has_none(data: bytes) -> None:
    assert heic_size(data) is None


@pytest.mark.parametrize("second", [HEIC, HEIC[28:]], ids=["a file", "a directory"])
def test_what_follows_a_heic_is_left_out(second: bytes) -> None:
    video = box(b"mpvd", SECRET)
    assert first_heic(HEIC) == HEIC
    assert first_heic(HEIC + video + second) == HEIC + video


segments = st.builds(segment, st.integers(0, 255), st.binary(max_size=20)) | st.binary(max_size=20)
chunks = st.builds(chunk, st.sampled_from([b"IHDR", b"IDAT", b"tEXt", b"IEND"]), st.binary(max_size=20)) | st.binary(
    max_size=20
)


@given(parts=st.lists(segments, max_size=12).map(b"".join))
@example(parts=JPEG[2:])
def test_cleaning_a_jpeg_twice_changes_nothing(parts: bytes) -> None:
    once = clean_jpeg(b"\xff\xd8" + parts).data
    assert len(once) <= len(parts) + 2
    assert clean_jpeg(once).data == once


@given(parts=st.lists(chunks, max_size=12).map(b"".join))
@example(parts=PNG[len(PNG_SIGNATURE) :])
def test_cleaning_a_png_twice_changes_nothing(parts: bytes) -> None:
    once = clean_png(PNG_SIGNATURE + parts)
    assert len(once) <= len(parts) + len(PNG_SIGNATURE)
    assert clean_png(once) == once


boxes = st.recursive(
    st.builds(box, st.sampled_from([b"ispe", b"hdlr", b"mdat", b"ftyp"]), st.binary(max_size=12)),
    lambda inner: st.builds(
        lambda name, parts: box(name, *parts), st.sampled_from([b"meta", b"iprp", b"ipco"]), st.lists(inner, max_size=3)
    ),
    max_leaves=8,
) | st.binary(max_size=20)


@given(data=st.lists(boxes, max_size=8).map(b"".join))
@example(data=HEIC + HEIC)
def test_any_boxes_have_an_end_and_a_size_or_none(data: bytes) -> None:
    first = first_heic(data)
    assert data.startswith(first)
    assert first_heic(first) == first
    size = heic_size(data)
    assert size is None or b"ispe" in data


heads = st.sampled_from(
    [b"", b"RIFF....WEBP", b"RIFF....WEBPVP8 ", b"RIFF....WEBPVP8X", b"\0\0\0\x40ftyp", b"\xff\xd8\xff"]
)


@given(data=st.builds(bytes.__add__, heads, st.binary(max_size=64)))
def test_any_bytes_have_a_kind_or_none(data: bytes) -> None:
    assert (sniff(data) is Kind.JPEG) == data.startswith(b"\xff\xd8\xff")
    assert (webp_size(data) is None) == (data[12:16] not in {b"VP8 ", b"VP8L", b"VP8X"})
