"""Any image file → a small, upright, clean JPEG, or a refusal that says why."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw

from pipeline.errors import Internal, PipelineError, SourceCorruptImage, SourceTooLarge, SourceUnsupportedMedia
from pipeline.intake.image import MAX_PASSTHROUGH_BYTES, MAX_SCALE, Bounds, Prepared, prepare, to_rgb
from pipeline.intake.media import MAX_SCANS, PNG_SIGNATURE, Kind
from pipeline.settings import PipelineSettings

BOUNDS = Bounds(long_side=1024, max_pixels=50_000_000, max_pixels_other=25_000_000)
SMALL = Bounds(long_side=256, max_pixels=1_000_000, max_pixels_other=500_000)

WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (220, 30, 30), (30, 30, 220)
SECRET = b"37.5665N 126.9780E"
ORIENTATION, DESCRIPTION, GPS = 0x0112, 0x010E, 0x8825

Colour = tuple[int, int, int]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    if kind == Kind.HEIC:
        if isinstance(options.get("exif"), Image.Exif):
            options["exif"] = options["exif"].tobytes()  # The turn is taken from bytes only.
        pillow_heif.from_pillow(image).save(out, **options)
    else:
        image.save(out, kind, **options)
    return out.getvalue()


def heic_of(mode: str, *values: int) -> bytes:
    """A HEIC of 10 bits, one colour all over, given in 16 bits."""
    out = io.BytesIO()
    pillow_heif.encode(mode, (16, 16), struct.pack(f"<{len(values)}H", *values) * 256, out)
    return out.getvalue()


def opened(prepared: Prepared) -> Image.Image:
    image = Image.open(io.BytesIO(prepared.data), formats=("JPEG",))
    image.load()
    assert image.size == (prepared.width, prepared.height)
    return image


def colour(prepared: Prepared, x: float = 0.5, y: float = 0.5) -> Colour:
    """The pixel at these shares of width and height."""
    image = opened(prepared).convert("RGB")
    left, top = int(x * image.width), int(y * image.height)
    red, green, blue = image.crop((left, top, left + 1, top + 1)).tobytes()
    return red, green, blue


def is_like(found: Colour, wanted: Colour) -> bool:
    """JPEG and the colour spaces in between may change a value a little."""
    return all(abs(a - b) <= 20 for a, b in zip(found, wanted, strict=True))


def refusal(data: bytes, bounds: Bounds = BOUNDS) -> type[PipelineError]:
    with pytest.raises(PipelineError) as refused:
        prepare(data, bounds)
    return type(refused.value)


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise(size, 90) for _ in range(3)])


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colours: int, *chunks: bytes, row: bytes = b"") -> bytes:
    """A PNG by hand, each row the same: Pillow cannot write all that it reads."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress((b"\0" + row) * height)) if row else b""
    return PNG_SIGNATURE + head + b"".join(chunks) + data + chunk(b"IEND", b"")


