"""Both stores: a local directory, and a real S3 protocol over HTTP."""

import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import boto3
import httpx
import pytest

from pipeline.errors import PipelineError, SourceNotFound, SourceTooLarge, SourceUnreachable
from pipeline.settings import PipelineSettings
from pipeline.storage import (
    EXTENSIONS,
    KEY,
    Channel,
    LinkExpired,
    LinkRefused,
    LocalStore,
    Store,
    media_type_of,
    new_key,
    open_store,
)
from pipeline.storage.local import FILES_PATH
from pipeline.storage.s3 import S3Store
from tests.support import image_server as origin_answers
from tests.support.image_server import image_server, reply
from tests.support.redis_server import closed_port
from tests.support.s3_server import BUCKET, s3_server
from tests.support.wait import eventually

BASE = "http://api.example:8000"
PHOTO = b"\xff\xd8\xff not really"


async def chunks_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return local_store(tmp_path)


def local_store(folder: Path, **settings: int) -> LocalStore:
    return LocalStore(PipelineSettings.model_validate({"upload_dir": folder / "uploads"} | settings))


@pytest.fixture
def s3_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipelineSettings]:
    with s3_server(monkeypatch) as settings:
        yield settings


def query_of(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


# --- Keys ---


@pytest.mark.parametrize("media_type", EXTENSIONS)
def test_a_key_holds_its_channel_and_type_and_chance(media_type: str) -> None:
    key, other = new_key(Channel.SCAN, media_type), new_key(Channel.SCAN, media_type)
    assert KEY.fullmatch(key)
    assert key.startswith("scan/")
    assert media_type_of(key) == media_type
    assert key != other


@pytest.mark.parametrize("key", ["scan/../.secret", "scan/a.jpg", f"other/{'0' * 32}.jpg", f"scan/{'0' * 32}.html", ""])
def test_what_is_no_key_opens_nothing(local: LocalStore, key: str) -> None:
    link = local.read_link(key, BASE)
    assert local.key_of(link) is None
    with pytest.raises(LinkRefused):
        local.check_link("GET", key, **{name: query_of(link)[name] for name in ("expires", "signature")})


# --- A local directory ---


async def test_a_file_is_stored_whole_and_read_by_key(local: LocalStore) -> None:
    key = new_key(Channel.SCAN, "image/jpeg")
    await local.write(key, chunks_of(PHOTO, b"more"))
    assert await local.read(key) == PHOTO + b"more"
    await local.write(key, chunks_of(b"again"))
    assert await local.read(key) == b"again"


async def test_an_upload_that_breaks_off_leaves_nothing(local: LocalStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield PHOTO
        raise ConnectionError

    key = new_key(Channel.SCAN, "image/jpeg")
    with pytest.raises(ConnectionError):
        await local.write(key, broken())
    assert list((tmp_path / "uploads/scan").iterdir()) == []
    with pytest.raises(SourceNotFound):
        await local.read(key)


async def test_an_upload_that_is_too_long_leaves_nothing(tmp_path: Path) -> None:
    store = local_store(tmp_path, fetch_max_bytes=10)
    with pytest.raises(SourceTooLarge):
        await store.write(new_key(Channel.SCAN, "image/png"), chunks_of(b"123456", b"78901"))
    assert list((tmp_path / "uploads/scan").iterdir()) == []


def test_a_link_is_for_one_key_one_verb_and_a_time(local: LocalStore) -> None:
    key, other = new_key(Channel.SCAN, "image/jpeg"), new_key(Channel.SCAN, "image/jpeg")
    signed = query_of(local.upload_link(key, BASE))
    local.check_link("PUT", key, **signed)
    for verb, changed, expires in (
        ("GET", key, signed["expires"]),
        ("PUT", other, signed["expires"]),
        ("PUT", key, str(int(signed["expires"]) + 1)),
    ):
        with pytest.raises(LinkRefused):
            local.check_link(verb, changed, expires, signed["signature"])


def test_an_expired_link_is_told_from_a_false_one(local: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key(Channel.SCAN, "image/jpeg")
    signed = query_of(local.upload_link(key, BASE))
    later = time.time() + 100_000
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(LinkExpired):
        local.check_link("PUT", key, **signed)


def test_our_own_links_are_known_expired_or_not_whatever_host_they_name(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(Channel.CHAT, "image/webp")
    link = local.read_link(key, BASE)
    later = time.time() + 100_000
    monkeypatch.setattr(time, "time", lambda: later)
    assert local.key_of(link) == key
    assert local.key_of(link.replace("api.example:8000", "localhost")) == key
    assert local.key_of(link[:-1] + ("0" if link[-1] != "0" else "1")) is None
    assert local.key_of(f"{BASE}{FILES_PATH}{key}") is None
    assert local.key_of("https://photos.example/cup.jpg") is None
    assert local.key_of(local.upload_link(key, BASE)) is None


def test_processes_share_one_secret_that_others_cannot_read(tmp_path: Path) -> None:
    key = new_key(Channel.SCAN, "image/jpeg")
    link = local_store(tmp_path).read_link(key, BASE)
    assert local_store(tmp_path).key_of(link) == key
    secret = tmp_path / "uploads/.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == [".secret"]


async def test_what_is_older_than_its_time_to_live_is_removed(local: LocalStore) -> None:
    old, fresh = new_key(Channel.SCAN, "image/jpeg"), new_key(Channel.MY, "image/jpeg")
    for key in (old, fresh):
        await local.write(key, chunks_of(PHOTO))
    past = time.time() - 90_000
    os.utime(local.path_of(old), (past, past))
    assert await local.expire() == 1
    assert await local.expire() == 0
    assert await local.read(fresh) == PHOTO
    with pytest.raises(SourceNotFound):
        await local.read(old)


# --- S3 ---


@pytest.fixture
async def s3(s3_settings: PipelineSettings) -> AsyncIterator[Store]:
    store = open_store(s3_settings)
    yield store
    await store.close()


async def test_s3_takes_an_upload_by_its_link_and_reads_it_by_key(s3: Store) -> None:
    key = new_key(Channel.SCAN, "image/jpeg")
    async with httpx.AsyncClient(trust_env=False) as http:
        put = await http.put(s3.upload_link(key, BASE), content=PHOTO, headers={"Content-Type": "image/jpeg"})
        got = await http.get(s3.read_link(key, BASE))
    assert (put.status_code, got.content) == (200, PHOTO)
    assert await s3.read(key) == PHOTO
    assert s3.key_of(s3.read_link(key, BASE)) == key
    assert s3.key_of(s3.read_link(key, BASE).partition("?")[0]) == key
    assert s3.key_of(f"https://photos.example/{BUCKET}/{key}") is None


async def test_s3_refuses_a_link_past_its_time_and_the_photo_is_still_read_by_key(
    s3_settings: PipelineSettings, s3: Store
) -> None:
    key = new_key(Channel.SCAN, "image/jpeg")
    short = open_store(s3_settings.model_copy(update={"upload_link_ttl": 1}))
    links = short.upload_link(key, BASE), short.read_link(key, BASE)
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.put(s3.upload_link(key, BASE), content=PHOTO, headers={"Content-Type": "image/jpeg"})

        async def is_over() -> bool:
            return (await http.get(links[1])).status_code == 403

        await eventually(is_over)
        late = await http.put(links[0], content=b"late", headers={"Content-Type": "image/jpeg"})
    assert (late.status_code, "Request has expired" in late.text) == (403, True)
    key_in_link = s3.key_of(links[1])
    assert key_in_link is not None
    assert await s3.read(key_in_link) == PHOTO


async def test_an_s3_link_is_for_one_key_one_verb_and_one_type(s3: Store) -> None:
    key, other = new_key(Channel.SCAN, "image/jpeg"), new_key(Channel.SCAN, "image/jpeg")
    link = s3.upload_link(key, BASE)
    wrong = [
        (s3.read_link(key, BASE), "image/jpeg"),
        (link.replace(key, other), "image/jpeg"),
        (link.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"), "image/jpeg"),
        (link, "text/html"),
    ]
    async with httpx.AsyncClient(trust_env=False) as http:
        replies = [await http.put(url, content=PHOTO, headers={"Content-Type": kind}) for url, kind in wrong]
        right = await http.put(link, content=PHOTO, headers={"Content-Type": "image/jpeg"})
    assert [reply.status_code for reply in replies] == [403] * len(wrong)
    assert right.status_code == 200


def test_the_content_type_is_signed_with_version_4(s3: Store) -> None:
    query = query_of(s3.upload_link(new_key(Channel.SCAN, "image/png"), BASE))
    assert query["X-Amz-SignedHeaders"] == "content-type;host"
    assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert query["X-Amz-Expires"] == "900"


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({}, f"https://{BUCKET}.s3.ap-northeast-2.amazonaws.com/scan/"),
        ({"s3_addressing": "path"}, f"https://s3.ap-northeast-2.amazonaws.com/{BUCKET}/scan/"),
        ({"s3_endpoint_url": "https://r2.example"}, f"https://r2.example/{BUCKET}/scan/"),
        ({"s3_endpoint_url": "https://r2.example", "s3_addressing": "virtual"}, f"https://{BUCKET}.r2.example/scan/"),
    ],
)
@pytest.mark.usefixtures("s3_settings")
def test_the_bucket_is_in_the_path_or_the_host_as_asked(fields: dict[str, str], start: str) -> None:
    store = S3Store(PipelineSettings.model_validate(fields), BUCKET)
    key = new_key(Channel.SCAN, "image/jpeg")
    assert store.upload_link(key, BASE).startswith(start)
    assert store.key_of(store.read_link(key, BASE)) == key


async def test_s3_says_what_is_missing_too_long_or_out_of_reach(s3_settings: PipelineSettings, s3: Store) -> None:
    key = new_key(Channel.SCAN, "image/jpeg")
    assert await code_of(lambda: s3.read(key)) == SourceNotFound.spec.code
    client = boto3.client("s3", endpoint_url=s3_settings.s3_endpoint_url)
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(2000))
    small = open_store(s3_settings.model_copy(update={"fetch_max_bytes": 1999}))
    assert await code_of(lambda: small.read(key)) == SourceTooLarge.spec.code
    nowhere = open_store(s3_settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{closed_port()}"}))
    assert await code_of(lambda: nowhere.read(key)) == SourceUnreachable.spec.code
    other = open_store(s3_settings.model_copy(update={"s3_bucket": "no-such-bucket"}))
    assert await code_of(lambda: other.read(key)) == "internal"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (origin_answers.cut(PHOTO, 5), "source.unreachable"),
        (origin_answers.silence(), "source.unreachable"),
        (origin_answers.drip(PHOTO * 9, 0.05), "source.timeout"),
        (origin_answers.reset(), "source.unreachable"),
        (reply(200, b"x", Content_Length="99999999999"), "source.too_large"),
        (origin_answers.endless(b"x" * 8192), "source.too_large"),
        (reply(503, b"<Error><Code>SlowDown</Code></Error>"), "source.unreachable"),
        (reply(429, b"<Error><Code>TooManyRequests</Code></Error>"), "source.unreachable"),
        (reply(502, b"<html>"), "source.unreachable"),
        (reply(403, b"<Error><Code>AccessDenied</Code></Error>"), "internal"),
        (reply(403), "internal"),
    ],
    ids=["cut", "silent", "dripping", "reset", "announced too large", "endless", "slow down", "too many", "bad gateway",
         "denied", "denied without a word"],
)  # fmt: skip
@pytest.mark.usefixtures("s3_settings")
async def test_a_store_in_trouble_has_its_error(
    answer: origin_answers.Answer, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.s3.TIMEOUT_SECONDS", 0.5)
    with image_server(lambda _request: answer) as server:
        fields = {"s3_endpoint_url": server.url(""), "fetch_max_bytes": 1000, "fetch_total_timeout": 1.0}
        store = S3Store(PipelineSettings.model_validate(fields), BUCKET)
        assert await code_of(lambda: store.read(new_key(Channel.SCAN, "image/jpeg"))) == code
        await store.close()


async def test_s3_forgets_what_is_older_than_its_time_to_live(
    s3_settings: PipelineSettings, s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("s3", endpoint_url=s3_settings.s3_endpoint_url)
    key = new_key(Channel.SCAN, "image/jpeg")
    for name in (key, "scan/somebody-elses.txt"):
        client.put_object(Bucket=BUCKET, Key=name, Body=PHOTO)
    assert await s3.expire() == 0
    later = time.time() + 90_000
    monkeypatch.setattr(time, "time", lambda: later)
    assert await s3.expire() == 1
    assert [each["Key"] for each in client.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["scan/somebody-elses.txt"]


def test_a_bucket_without_credentials_is_a_mistake_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="credentials"):
        open_store(PipelineSettings.model_validate({"s3_bucket": BUCKET}))


async def code_of(read: Callable[[], Awaitable[bytes]]) -> str:
    with pytest.raises(PipelineError) as refused:
        await read()
    return refused.value.spec.code
