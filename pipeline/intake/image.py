"""Image bytes → a small, upright, clean JPEG. The only user of Pillow and of pillow-heif.

`python -m pipeline.intake.image` is the decode process that `pipeline.intake.decode` starts and kills: it must stay
cheap to import, so nothing heavier than Pillow is imported here. The first HEIC imports pillow-heif.
"""

import hashlib
import io
import json
import resource
import signal
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import AvifImagePlugin, ExifTags, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pipeline.errors import Internal, PipelineError, SourceCorruptImage, SourceTooLarge, SourceUnsupportedMedia
from pipeline.intake.media import Kind, clean_jpeg, clean_png, first_heic, heic_size, sniff, webp_size

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

PLUGINS = (AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
"""Importing them registers their formats; otherwise the first WebP or AVIF makes Pillow import all its plugins."""

PILLOW_KINDS = tuple(kind for kind in Kind if kind is not Kind.HEIC)
"""The kinds that Pillow itself opens."""

MAX_SCALE = 1.5
"""A long side up to this × the target is not resized: with the four DCT scales half of all sizes would need it."""

MAX_PASSTHROUGH_BYTES = 384 * 1024
"""A larger JPEG is encoded again: its bytes stay in memory during the model call, encoding takes 3 ms."""

JPEG_QUALITY = 85

FRAME = struct.Struct(">II")
"""Lengths of the two parts of a message between the processes: JSON, then bytes."""

TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the operation that makes the image upright."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`long_side`: target in pixels. `max_pixels`: of a JPEG; `max_pixels_other`: of formats that decode whole."""

    long_side: int
    max_pixels: int
    max_pixels_other: int
    heic: bool = True


@dataclass(frozen=True, slots=True)
class Prepared:
    """A JPEG without metadata."""

    data: bytes
    width: int
    height: int


def prepare(data: bytes, bounds: Bounds) -> Prepared:
    """Shrink and re-encode a photo. Raises `source.*` errors, and Internal if pillow-heif cannot be loaded.

    Blocks, and only the number of pixels bounds how long: run it where it can be killed.
    """
    kind = sniff(data)
    if kind is None:
        raise SourceUnsupportedMedia("not an accepted kind of image") if data else SourceCorruptImage("no bytes")
    if kind is Kind.HEIC and not bounds.heic:
        raise SourceUnsupportedMedia("HEIC is switched off")
    try:
        if kind is Kind.JPEG:
            return _prepare_jpeg(data, bounds)
        return _prepare_heic(data, bounds) if kind is Kind.HEIC else _prepare_other(data, kind, bounds)
    except (PipelineError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise SourceTooLarge(f"{kind}: too many pixels") from error
    except Exception as error:  # Decoders raise anything at all on broken files.
        raise SourceCorruptImage(f"{kind}: {type(error).__name__}: {error}"[:200]) from error


def to_rgb(data: bytes, side: int) -> "NDArray[uint8]":
    """Input of the local model: a prepared image as uint8 (side, side, 3), squashed to a square, bilinear filter."""
    import numpy as np  # noqa: PLC0415 - the decode process must not load it

    with Image.open(io.BytesIO(data), formats=PILLOW_KINDS) as image:
        image.draft("RGB", (side, side))
        square = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(square)


def _prepare_jpeg(data: bytes, bounds: Bounds) -> Prepared:
    file = clean_jpeg(data)
    image = Image.open(io.BytesIO(file.data), formats=(Kind.JPEG,))
    _check_pixels(image.size, bounds.max_pixels)
    width, height = image.size
    orientation = _orientation(file.exif)
    scale = _scale(max(image.size), bounds.long_side)
    is_small = max(image.size) <= bounds.long_side * MAX_SCALE and len(file.data) <= MAX_PASSTHROUGH_BYTES
    if is_small and orientation == 1 and image.mode in {"RGB", "L"} and not file.is_arithmetic:
        _draft(image, 8)  # Reads every coefficient, as a full decode does, at half the cost.
        image.load()
        return Prepared(file.data, width, height)
    _draft(image, scale)
    return _encode(_resized(_opaque(image), bounds), orientation)


def _prepare_other(data: bytes, kind: Kind, bounds: Bounds) -> Prepared:
    if kind is Kind.PNG:
        data = clean_png(data)
    if kind is Kind.WEBP and (size := webp_size(data)):
        _check_pixels(size, bounds.max_pixels_other)
    image = Image.open(io.BytesIO(data), formats=(kind,))
    _check_pixels(image.size, bounds.max_pixels_other)
    image.load()
    orientation = _orientation(image.info.get("exif", b""))
    return _encode(_resized(_opaque(image), bounds), orientation)


def _prepare_heic(data: bytes, bounds: Bounds) -> Prepared:
    """The primary picture. libheif returns it upright; by the standard its EXIF orientation does not count."""
    data = first_heic(data)
    if size := heic_size(data):
        _check_pixels(size, bounds.max_pixels_other)
    try:
        import pillow_heif  # noqa: PLC0415 - costs 30 MB of address space and 50 ms, and few photos are HEIC
    except ImportError as error:
        raise Internal(f"pillow-heif cannot be loaded: {error}") from error
    options = pillow_heif.options
    options.DECODE_THREADS = 0  # Then libheif starts no threads; libde265 has one worker.
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    try:
        file = pillow_heif.open_heif(data)
        if 0 in file.size:
            raise SourceCorruptImage("HEIF: a picture without a size: libheif would decode any number of pixels")
        image = file.to_pillow()
    except RuntimeError as error:
        if _is_out_of_memory(str(error)):
            raise MemoryError from error
        raise
    return _encode(_resized(_opaque(image), bounds), orientation=1)


def _is_out_of_memory(text: str) -> bool:
    """Libheif reports lack of memory by its text only, and calls a part that exceeds its own header by the same words
    plus "Security limit": that file is broken.
    """
    return text.startswith(("Out of memory", "Memory allocation error")) and "Security limit" not in text


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise SourceTooLarge(f"{width} × {height} pixels")


def _scale(long_side: int, target: int) -> int:
    """The coarsest DCT scale that keeps at least 0.75 × the target; the result is at most 1.5 × the target."""
    return next((scale for scale in (8, 4, 2) if long_side / scale >= 0.75 * target), 1)


def _draft(image: Image.Image, scale: int) -> None:
    """Make the decoder skip the DCT coefficients that this scale does not need."""
    image.draft(None, (max(image.width // scale, 1), max(image.height // scale, 1)))


def _resized(image: Image.Image, bounds: Bounds) -> Image.Image:
    if max(image.size) <= bounds.long_side * MAX_SCALE:
        return image
    ratio = bounds.long_side / max(image.size)
    size = max(round(image.width * ratio), 1), max(round(image.height * ratio), 1)
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _opaque(image: Image.Image) -> Image.Image:
    """Convert to RGB or L; transparent parts become white."""
    if image.mode in {"RGB", "L"} and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 256).convert("L")  # 16 bits of grey
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGB", layer.size, "white")
        paper.paste(layer, mask=layer.getchannel("A"))
        return paper
    return image.convert("RGB")


def _encode(image: Image.Image, orientation: object) -> Prepared:
    turn = TRANSPOSE_OF_ORIENTATION.get(orientation) if isinstance(orientation, int) else None
    upright = image if turn is None else image.transpose(turn)
    upright.info.clear()  # Pillow would write a GIF's comment into the JPEG.
    out = io.BytesIO()
    upright.save(out, Kind.JPEG, quality=JPEG_QUALITY)
    return Prepared(out.getvalue(), upright.width, upright.height)


def _orientation(exif: bytes) -> object:
    """EXIF orientation; 1 if there is none or the block is broken: a bad tag is no reason to refuse a photo."""
    if not exif:
        return 1
    block = Image.Exif()
    try:
        block.load(exif)
        return block.get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - Pillow's TIFF reader raises anything at all on broken blocks
        return 1


def serve(arguments: dict[str, Any]) -> None:
    """Main loop of the decode process: reads images and writes replies on the socket that is its standard input, until
    the socket closes.

    Each image may take `cpu_seconds` of CPU time; then SIGPROF kills the process.
    """
    limit_memory(arguments["memory_bytes"])
    cpu_seconds = arguments["cpu_seconds"]
    bounds = Bounds(**arguments["bounds"])
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with open(0, "rb", closefd=False) as requests, open(0, "wb", closefd=False) as replies:
        _send(replies, {"ready": True}, b"")
        while len(head := requests.read(FRAME.size)) == FRAME.size:
            data = requests.read(FRAME.unpack(head)[1])
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            answer, body = _answer(data, bounds)
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(replies, answer, body)


def limit_memory(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(data: bytes, bounds: Bounds) -> tuple[dict[str, Any], bytes]:
    try:
        image = prepare(data, bounds)
    except PipelineError as error:
        return {"code": error.spec.code, "detail": error.detail}, b""
    except MemoryError:
        return {"code": SourceTooLarge.spec.code, "detail": "more memory than one image may take"}, b""
    digest = hashlib.sha256(image.data).hexdigest()
    return {"code": None, "width": image.width, "height": image.height, "sha256": digest}, image.data


def _send(replies: io.BufferedWriter, answer: dict[str, Any], body: bytes) -> None:
    head = json.dumps(answer).encode()
    replies.write(FRAME.pack(len(head), len(body)) + head)
    replies.write(body)
    replies.flush()


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