def signpost(size: tuple[int, int]) -> Image.Image:
    """White, with a red corner at the top left and a blue one at the top right."""
    width, height = size
    image = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 4, height // 4), RED)
    draw.rectangle((width - width // 4, 0, width, height // 4), BLUE)
    return image


def as_stored(image: Image.Image, orientation: int) -> Image.Image:
    """Where the EXIF standard says that the first row and the first column lie, written down a second time."""
    rows, columns = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    if rows in {"left", "right"}:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    if rows in {"bottom", "right"}:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if columns in {"bottom", "right"}:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def exif(**tags: Any) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION] = tags.get("orientation", 1)
    block[DESCRIPTION] = SECRET.decode()
    block.get_ifd(GPS)[2] = (37.0, 33.0, 59.4)
    return block


PHOTO = signpost((120, 80))
KINDS = [kind.value for kind in Kind]


@pytest.mark.parametrize("kind", KINDS)
def test_each_accepted_kind_becomes_a_jpeg(kind: str) -> None:
    prepared = prepare(encoded(PHOTO, kind), BOUNDS)
    assert (prepared.width, prepared.height) == (120, 80)
    assert is_like(colour(prepared, 0.1, 0.1), RED)
    assert is_like(colour(prepared, 0.9, 0.1), BLUE)
    assert is_like(colour(prepared, 0.5, 0.9), WHITE)


@pytest.mark.parametrize("kind", KINDS)
def test_one_pixel_is_a_picture(kind: str) -> None:
    prepared = prepare(encoded(Image.new("RGB", (1, 1), RED), kind), BOUNDS)
    assert (prepared.width, prepared.height) == (1, 1)
    assert is_like(colour(prepared, 0, 0), RED)


PRETENDERS = {
    "text": b"this is a photo, believe me",
    "a web page": b"<!DOCTYPE html><html></html>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "HEIF of something else": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1miaf" + bytes(200),
    "BMP": encoded(PHOTO, "BMP"),
    "TIFF": encoded(PHOTO, "TIFF"),
    "ICO": encoded(PHOTO, "ICO"),
    "PPM": encoded(PHOTO, "PPM"),
    "JPEG 2000": encoded(PHOTO, "JPEG2000"),
}


@pytest.mark.parametrize("data", PRETENDERS.values(), ids=PRETENDERS.keys())
def test_other_files_are_unsupported_even_if_pillow_could_read_them(data: bytes) -> None:
    assert refusal(data) is SourceUnsupportedMedia


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff but then text",
        b"\xff\xd8\xff\xd9",
        PNG_SIGNATURE,
        PNG_SIGNATURE + b"text",
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBPVP8 \0\0\0\0",
        b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc\0\0\0\x08moov",
        png(4, 4, 8, 0),
        png(0, 4, 8, 0, row=b"abcd"),
    ],
    ids=["empty", "JPEG", "empty JPEG", "PNG", "PNG text", "GIF", "WebP", "AVIF", "HEIC", "HEIC no still picture",
         "PNG no pixels", "PNG no width"],
)  # fmt: skip
def test_a_file_that_only_begins_like_an_image_is_corrupt(data: bytes) -> None:
    assert refusal(data) is SourceCorruptImage


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_breaks_off_is_corrupt(kind: str, share: float) -> None:
    data = encoded(noise((120, 80)), kind)
    assert refusal(data[: int(len(data) * share)]) is SourceCorruptImage


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 95}, {"exif": exif(orientation=6)}])
@pytest.mark.parametrize("size", [(300, 200), (2000, 1500)])
def test_a_jpeg_that_breaks_off_is_corrupt_on_every_path(options: dict[str, Any], size: tuple[int, int]) -> None:
    data = encoded(noise(size), "JPEG", **options)
    assert refusal(data[: len(data) * 9 // 10]) is SourceCorruptImage


def test_the_broken_sample_is_corrupt(samples: Path) -> None:
    assert refusal((samples / "broken.jpg").read_bytes()) is SourceCorruptImage


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_appended_to_a_file_does_not_matter(kind: str) -> None:
    data = encoded(PHOTO, kind)
    assert prepare(data + encoded(PHOTO.rotate(180), kind) + SECRET, BOUNDS) == prepare(data, BOUNDS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("JPEG", (120, 80)),
        ("JPEG", (3000, 2000)),
        ("PNG", (120, 80)),
        ("WEBP", (120, 80)),
        ("AVIF", (120, 80)),
        ("HEIF", (120, 80)),
    ],
    ids=["JPEG", "large JPEG", "PNG", "WebP", "AVIF", "HEIC"],
)
def test_the_picture_stands_upright(kind: str, size: tuple[int, int], orientation: int) -> None:
    data = encoded(as_stored(signpost(size), orientation), kind, exif=exif(orientation=orientation))
    prepared = prepare(data, BOUNDS)
    assert prepared.width / prepared.height == 1.5
    assert is_like(colour(prepared, 0.1, 0.1), RED)
    assert is_like(colour(prepared, 0.9, 0.1), BLUE)
    assert is_like(colour(prepared, 0.1, 0.9), WHITE)
    assert is_like(colour(prepared, 0.9, 0.9), WHITE)


def test_a_heic_that_is_turned_twice_over_is_turned_once() -> None:
    """Phones write the turn into the container and into EXIF."""
    data = encoded(as_stored(signpost((120, 80)), 6), "HEIF", exif=exif(orientation=6))
    assert b"irot" in data
    assert orientation_of(data) == 6
    prepared = prepare(data, BOUNDS)
    assert (prepared.width, prepared.height) == (120, 80)
    assert is_like(colour(prepared, 0.1, 0.1), RED)


def test_a_heic_that_only_its_exif_turns_is_not_turned() -> None:
    """The standard says so: ISO/IEC 23008-12, annex A."""
    upright = encoded(PHOTO, "HEIF", exif=exif(orientation=1))
    tag = struct.pack(">HHIH", ORIENTATION, 3, 1, 1)
    assert upright.count(tag) == 1
    data = upright.replace(tag, struct.pack(">HHIH", ORIENTATION, 3, 1, 6))
    assert orientation_of(data) == 6
    assert prepare(data, BOUNDS) == prepare(upright, BOUNDS)


def orientation_of(heic: bytes) -> int:
    """What the file's EXIF says."""
    block = Image.Exif()
    block.load(pillow_heif.open_heif(heic).info["exif"])
    return int(block[ORIENTATION])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_does_not_exist_turns_nothing(kind: str, orientation: int) -> None:
    prepared = prepare(encoded(PHOTO, kind, exif=exif(orientation=orientation)), BOUNDS)
    assert is_like(colour(prepared, 0.1, 0.1), RED)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0not a TIFF at all", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF"])
