"""The real fetcher against a real origin that misbehaves."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.address import AddressGuard
from kit.http import Lookup
from pipeline.errors import (
    PipelineError,
    SourceForbidden,
    SourceNotFound,
    SourceTimeout,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnsupportedMedia,
    SourceUrlExpired,
    SourceUrlUnsafe,
)
from pipeline.intake.fetch import Fetcher
from pipeline.settings import PipelineSettings
from tests.support import image_server as origin_answers
from tests.support.addresses import addresses, is_public, urls
from tests.support.image_server import ImageServer, full_backlog, image_server, redirect, reply
from tests.support.redis_server import closed_port

BODY = bytes(range(256)) * 40
LIMITS: dict[str, Any] = {
    "fetch_connect_timeout": 0.3,
    "fetch_read_timeout": 0.4,
    "fetch_total_timeout": 3.0,
    "fetch_max_bytes": 100_000,
}


@pytest.fixture
def origin() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    fetcher = open_fetcher(allow="127.0.0.1")
    yield fetcher
    await fetcher.close()


def open_fetcher(allow: str = "", lookup: Lookup | None = None, **limits: Any) -> Fetcher:
    pipeline = PipelineSettings.model_validate(LIMITS | limits)
    guard = AddressGuard(allow, pipeline.fetch_ports)
    return Fetcher(pipeline, guard) if lookup is None else Fetcher(pipeline, guard, lookup=lookup)


async def refusal(fetcher: Fetcher, url: str) -> PipelineError:
    with pytest.raises(PipelineError) as refused:
        await fetcher.fetch(url)
    return refused.value


async def test_a_body_arrives_whole(origin: ImageServer, fetcher: Fetcher) -> None:
    assert await fetcher.fetch(origin.on("/a.jpg", reply(200, BODY))) == BODY


async def test_a_presigned_url_is_sent_to_the_letter(origin: ImageServer, fetcher: Fetcher) -> None:
    target = "/a%20b+c/%2e%2E/(1)%2f.jpg?X-Sig=a%2Fb%2b+/=&empty=&&flag&k=%EC%BB%B5;b='c'&url=http://x/?y"
    origin.fallback = lambda _path: reply(200, BODY)
    await fetcher.fetch(origin.url(target))
    assert origin.requests[0].target == target


async def test_no_cookie_and_no_credential_is_carried(origin: ImageServer, fetcher: Fetcher) -> None:
    origin.on("/b.jpg", reply(200, BODY))
    await fetcher.fetch(origin.on("/a.jpg", reply(302, Location="/b.jpg", Set_Cookie="session=1")))
    await fetcher.fetch(origin.url("/b.jpg"))
    sent = {name for request in origin.requests for name in request.headers}
    assert not sent & {"cookie", "authorization", "referer", "proxy-authorization"}


async def test_a_proxy_of_the_environment_is_ignored(
    origin: ImageServer, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert await fetcher.fetch(origin.on("/a.jpg", reply(200, BODY))) == BODY


async def test_a_connection_is_used_again(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", reply(200, BODY))
    for _ in range(3):
        await fetcher.fetch(url)
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, SourceForbidden),
        (401, SourceForbidden),
        (403, SourceForbidden),
        (404, SourceNotFound),
        (406, SourceForbidden),
        (408, SourceTimeout),
        (410, SourceNotFound),
        (429, SourceUnreachable),
        (451, SourceForbidden),
        (500, SourceUnreachable),
        (503, SourceUnreachable),
    ],
)
async def test_each_status_has_its_error(
    origin: ImageServer, fetcher: Fetcher, status: int, kind: type[PipelineError]
) -> None:
    error = await refusal(fetcher, origin.on("/a.jpg", reply(status, b"why")) + "?sig=secret")
    assert type(error) is kind
    assert error.detail == f"127.0.0.1/a.jpg: upstream {status}"


async def test_the_origin_says_when_to_come_back(origin: ImageServer, fetcher: Fetcher) -> None:
    error = await refusal(fetcher, origin.on("/a.jpg", reply(503, Retry_After="7")))
    assert error.retry_after == 7


async def test_an_expired_url_is_told_by_the_origins_body(origin: ImageServer, fetcher: Fetcher) -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    assert type(await refusal(fetcher, origin.on("/a.jpg", reply(403, body)))) is SourceUrlExpired


async def test_an_expired_url_is_refused_without_a_request(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", reply(200, BODY)) + "?Expires=1600000000&Signature=secret"
    assert type(await refusal(fetcher, url)) is SourceUrlExpired
    assert origin.requests == []


async def test_only_the_beginning_of_an_error_body_is_read(origin: ImageServer, fetcher: Fetcher) -> None:
    late = b" " * 9000 + b"<Error><Code>ExpiredToken</Code></Error>"
    assert type(await refusal(fetcher, origin.on("/a.jpg", reply(403, late)))) is SourceForbidden


async def test_an_error_body_that_never_comes_leaves_the_status(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", origin_answers.raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\nx"))
    assert type(await refusal(fetcher, url)) is SourceNotFound


async def test_an_error_body_that_drips_leaves_the_status(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", origin_answers.drip(b"x" * 1000, 0.05, 403))
    assert type(await refusal(fetcher, url)) is SourceForbidden


async def test_redirects_are_followed_to_the_image(origin: ImageServer, fetcher: Fetcher) -> None:
    origin.on("/3.jpg", reply(200, BODY))
    origin.on("/2", redirect("/3.jpg", 308))
    origin.on("/a/1", redirect("../2", 303))
    assert await fetcher.fetch(origin.on("/0", redirect(origin.url("/a/1")))) == BODY


async def test_a_redirect_loop_is_left(origin: ImageServer, fetcher: Fetcher) -> None:
    assert type(await refusal(fetcher, origin.on("/0", redirect("/0")))) is SourceUnreachable
    assert len(origin.requests) == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.2/",
        "http://[::1]/",
        "http://2130706433/",
        "file:///etc/passwd",
        "//user@127.0.0.1/",
        "http://[broken",
        "http://photos.example.com:22/",
    ],
)
async def test_a_redirect_to_an_unsafe_url_is_refused(origin: ImageServer, fetcher: Fetcher, location: str) -> None:
    assert type(await refusal(fetcher, origin.on("/a.jpg", redirect(location)))) is SourceUrlUnsafe


async def test_a_name_that_resolves_to_a_private_address_is_refused(origin: ImageServer) -> None:
    fetcher = open_fetcher(lookup=lambda _host, _port: ["127.0.0.1"], fetch_ports=(origin.port,))
    error = await refusal(fetcher, f"http://photos.example.com:{origin.port}/a.jpg")
    assert type(error) is SourceUrlUnsafe
    assert origin.requests == []
    await fetcher.close()


async def test_one_private_address_among_public_ones_is_enough_to_refuse(origin: ImageServer) -> None:
    fetcher = open_fetcher(lookup=lambda _host, _port: ["8.8.8.8", "127.0.0.1"], fetch_ports=(origin.port,))
    assert type(await refusal(fetcher, f"http://photos.example.com:{origin.port}/")) is SourceUrlUnsafe
    await fetcher.close()


async def test_the_address_that_was_checked_is_the_one_dialled(origin: ImageServer) -> None:
    """A name server that changes its mind is asked once: there is no second answer to dial."""
    asked = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.66"]

    fetcher = open_fetcher("127.0.0.1", rebinding, fetch_ports=(origin.port,))
    origin.on("/a.jpg", reply(200, BODY))
    assert await fetcher.fetch(f"http://photos.example.com:{origin.port}/a.jpg") == BODY
    assert asked == ["photos.example.com"]
    assert origin.requests[0].headers["host"] == f"photos.example.com:{origin.port}"
    await fetcher.close()


async def test_a_guard_that_lets_a_url_pass_still_checks_the_dialled_address(origin: ImageServer) -> None:
    pipeline = PipelineSettings.model_validate(LIMITS)
    guard = AddressGuard("", pipeline.fetch_ports)
    fetcher = Fetcher(pipeline, guard)
    lenient = AddressGuard("127.0.0.1", pipeline.fetch_ports)
    guard.check_url = lenient.check_url  # type: ignore[method-assign]  # a hole in the first check
    assert type(await refusal(fetcher, origin.on("/a.jpg", reply(200, BODY)))) is SourceUrlUnsafe
    assert origin.requests == []
    await fetcher.close()


class Switchboard(asyncio.SelectorEventLoop):
    """Takes down each address that a socket is to be connected to, and connects none."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[str] = []

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        del sock
        self.dialled.append(address[0])
        raise ConnectionRefusedError


