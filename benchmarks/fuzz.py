"""Damaged images and strange URLs, thousands of each: `python -m benchmarks.fuzz [--images N] [--urls N] [--seed S]`.

Each image goes through `ImageDecoder.prepare`, each URL through the address guard and the expiry check. Each must end
in a result or in a refusal that blames the file or the URL, and an accepted URL must not stand for an address that is
not public. Exits with 1, and names the cases, if one does not; `--only images:17` shows one case and runs it again.
"""

import argparse
import asyncio
import collections
import io
import ipaddress
import os
import random
import socket
import struct
import sys
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pillow_heif
from PIL import Image

from kit.address import AddressGuard
from kit.errors import UnsafeUrl
from pipeline.errors import SourceCorruptImage, SourceTooLarge, SourceUnsupportedMedia
from pipeline.intake.decode import ImageDecoder
from pipeline.intake.expiry import EXPIRED_STATUSES, expires_at, has_expired, is_expired_answer
from pipeline.intake.image import MAX_SCALE
from pipeline.intake.media import Kind
from pipeline.settings import PipelineSettings

SIDE = 256
"""Target for the long side: the smallest that the settings allow."""

HANG_SECONDS = 60.0
"""Above the decoder's own wall-clock limit, so that only its failure to act is seen as a hang."""

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
PORTS = (80, 443, 8080, 8443)

INTERESTING = (
    b"\0",
    b"\1",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\0\0",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"\xff" * 4,
)
NAMES = (
    b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf", b"iCCP", b"acTL", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANMF", b"meta",
    b"iprp", b"ipco", b"ispe", b"ipma", b"iloc", b"iinf", b"iref", b"hvcC", b"av1C", b"irot", b"imir", b"clap", b"mdat",
    b"ftyp", b"moov",
)  # fmt: skip


@dataclass
class Report:
    """What came of one kind of case: outcomes with their counts, and the cases that ended as none may."""

    what: str
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def show(self) -> None:
        total = self.outcomes.total()
        print(f"{self.what}: {total} in {self.seconds:.0f} s")
        for outcome, count in self.outcomes.most_common():
            print(f"  {count:>7}  {outcome}")


# Images


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    if kind == Kind.HEIC:
        pillow_heif.from_pillow(image).save(out, **options)
    else:
        image.save(out, kind, **options)
    return out.getvalue()