def test_a_broken_exif_block_is_no_reason_to_refuse_a_photo(kind: str, block: bytes) -> None:
    prepared = prepare(encoded(PHOTO, kind, exif=block), BOUNDS)
    assert is_like(colour(prepared, 0.1, 0.1), RED)


METADATA: dict[str, dict[str, Any]] = {
    "JPEG": {"comment": SECRET, "xmp": SECRET},
    "PNG": {},
    "WEBP": {"xmp": SECRET},
    "AVIF": {"xmp": SECRET},
    "HEIF": {"xmp": SECRET},
}


@pytest.mark.parametrize("size", [(120, 80), (3000, 2000)])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", METADATA)
def test_nothing_but_pixels_comes_out(kind: str, orientation: int, size: tuple[int, int]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = METADATA[kind] | {"icc_profile": profile, "exif": exif(orientation=orientation)}
    data = encoded(signpost(size), kind, **options)
    assert SECRET in data
    prepared = prepare(data, BOUNDS)
    assert SECRET not in prepared.data
    assert_clean(prepared)


def test_a_gifs_comment_does_not_come_out() -> None:
    data = encoded(PHOTO, "GIF", comment=SECRET)
    assert SECRET in data
    prepared = prepare(data, BOUNDS)
    assert SECRET not in prepared.data
    assert_clean(prepared)


def assert_clean(prepared: Prepared) -> None:
    image = opened(prepared)
    assert len(image.getexif()) == 0
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression"}


@pytest.mark.parametrize(
    ("ink", "seen"), [((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), BLACK), ((0, 0, 0, 0), WHITE)]
)
@pytest.mark.parametrize("size", [(64, 64), (3000, 2000)])
def test_cmyk_inks_become_colours(ink: tuple[int, int, int, int], seen: Colour, size: tuple[int, int]) -> None:
    prepared = prepare(encoded(Image.new("CMYK", size, ink), "JPEG"), BOUNDS)
    assert opened(prepared).mode == "RGB"
    assert is_like(colour(prepared), seen)


PNGS: dict[str, tuple[bytes, Colour]] = {
    "16 bits of grey": (png(2, 2, 16, 0, row=struct.pack(">HH", 40000, 40000)), (156, 156, 156)),
    "16 bits of grey, one of them transparent": (
        png(2, 2, 16, 0, chunk(b"tRNS", b"\0\1"), row=struct.pack(">HH", 40000, 40000)),
        (156, 156, 156),
    ),
    "16 bits of colour": (png(1, 2, 16, 2, row=struct.pack(">HHH", 56000, 8000, 8000)), (218, 31, 31)),
    "16 bits of colour and alpha": (png(1, 2, 16, 6, row=struct.pack(">HHHH", 0, 0, 0, 0)), WHITE),
    "8 bits of grey": (encoded(Image.new("L", (8, 8), 90), "PNG"), (90, 90, 90)),
    "grey and alpha": (encoded(Image.new("LA", (8, 8), (0, 0)), "PNG"), WHITE),
    "one bit": (encoded(Image.new("1", (8, 8), 1), "PNG"), WHITE),
    "palette": (encoded(Image.new("RGB", (8, 8), RED).quantize(4), "PNG"), RED),
    "palette with a transparent colour": (
        encoded(Image.new("RGB", (8, 8), RED).quantize(4), "PNG", transparency=bytes(4)),
        WHITE,
    ),
    "a transparent colour": (encoded(Image.new("RGB", (8, 8), RED), "PNG", transparency=RED), WHITE),
    "a transparent colour that is not there": (encoded(Image.new("RGB", (8, 8), RED), "PNG", transparency=BLUE), RED),
    "half-transparent black": (encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG"), (127, 127, 127)),
    "full alpha": (encoded(Image.new("RGBA", (8, 8), (*RED, 255)), "PNG"), RED),
}


@pytest.mark.parametrize(("data", "seen"), PNGS.values(), ids=PNGS.keys())
def test_each_way_to_write_colour_in_a_png_is_read(data: bytes, seen: Colour) -> None:
    assert is_like(colour(prepare(data, BOUNDS), 0, 0), seen)


HEICS: dict[str, tuple[bytes, Colour]] = {
    "grey": (encoded(Image.new("L", (16, 16), 90), "HEIF"), (90, 90, 90)),
    "half-transparent black": (encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 128)), "HEIF"), (127, 127, 127)),
    "10 bits of colour": (heic_of("RGB;16", 56000, 8000, 8000), (218, 31, 31)),
    "10 bits of colour and alpha": (heic_of("RGBA;16", 0, 0, 0, 0), WHITE),
    "10 bits of grey": (heic_of("L;16", 40000), (156, 156, 156)),
    "10 bits of grey and alpha": (heic_of("LA;16", 0, 32768), (127, 127, 127)),
    "tiles": (encoded(Image.new("RGB", (300, 200), RED), "HEIF", tile_size=128), RED),
    "with a thumbnail": (encoded(Image.new("RGB", (300, 200), RED), "HEIF", thumbnails=[64]), RED),
    "all chroma": (encoded(Image.new("RGB", (16, 16), RED), "HEIF", chroma=444), RED),
}