def dialled_for(url: str, found: list[str]) -> list[str]:
    """What a fetch of this URL connects to while every name resolves to `found`."""
    loop = Switchboard()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        fetcher = open_fetcher(lookup=lambda _host, _port: found)
        with contextlib.suppress(PipelineError):
            runner.run(fetcher.fetch(url))
        runner.run(fetcher.close())
    return loop.dialled


named = st.sampled_from(["https://photos.example.com/a.jpg", "http://분리.한국:8080/?a=b", "http://a_b.example./"])


@given(url=urls | named, found=st.lists(addresses.map(str), min_size=1, max_size=3))
@example(url="http://photos.example.com/", found=["10.0.0.1"])
@example(url="http://photos.example.com/", found=["8.8.8.8", "fe80::1%eth0"])
@example(url="http://photos.example.com/", found=["::ffff:127.0.0.1"])
@settings(deadline=None)
def test_no_url_makes_us_connect_to_an_address_that_is_not_public(url: str, found: list[str]) -> None:
    assert all(is_public(ip_address(ip)) for ip in dialled_for(url, found))


@pytest.mark.parametrize("ip", ["8.8.8.8", "2606:4700::1111"])
def test_what_is_public_is_dialled(ip: str) -> None:
    assert dialled_for("http://photos.example.com/", [ip]) == [ip]