def seeds(random_: random.Random) -> list[bytes]:
    """Valid files of every kind, in the ways that take different paths."""
    photo = Image.frombytes("RGB", (96, 64), random_.randbytes(96 * 64 * 3)).resize((80, 56), Image.Resampling.BILINEAR)
    layer, other = photo.copy(), photo.transpose(Image.Transpose.ROTATE_180)
    layer.putalpha(Image.linear_gradient("L").resize(layer.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    tags = exif.tobytes()
    files = [encoded(image, kind) for kind in Kind for image in (photo, photo.convert("L"))]
    files += [encoded(layer, kind) for kind in ("PNG", "WEBP", "AVIF", "HEIF")]
    files += [encoded(photo, kind, exif=tags) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")]
    files += [
        encoded(photo, kind, save_all=True, append_images=[other]) for kind in ("GIF", "WEBP", "PNG", "AVIF", "MPO")
    ]
    files += [
        encoded(photo, "JPEG", progressive=True),
        encoded(photo, "JPEG", restart_marker_rows=1),
        encoded(photo.convert("CMYK"), "JPEG"),
        encoded(photo, "WEBP", lossless=True),
        encoded(photo.quantize(16), "PNG"),
        encoded(photo.resize((160, 128)), "HEIF", tile_size=64),
        encoded(photo, "HEIF", thumbnails=[32]),
    ]
    return files


def flip(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    for _ in range(random_.randint(1, 8)):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)


def overwrite(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    at, value = random_.randrange(len(data)), random_.choice(INTERESTING)
    data[at : at + len(value)] = value


def edit_header(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    """Sizes, counts and offsets are in the first bytes of most kinds."""
    at, value = random_.randrange(min(len(data), 64)), random_.choice(INTERESTING)
    data[at : at + len(value)] = value


def truncate(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    del data[random_.randrange(1, len(data) + 1) :]


def cut(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    at = random_.randrange(len(data))
    del data[at : at + random_.randint(1, 32)]


def insert(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    at = random_.randrange(len(data))
    data[at:at] = random_.randbytes(random_.randint(1, 32))


def splice(data: bytearray, random_: random.Random, files: list[bytes]) -> None:
    other = random_.choice(files)
    data[random_.randrange(len(data)) :] = other[random_.randrange(len(other)) :]


def duplicate(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    """A piece once more, some time again and again."""
    start = random_.randrange(len(data))
    piece = data[start : start + random_.randint(1, 400)]
    at = random_.choice((start, start + len(piece), random_.randrange(len(data))))
    data[at:at] = piece * random_.choice((1, 1, 2, 50))


def pieces(data: bytes) -> list[tuple[int, int]]:
    """Start and end of the parts that the file is made of: segments, chunks or boxes, as far as they make sense."""
    found, at = [], {0x89: 8, 0x52: 12, 0xFF: 2}.get(data[0], 0)
    while at + 8 <= len(data):
        if data[0] == 0xFF:  # JPEG: marker, then length
            size = 2 + int.from_bytes(data[at + 2 : at + 4])
        elif data[0] == 0x89:  # PNG: length, name, body, sum
            size = 12 + int.from_bytes(data[at : at + 4])
        elif data[0] == 0x52:  # RIFF: name, length, body, padding
            size = 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            size += size & 1
        else:  # ISO media: length, name; a directory is entered
            size = int.from_bytes(data[at : at + 4])
            if data[at + 4 : at + 8] in {b"meta", b"iprp", b"ipco"}:
                size = 12 if data[at + 4 : at + 8] == b"meta" else 8
        if size < 4 or at + size > len(data):
            break
        found.append((at, at + size))
        at += size
    return found or [(0, len(data))]


def shuffle_chunks(data: bytearray, random_: random.Random, files: list[bytes]) -> None:
    """A part doubled, moved, dropped, or put in from another file."""
    start, end = random_.choice(pieces(bytes(data)))
    part = bytes(data[start:end])
    match random_.randrange(4):
        case 0:
            data[end:end] = part * random_.choice((1, 1, 3, 40))
        case 1:
            del data[start:end]
            at = random_.randrange(len(data) + 1)
            data[at:at] = part
        case 2:
            del data[start:end]
        case _:
            other = random_.choice(files)
            first, last = random_.choice(pieces(other))
            data[end:end] = other[first:last]


def insert_chunk(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    """A part with a known name and any body, where a part begins, spelled as this kind spells it."""
    name, body = random_.choice(NAMES), random_.randbytes(random_.choice((0, 4, 12, 40)))
    at, _ = random_.choice(pieces(bytes(data)))
    if data[0] == 0x89:
        part = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    elif data[0] == 0x52:
        part = name + struct.pack("<I", len(body)) + body
    elif data[0] == 0xFF:
        part = bytes([0xFF, random_.randrange(0xC0, 0xFF)]) + struct.pack(">H", len(body) + 2) + body
    else:
        part = struct.pack(">I", len(body) + 8) + name + body
    data[at:at] = part


def edit_size(data: bytearray, random_: random.Random, _files: list[bytes]) -> None:
    """Another width, height, length or turn behind a name, and a PNG's sum made good again."""
    places = [at for name in (*NAMES, b"\xff\xc0", b"\xff\xc2", b"GIF8") if (at := data.find(name)) >= 0]
    at = random_.choice(places or [0]) + random_.randrange(-4, 20)
    value = struct.pack(
        random_.choice((">I", ">H", "<H")), random_.choice((0, 1, 2, 63, 255, 4000, 5001, 16384, 65535))
    )
    data[max(at, 0) : max(at, 0) + len(value)] = value
    if data[:1] == b"\x89":
        for start, end in pieces(bytes(data)):
            data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[start + 4 : end - 4]))


MUTATIONS: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    flip, flip, overwrite, edit_header, truncate, cut, insert, splice, duplicate, shuffle_chunks, shuffle_chunks,
    insert_chunk, edit_size, edit_size,
)  # fmt: skip


def image_case(seed: int, number: int, files: list[bytes]) -> bytes:
    random_ = random.Random(f"{seed}:images:{number}")  # noqa: S311 - to be repeated, not to be secret
    data = bytearray(random_.choice(files))
    for _ in range(random_.choice((1, 1, 1, 2, 3, 5))):
        if data:
            random_.choice(MUTATIONS)(data, random_, files)
    return bytes(data)


async def prepare_one(decoder: ImageDecoder, data: bytes) -> tuple[str, str | None]:
    """The outcome, and what is wrong with it if something is."""
    try:
        async with asyncio.timeout(HANG_SECONDS):
            image = await decoder.prepare(data)
    except (SourceCorruptImage, SourceTooLarge, SourceUnsupportedMedia) as error:
        died = "the decode process ended" in error.detail or "CPU time" in error.detail
        return f"{error.spec.code}{' (process ended)' if died else ''}", None
    except TimeoutError:
        return "hang", f"no answer within {HANG_SECONDS:.0f} s"
    except Exception as error:  # noqa: BLE001 - any other is the find
        return type(error).__name__, repr(error)
    with Image.open(io.BytesIO(image.data), formats=("JPEG",)) as result:
        result.load()
        size, tags = result.size, len(result.getexif())
    if size != (image.width, image.height) or max(size) > SIDE * MAX_SCALE or tags:
        return "a wrong result", f"{size} for {image.width} × {image.height}, {tags} tags"
    return "image", None


async def fuzz_images(seed: int, numbers: range) -> Report:
    report = Report("images")
    files = seeds(random.Random(seed))  # noqa: S311
    decoder = ImageDecoder(
        PipelineSettings.model_validate({"image_processes": os.cpu_count() or 1, "image_long_side": SIDE})
    )
    for data in files:
        outcome, wrong = await prepare_one(decoder, data)
        if outcome != "image":
            report.violations.append(f"a valid seed of {len(data)} bytes: {outcome}, {wrong}")
    start = time.monotonic()
    waiting = iter(numbers)

    async def work() -> None:
        for number in waiting:
            outcome, wrong = await prepare_one(decoder, image_case(seed, number, files))
            report.outcomes[outcome] += 1
            if wrong:
                report.violations.append(f"--seed {seed} --only images:{number}  {wrong}")

    await asyncio.gather(*(work() for _ in range(2 * (os.cpu_count() or 1))))
    report.seconds = time.monotonic() - start
    await decoder.close()
    return report


# URLs

HOSTS = (
    "photos.example.com", "b.s3.ap-northeast-2.amazonaws.com", "cdn.discordapp.com", "scontent.cdninstagram.com",
    "x.blob.core.windows.net", "분리.한국", "localhost", "metadata.google.internal", "redis", "127.0.0.1", "10.0.0.1",
    "169.254.169.254", "168.63.129.16", "100.64.0.1", "8.8.8.8", "224.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1",
    "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2606:4700::1111]", "[fe80::1%25eth0]",
    "[2600::5efe:10.0.0.1]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[fd00:ec2::254]",
)  # fmt: skip
QUERIES = (
    "",
    "?X-Amz-Date=20260301T110000Z&X-Amz-Expires=3600&X-Amz-Signature=0a",
    "?X-Goog-Date=20260301T115959Z&X-Goog-Expires=1",
    "?x-oss-date=20260301T110000Z&x-oss-expires=1",
    "?Expires=1772366400&Signature=a%2Bb%3D",
    "?se=2026-03-01T12%3A00%3A00Z&sig=a%2Bb",
    "?se=9999-12-31T23:59:59-14:00&sig=a",
    "?q-sign-time=1772360000;1772366400",
    "?ex=69a42a40&hm=0a",
    "?oe=69A42A40",
    "?Key-Pair-Id=K&Policy=eyJTdGF0ZW1lbnQiOlt7IkNvbmRpdGlvbiI6eyJEYXRlTGVzc1RoYW4iOnsiQVdTOkVwb2NoVGltZSI6MTc3MjM2NjQwMH19fV19",
    "?Key-Pair-Id=K&Policy=eyJTdGF0ZW1lbnQiOlsxXX0_&Expires=99999999999999999999",
)
TOKENS = (
    "http://", "https://", "//", "@", ":", ":80", ":22", ":65536", "#", "?", "/", "\\", "%", "%00", "%2f", "%0d%0a",
    "..", ".", "。", "．", "①", "７", "0x", "0", "127.1", "::", "[", "]", "\t", "\r\n", "\0", "\x7f", "\x85", "\u200b",
    "\u202e", "ß", "℀", "＠", "\ud800", "xn--", "xn--a", "-", "_", " ", "é", "𝟏", "ex", "&", "=", ";", "+", "A" * 300,
    "9" * 40, "*", "{", "|", "localhost",
)  # fmt: skip
BODIES = (
    b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
    b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    b"<Error><Code>ExpiredToken</Code>",
    b"URL signature expired",
    b"Signature not valid in the specified time frame: Start [a] - Expiry [Sun, 01 Mar 2026 11:59:59 GMT]",
    b"Signature not valid in the specified time frame: Start [a] - Expiry [Sun, 01 Mar 99999999999 12:00:00 GMT]",
    b"\xff\xfe\x00",
    b"",
)

# What may be dialled, from the IANA registries of special-purpose addresses; nothing of the guard is used.
# https://www.iana.org/assignments/iana-ipv4-special-registry and .../iana-ipv6-special-registry
CLOSED_V4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3", "168.63.129.16/32",
    )
)  # fmt: skip
OPEN_V6 = ipaddress.IPv6Network("2000::/3")
CLOSED_V6 = tuple(ipaddress.IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
CLOSED_NAMES = (".localhost", ".local", ".localdomain", ".internal", ".home.arpa", ".onion", ".metadata.goog")


def is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in CLOSED_V4)
    is_isatap = (int(ip) >> 32) & 0xFDFFFFFF == 0x5EFE
    return ip in OPEN_V6 and not is_isatap and not any(ip in network for network in CLOSED_V6)


def url_case(seed: int, number: int) -> tuple[str, int, bytes, datetime]:
    """A URL, and what its store might answer, and when."""
    random_ = random.Random(f"{seed}:urls:{number}")  # noqa: S311
    url = "".join(
        (
            random_.choice(("http://", "https://", "HTTPS://", "ftp://", "http:", "//", ""))
            if random_.random() < 0.2
            else "http://",
            address(random_) if random_.random() < 0.4 else random_.choice(HOSTS),
            random_.choice(("", "", "", ":80", ":8443", ":22", ":")),
            random_.choice(("", "/", "/a.jpg", "/내 컵.jpg", "/%EC%BB%B5..%2f")),
            random_.choice(QUERIES),
        )
    )
    for _ in range(random_.choice((0, 1, 1, 2, 3, 6))):
        url = changed(url, random_)
    body = random_.choice(BODIES)
    if random_.random() < 0.3 and body:
        at = random_.randrange(len(body))
        body = body[:at] + random_.randbytes(random_.randint(0, 4)) + body[at + random_.randint(0, 4) :]
    now = NOW + timedelta(seconds=random_.choice((-86400, -6, 0, 4, 5, 6, 86400, 10**9)))
    return url, random_.choice((*sorted(EXPIRED_STATUSES), 200, 302, 429, 500)), body, now


def address(random_: random.Random) -> str:
    """An address in one of the ways that parsers have been fooled with, as often special as not."""
    ip = ipaddress.IPv4Address(random_.randbytes(4))
    if random_.random() < 0.6:
        block = random_.choice(CLOSED_V4)
        ip = block[random_.randrange(block.num_addresses)]
    a, b, c, d = ip.packed
    other = int.from_bytes(random_.randbytes(15))
    wrapped = (0xFFFF << 32, 0x64FF9B << 96, 0x2600 << 112 | 0x5EFE << 32, 0)
    six = (*(upper | int(ip) for upper in wrapped), 0x2002 << 112 | int(ip) << 80, other << 8, 0x20 << 120 | other)
    four = (
        str(ip), f"{ip}.", str(int(ip)), hex(int(ip)), f"0{int(ip):o}", f"{a}.{b}.{c * 256 + d}", f"user@{ip}",
        f"0x{a:x}.0{b:o}.{c}.{d}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", str(ip).replace(".", "。"), f"{a}.{int(ip) % 2**24}",
        f"%{ord(str(a)[0]):x}{str(ip)[1:]}", "".join(chr(ord(char) + 0xFEE0) for char in str(ip)), f"8.8.8.8@{ip}",
        f"[::ffff:{ip}]", f"[64:ff9b::{ip}]",
    )  # fmt: skip
    return random_.choice(four) if random_.random() < 0.7 else f"[{ipaddress.IPv6Address(random_.choice(six))}]"


def changed(url: str, random_: random.Random) -> str:
    at = random_.randrange(len(url) + 1)
    token = random_.choice(TOKENS)
    match random_.randrange(6):
        case 0:
            return url[:at] + url[at + random_.randint(1, 4) :]
        case 1:
            return (
                url[:at]
                + chr(random_.choice((random_.randrange(128), random_.randrange(0x3000), random_.randrange(0x110000))))
                + url[at:]
            )
        case 2:
            return url[:at] + url[max(at - random_.randint(1, 30), 0) :]
        case 3:
            return url[:at] + token + url[at + len(token) :]
        case _:
            return url[:at] + token + url[at:]


def check_one(guard: AddressGuard, case: tuple[str, int, bytes, datetime]) -> tuple[str, str | None]:
    """The outcome, and what is wrong with it if something is."""
    url, status, body, now = case
    try:
        has_expired(url, now)  # Of the URL as it came too: nothing may be raised.
        is_expired = is_expired_answer(url, status, body, now)
        checked = guard.check_url(url)
        wrong = fault(guard, checked.url, checked.host, checked.port) or misjudged(checked.url, now)
    except UnsafeUrl:
        return "unsafe", None
    except Exception as error:  # noqa: BLE001 - any other is the find
        return type(error).__name__, repr(error)
    if is_expired and status not in EXPIRED_STATUSES:
        wrong = f"{status} means expired"
    if wrong:
        return "accepted, wrongly", wrong
    return "accepted, expired" if has_expired(checked.url, now) else "accepted", None


def misjudged(url: str, now: datetime) -> str | None:
    """Whether the verdict is another than that of the end that the URL names."""
    end = expires_at(url)
    if has_expired(url, now) == (end is not None and now - end > timedelta(seconds=5)):
        return None
    return f"{end} at {now}"


def fault(guard: AddressGuard, sent: str, host: str, port: int) -> str | None:
    """What is wrong with an accepted URL, by other parsers than the guard's: the C library's and urllib's."""
    parts = urlsplit(sent)
    closed = [ip for ip in numeric(host, port) if not is_public(ip)]
    faults = {
        f"{sent!r} is not fit to be sent": not sent.isascii() or any(char <= " " for char in sent),
        f"urllib reads {parts.netloc} as another than {host}:{port}": (
            parts.hostname != host or (parts.port or {"http": 80, "https": 443}[parts.scheme]) != port
        ),
        f"port {port}": port not in PORTS,
        f"{sent!r} becomes another when it is checked again": guard.check_url(sent).url != sent,
        f"{host} is not a public name": f".{host}".endswith(CLOSED_NAMES) or not (":" in host or "." in host),
        f"{host} is {closed}": bool(closed),
    }
    return next((what for what, is_so in faults.items() if is_so), None)


def numeric(host: str, port: int) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """What the C library takes the host for, if for an address; it asks no name server."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return
    yield from (ipaddress.ip_address(str(info[4][0])) for info in found)


def fuzz_urls(seed: int, numbers: range) -> Report:
    report = Report("URLs")
    guard = AddressGuard("", PORTS)
    start = time.monotonic()
    for number in numbers:
        began = time.monotonic()
        outcome, wrong = check_one(guard, url_case(seed, number))
        if time.monotonic() - began > 1:
            outcome, wrong = "hang", "more than a second"
        report.outcomes[outcome] += 1
        if wrong:
            report.violations.append(f"--seed {seed} --only urls:{number}  {wrong}")
    report.seconds = time.monotonic() - start
    return report


def shown(seed: int, what: str, number: int) -> str:
    """A case as it can be pasted: a file in base64, a URL with what its store answers."""
    if what == "urls":
        return repr(url_case(seed, number))
    return b64encode(image_case(seed, number, seeds(random.Random(seed)))).decode()  # noqa: S311


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--urls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one case, as a violation names it: images:17")
    arguments = parser.parse_args()
    ranges = {"images": range(arguments.images), "urls": range(arguments.urls)}
    if arguments.only:
        what, _, number = arguments.only.partition(":")
        ranges = {"images": range(0), "urls": range(0), what: range(int(number), int(number) + 1)}
        print(shown(arguments.seed, what, int(number)))
    reports = [asyncio.run(fuzz_images(arguments.seed, ranges["images"])), fuzz_urls(arguments.seed, ranges["urls"])]
    for report in reports:
        report.show()
    violations = [violation for report in reports for violation in report.violations]
    print(f"violations: {len(violations)}")
    for violation in violations:
        print(f"  {violation}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