@pytest.mark.parametrize(("data", "seen"), HEICS.values(), ids=HEICS.keys())
def test_each_way_to_write_colour_in_a_heic_is_read(data: bytes, seen: Colour) -> None:
    assert is_like(colour(prepare(data, BOUNDS)), seen)


@pytest.mark.parametrize("primary", [0, 1, 2])
def test_the_primary_picture_of_a_heic_of_several_is_taken(primary: int) -> None:
    colours, out = (RED, WHITE, BLUE), io.BytesIO()
    album = pillow_heif.from_pillow(Image.new("RGB", (64, 48), colours[0]))
    for each in colours[1:]:
        album.add_from_pillow(Image.new("RGB", (64, 48), each))
    album.save(out, primary_index=primary)
    assert is_like(colour(prepare(out.getvalue(), BOUNDS)), colours[primary])


def test_a_heif_without_a_brand_of_its_codec_is_read() -> None:
    data = encoded(PHOTO, "HEIF")
    general = data[:8] + b"mif1" + data[12:28].replace(b"heic", b"mif1") + data[28:]
    assert b"heic" not in general
    assert prepare(general, BOUNDS) == prepare(data, BOUNDS)


def test_a_heic_is_unsupported_where_it_is_switched_off() -> None:
    data = encoded(PHOTO, "HEIF")
    off = Bounds(long_side=1024, max_pixels=50_000_000, max_pixels_other=25_000_000, heic=False)
    assert refusal(data, off) is SourceUnsupportedMedia
    assert prepare(encoded(PHOTO, "AVIF"), off).width == 120