@pytest.mark.parametrize(
    ("errno", "kind"),
    [
        (socket.EAI_NONAME, SourceNotFound),
        (socket.EAI_NODATA, SourceNotFound),
        (socket.EAI_AGAIN, SourceUnreachable),
        (socket.EAI_FAIL, SourceUnreachable),
    ],
)
async def test_a_failed_lookup_has_its_error(errno: int, kind: type[PipelineError]) -> None:
    def failing(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(errno, "meant")

    fetcher = open_fetcher(lookup=failing)
    assert type(await refusal(fetcher, "http://photos.example.com/a.jpg")) is kind
    await fetcher.close()


async def test_a_body_announced_too_large_is_not_read(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", reply(200, b"x", Content_Length="100001"))
    assert type(await refusal(fetcher, url)) is SourceTooLarge


async def test_an_endless_body_is_cut_at_the_limit(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", origin_answers.endless(b"x" * 8192))
    assert type(await refusal(fetcher, url)) is SourceTooLarge


async def test_a_body_as_large_as_the_limit_is_taken(origin: ImageServer, fetcher: Fetcher) -> None:
    assert len(await fetcher.fetch(origin.on("/a.jpg", reply(200, b"x" * 100_000)))) == 100_000


async def test_a_compressed_body_is_counted_as_it_unfolds(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", origin_answers.compressed(bytes(50_000_000)))
    assert type(await refusal(fetcher, url)) is SourceTooLarge


async def test_what_follows_the_end_of_a_compressed_body_is_not_kept(origin: ImageServer) -> None:
    """Zlib would collect it, and it unfolds to nothing that could be counted."""
    fetcher = open_fetcher("127.0.0.1", fetch_max_bytes=10_000_000)  # More than what a connection holds unread.
    url = origin.on("/a.jpg", origin_answers.endless(b"x" * 8192, gzip.compress(BODY), Content_Encoding="gzip"))
    assert await fetcher.fetch(url) == BODY
    await fetcher.close()


async def test_a_compressed_body_that_never_unfolds_is_cut_at_the_limit(origin: ImageServer, fetcher: Fetcher) -> None:
    squeeze = zlib.compressobj()
    start = squeeze.compress(BODY) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    empty = b"\0\0\0\xff\xff"  # A stored block of no bytes.
    url = origin.on("/a.jpg", origin_answers.endless(empty * 1000, start, Content_Encoding="deflate"))
    assert type(await refusal(fetcher, url)) is SourceTooLarge


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
async def test_a_compressed_body_that_fits_is_unfolded(origin: ImageServer, fetcher: Fetcher, encoding: str) -> None:
    assert await fetcher.fetch(origin.on("/a.jpg", origin_answers.compressed(BODY, encoding))) == BODY


async def test_a_compressed_body_that_breaks_off_is_not_taken_for_whole(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", reply(200, gzip.compress(BODY)[:-20], Content_Encoding="gzip"))
    assert type(await refusal(fetcher, url)) is SourceUnreachable


async def test_a_broken_compressed_body_is_the_origins_fault(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", reply(200, BODY, Content_Encoding="gzip"))
    assert type(await refusal(fetcher, url)) is SourceUnreachable


async def test_an_unknown_encoding_is_unsupported(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", reply(200, BODY, Content_Encoding="br"))
    assert type(await refusal(fetcher, url)) is SourceUnsupportedMedia


async def test_a_slow_drip_is_stopped_by_the_total_limit(origin: ImageServer) -> None:
    fetcher = open_fetcher("127.0.0.1", fetch_total_timeout=0.6)
    url = origin.on("/a.jpg", origin_answers.drip(BODY, 0.05))
    assert type(await refusal(fetcher, url)) is SourceTimeout
    await fetcher.close()


@pytest.mark.parametrize("headers", [False, True])
async def test_silence_is_a_timeout(origin: ImageServer, fetcher: Fetcher, *, headers: bool) -> None:
    url = origin.on("/a.jpg", origin_answers.silence(headers=headers))
    assert type(await refusal(fetcher, url)) is SourceTimeout


async def test_a_host_that_does_not_take_connections_is_a_timeout(fetcher: Fetcher) -> None:
    with full_backlog() as port:
        assert type(await refusal(fetcher, f"http://127.0.0.1:{port}/a.jpg")) is SourceTimeout


async def test_a_refused_connection_is_unreachable(fetcher: Fetcher) -> None:
    assert type(await refusal(fetcher, f"http://127.0.0.1:{closed_port()}/a.jpg")) is SourceUnreachable


async def test_an_origin_without_tls_is_unreachable_by_https(origin: ImageServer, fetcher: Fetcher) -> None:
    assert type(await refusal(fetcher, f"https://127.0.0.1:{origin.port}/a.jpg")) is SourceUnreachable


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """A server's side of TLS with a self-signed certificate for 127.0.0.1."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(plain + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_self_signed_certificate_is_refused(fetcher: Fetcher, self_signed: ssl.SSLContext) -> None:
    asked = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self_signed) as server:
        error = await refusal(fetcher, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.jpg")
    assert error.detail == "127.0.0.1/a.jpg: ClientConnectorCertificateError"
    assert asked == []


@pytest.mark.parametrize(
    "answer",
    [
        origin_answers.cut(BODY, 100),
        origin_answers.reset(),
        origin_answers.reset(after=BODY),
        origin_answers.raw(b""),
        origin_answers.raw(b"SSH-2.0-OpenSSH\r\n"),
        origin_answers.raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx"),
        origin_answers.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        origin_answers.raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"),
    ],
    ids=["cut", "reset at once", "reset within", "closed", "not HTTP", "negative length", "bad chunk", "huge header"],
)
async def test_a_broken_conversation_is_unreachable(
    origin: ImageServer, fetcher: Fetcher, answer: origin_answers.Answer
) -> None:
    assert type(await refusal(fetcher, origin.on("/a.jpg", answer))) is SourceUnreachable


async def test_no_refusal_shows_the_query(origin: ImageServer, fetcher: Fetcher) -> None:
    urls = [
        origin.on("/cut", origin_answers.cut(BODY, 9)),
        origin.on("/large", reply(200, b"x", Content_Length="9999999")),
        origin.on("/away", redirect("http://127.0.0.3/?sig=secret")),
        origin.on("/loop", redirect("/loop?sig=secret")),
        origin.url("/none"),
        f"http://127.0.0.1:{closed_port()}/",
    ]
    errors = [await refusal(fetcher, f"{url}?sig=secret") for url in urls]
    assert not [error for error in errors if "secret" in str(error)]


async def test_a_closed_fetcher_opens_again(origin: ImageServer, fetcher: Fetcher) -> None:
    url = origin.on("/a.jpg", reply(200, BODY))
    await fetcher.fetch(url)
    await fetcher.close()
    assert await fetcher.fetch(url) == BODY