def test_a_heic_whose_picture_names_no_size_is_corrupt() -> None:
    """Libheif would decode it, whatever its size."""
    data = encoded(PHOTO, "HEIF")
    assert refusal(data.replace(b"ispe", b"free")) is SourceCorruptImage


def test_a_heic_of_more_pixels_than_it_says_is_corrupt() -> None:
    """Libheif's own check, before the pixels are decoded."""
    data = encoded(Image.new("RGB", (1000, 800)), "HEIF")
    lying = data.replace(struct.pack(">II", 1000, 800), struct.pack(">II", 10, 8))
    assert lying != data
    assert refusal(lying) is SourceCorruptImage


def test_heic_is_decoded_without_threads_and_parts_of_no_use() -> None:
    prepare(encoded(PHOTO, "HEIF"), BOUNDS)
    options = pillow_heif.options
    assert options.DECODE_THREADS == 0
    assert (options.THUMBNAILS, options.DEPTH_IMAGES, options.AUX_IMAGES) == (False, False, False)


def test_pillow_heif_is_loaded_by_the_first_heic_only(tmp_path: Path) -> None:
    """The local model imports this module too, and never needs it."""
    (tmp_path / "a.avif").write_bytes(encoded(PHOTO, "AVIF"))
    (tmp_path / "a.heic").write_bytes(encoded(PHOTO, "HEIF"))
    script = (
        "import pathlib, sys; from pipeline.intake.image import Bounds, prepare\n"
        "for name in sys.argv[1:]:\n"
        "    prepare(pathlib.Path(name).read_bytes(), Bounds(1024, 10**6, 10**6))\n"
        "    print('pillow_heif' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.avif"), str(tmp_path / "a.heic")]
    done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=Path(__file__).parents[4])
    assert done.stdout.split() == ["False", "True"]


def test_a_heic_that_cannot_be_decoded_here_is_not_the_callers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert refusal(encoded(PHOTO, "HEIF")) is Internal
    assert prepare(encoded(PHOTO, "AVIF"), BOUNDS).width == 120


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "GIF", "HEIF"])
def test_what_is_transparent_is_white(kind: str) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 32, 64))
    prepared = prepare(encoded(image, kind), BOUNDS)
    assert is_like(colour(prepared, 0.2), RED)
    assert is_like(colour(prepared, 0.8), WHITE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (64, 64), RED), Image.new("RGB", (64, 64), BLUE)
    data = encoded(first, kind, save_all=True, append_images=[second, first, second])
    assert Image.open(io.BytesIO(data)).n_frames == 4  # type: ignore[attr-defined]  # of the plugins' classes
    assert is_like(colour(prepare(data, BOUNDS)), RED)


def test_the_first_picture_of_a_phones_file_of_several_is_taken() -> None:
    first, second = Image.new("RGB", (64, 64), RED), Image.new("RGB", (64, 64), BLUE)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert is_like(colour(prepare(data, BOUNDS)), RED)


def jpeg_header(width: int, height: int) -> bytes:
    """Says its size and ends before the first pixel."""
    data = encoded(PHOTO, "JPEG")
    size = data.index(b"\xff\xc0") + 5
    return data[:size] + struct.pack(">HH", height, width) + data[size + 4 : data.index(b"\xff\xda")]


def webp_header(width: int, height: int) -> bytes:
    body = b"VP8X\x0a\0\0\0" + bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


def gif_header(width: int, height: int) -> bytes:
    frame = b",\0\0\0\0" + struct.pack("<HH", width, height) + b"\0\2"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + frame


def heic_header(width: int, height: int) -> bytes:
    data = b"\0\0\0\0" + struct.pack(">II", width, height)
    for name, rest in ((b"ispe", b""), (b"ipco", b""), (b"iprp", b""), (b"meta", bytes(4))):
        data = struct.pack(">I", len(rest + data) + 8) + name + rest + data
    return b"\0\0\0\x14ftypheic\0\0\0\0mif1" + data


HEADERS = {
    "JPEG": jpeg_header(8000, 6251),
    "JPEG that Pillow calls a bomb": jpeg_header(60_000, 60_000),
    "PNG": png(5001, 5000, 8, 2),
    "PNG that Pillow calls a bomb": png(2**31 - 1, 2**31 - 1, 8, 2),
    "WebP": webp_header(5001, 5000),
    "WebP of the largest canvas": webp_header(2**24, 2**24),
    "GIF": gif_header(5001, 5000),
    "GIF of the largest screen": gif_header(65535, 65535),
    "HEIC": heic_header(5001, 5000),
    "HEIC of the largest size": heic_header(2**32 - 1, 2**32 - 1),
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS.keys())
def test_too_many_pixels_are_refused_by_the_header_alone(data: bytes) -> None:
    """There is nothing behind these headers: a decoder would call them corrupt."""
    assert refusal(data) is SourceTooLarge


@pytest.mark.parametrize(
    "data",
    [
        jpeg_header(8000, 6250),
        png(5000, 5000, 8, 2),
        gif_header(5000, 5000),
        webp_header(5000, 5000),
        heic_header(5000, 5000),
    ],
    ids=["JPEG", "PNG", "GIF", "WebP", "HEIC"],
)
def test_as_many_pixels_as_allowed_are_tried(data: bytes) -> None:
    assert refusal(data) is SourceCorruptImage


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_cap(kind: str) -> None:
    data = encoded(PHOTO, kind)
    pixels = 120 * 80
    cap, other = ("max_pixels", "max_pixels_other") if kind == "JPEG" else ("max_pixels_other", "max_pixels")
    tight: dict[str, Any] = {"long_side": 256, cap: pixels - 1, other: 10**9}
    wide: dict[str, Any] = {"long_side": 256, cap: pixels, other: 1}
    assert refusal(data, Bounds(**tight)) is SourceTooLarge
    assert prepare(data, Bounds(**wide)).width == 120


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_in_a_pngs_metadata_is_never_unpacked(name: bytes) -> None:
    bomb = zlib.compress(bytes(100_000_000))
    body = b"a\0\1\0\0\0" + bomb if name == b"iTXt" else b"a\0\0" + bomb
    data = png(4, 4, 8, 2, chunk(name, body), row=bytes(RED) * 4)
    assert is_like(colour(prepare(data, BOUNDS)), RED)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encoded(PHOTO.convert("L"), "JPEG")
    start = data.index(b"\xff\xda")
    many = data[:start] + data[start:-2] * (MAX_SCANS + 1) + data[-2:]
    assert refusal(many) is SourceTooLarge


def test_a_small_clean_jpeg_is_passed_on_as_it_is() -> None:
    data = encoded(noise((400, 300)), "JPEG", quality=90)
    assert prepare(data, BOUNDS).data == data


def test_a_small_jpeg_in_the_arithmetic_coding_is_encoded_again() -> None:
    """Models would not read it. To this coding zeros are a picture, too."""
    data = encoded(Image.new("L", (16, 16)), "JPEG")
    end = data.index(b"\xff\xda") + 2 + 8  # A scan of one component has a header of 8 bytes.
    prepared = prepare(data[:end].replace(b"\xff\xc0", b"\xff\xc9") + bytes(8) + b"\xff\xd9", BOUNDS)
    assert b"\xff\xc0" in prepared.data
    assert opened(prepared).size == (16, 16)


def test_a_small_upright_jpeg_keeps_its_pixels(samples: Path) -> None:
    data = (samples / "glass-1.jpg").read_bytes()
    before, after = Image.open(io.BytesIO(data)), opened(prepare(data, BOUNDS))
    assert after.tobytes() == before.tobytes()


def test_a_small_grey_jpeg_stays_grey() -> None:
    data = encoded(PHOTO.convert("L"), "JPEG")
    assert prepare(data, BOUNDS).data == data


def test_a_jpeg_of_many_bytes_is_encoded_again() -> None:
    data = encoded(noise((1000, 800)), "JPEG", quality=100, subsampling=0)
    assert len(data) > MAX_PASSTHROUGH_BYTES
    prepared = prepare(data, BOUNDS)
    assert (prepared.width, prepared.height) == (1000, 800)
    assert len(prepared.data) < len(data)


@pytest.mark.parametrize("size", [(1537, 1000), (4032, 3024), (3024, 4032), (6000, 40), (40, 6000), (9000, 5000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_shrinks_to_about_the_target(kind: str, size: tuple[int, int]) -> None:
    prepared = prepare(encoded(Image.new("RGB", size, RED), kind), Bounds(1024, 10**8, 10**8))
    longest = max(prepared.width, prepared.height)
    assert 0.75 * 1024 <= longest <= MAX_SCALE * 1024
    ratio = longest / max(size)
    assert abs(min(prepared.width, prepared.height) - min(size) * ratio) <= 1
    assert (prepared.width > prepared.height) == (size[0] > size[1])


@given(
    width=st.integers(1, 1500), height=st.integers(1, 1500), kind=st.sampled_from(["JPEG", "PNG"]),
    orientation=st.sampled_from([1, 6]),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_no_picture_comes_out_larger_than_one_and_a_half_targets(
    width: int, height: int, kind: str, orientation: int
) -> None:
    data = encoded(Image.new("L", (width, height)), kind, exif=exif(orientation=orientation))
    bounds = Bounds(256, 10**7, 10**7)
    prepared = prepare(data, bounds)
    longest = max(prepared.width, prepared.height)
    assert min(max(width, height), 0.75 * 256) <= longest <= min(max(width, height), MAX_SCALE * 256)


def test_the_local_models_view_is_a_square_of_colours() -> None:
    grey = to_rgb(prepare(encoded(Image.new("L", (300, 100), 90), "JPEG"), BOUNDS).data, 64)
    assert (grey.shape, str(grey.dtype)) == ((64, 64, 3), "uint8")
    assert abs(int(grey.mean()) - 90) <= 1


FILES = [encoded(noise((24, 16)), kind) for kind in KINDS] + [
    encoded(noise((24, 16)), "JPEG", progressive=True, exif=exif(orientation=6)),
    encoded(noise((24, 16)), "WEBP", lossless=True),
    encoded(noise((24, 16)), "GIF", save_all=True, append_images=[noise((24, 16))]),
    encoded(noise((24, 16)).quantize(8), "PNG", exif=exif(orientation=6)),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes changed, put in or taken out."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)


beginnings = st.sampled_from([data[:size] for data in FILES for size in (8, 12, 40)])


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow thinks of damaged tags
@given(
    data=st.one_of(st.binary(max_size=100), st.builds(bytes.__add__, beginnings, st.binary(max_size=100)), damaged())
)
@example(data=b"")
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_become_a_bounded_jpeg_or_one_of_three_refusals(data: bytes) -> None:
    try:
        prepared = prepare(data, SMALL)
    except (SourceUnsupportedMedia, SourceCorruptImage, SourceTooLarge):
        return
    assert max(opened(prepared).size) <= MAX_SCALE * SMALL.long_side


def test_the_document_names_every_limit() -> None:
    text = (Path(__file__).parents[4] / "docs" / "intake.md").read_text()
    fields = PipelineSettings.model_fields
    names = [name for name in fields if name.startswith(("fetch_", "image_"))]
    missing = [name for name in names if f"`{fields[name].validation_alias or f'PIPELINE_{name.upper()}'}`" not in text]
    assert missing == []
