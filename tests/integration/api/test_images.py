"""Uploads over HTTP: a link, the file, and a scan that reads it by key."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from pipeline.settings import PipelineSettings
from pipeline.storage import EXTENSIONS, KEY
from tests.support.api_server import ApiServer, running_api
from tests.support.s3_server import s3_server

IMAGES = "/api/v1/images"
SCAN = "/api/v1/scan"
PHOTO = b"\xff\xd8\xff photo"


@pytest.fixture
async def api(jobs_settings: JobsSettings, tmp_path: Path) -> AsyncIterator[ApiServer]:
    pipeline = PipelineSettings.model_validate({"upload_dir": tmp_path / "uploads", "fetch_max_bytes": 100_000})
    async with running_api(jobs_settings, pipeline=pipeline) as api:
        yield api


async def presigned(api: ApiServer, content_type: str = "image/jpeg", channel: str = "scan") -> dict[str, Any]:
    asked = {
        "filename": "../../etc/passwd.html",
        "content_type": content_type,
        "uploader_id": "7",
        "metadata": {"a": 1},
    }
    reply = await api.client.post(f"{IMAGES}/{channel}", json=asked)
    assert reply.status_code == 200, reply.text
    link: dict[str, Any] = reply.json()
    return link


async def put(
    api: ApiServer, link: dict[str, Any], content: bytes = PHOTO, content_type: str = "image/jpeg"
) -> httpx.Response:
    return await api.client.put(link["upload_url"], content=content, headers={"Content-Type": content_type})


async def scanned(api: ApiServer, ledger: Ledger, **body: str) -> str | None:
    """The key that the worker will read."""
    reply = await api.client.post(SCAN, json=body)
    assert reply.status_code == 202, reply.text
    job = await ledger.submissions.get(reply.json()["job_id"])
    assert job is not None
    assert job.input.image_url == ""
    return job.input.image_key


@pytest.mark.parametrize("content_type", EXTENSIONS)
@pytest.mark.parametrize("channel", ["scan", "chat", "my"])
async def test_a_link_names_a_key_of_the_type_and_nothing_of_the_file_name(
    api: ApiServer, content_type: str, channel: str
) -> None:
    link = await presigned(api, content_type, channel)
    assert KEY.fullmatch(link["key"])
    assert link["key"].startswith(f"{channel}/")
    assert link["required_headers"] == {"Content-Type": content_type}
    assert "passwd" not in str(link)
    assert set(link) == {"key", "upload_url", "cdn_url", "expires_in", "required_headers"}


@pytest.mark.parametrize("content_type", ["image/svg+xml", "text/html", "image/tiff", "", "application/pdf"])
async def test_another_type_is_refused(api: ApiServer, content_type: str) -> None:
    reply = await api.client.post(f"{IMAGES}/scan", json={"filename": "a", "content_type": content_type})
    assert (reply.status_code, reply.json()["code"]) == (415, "source.unsupported_media")


async def test_an_upload_is_read_by_its_key_its_link_or_its_expired_link(
    api: ApiServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await presigned(api)
    assert (await put(api, link)).status_code == 204
    read = await api.client.get(link["cdn_url"])
    assert (read.content, read.headers["content-type"]) == (PHOTO, "image/jpeg")
    assert read.headers["x-content-type-options"] == "nosniff"
    assert await scanned(api, ledger, image_key=link["key"]) == link["key"]
    assert await scanned(api, ledger, image_url=link["cdn_url"]) == link["key"]
    later = time.time() + 100_000
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.storage.local.time.time", lambda: later)
        expired = await api.client.get(link["cdn_url"])
    assert (expired.status_code, expired.json()["code"]) == (410, "upload.expired")


async def test_a_link_changed_in_any_part_is_refused(api: ApiServer) -> None:
    link, other = await presigned(api), await presigned(api)
    url, signature = link["upload_url"].rsplit("=", 1)
    for wrong in (
        f"{url}={'0' * len(signature)}",
        link["upload_url"].replace(link["key"], other["key"]),
        link["cdn_url"].replace("/files/", "/uploads/"),
    ):
        reply = await put(api, {"upload_url": wrong})
        assert (reply.status_code, reply.json()["code"]) == (404, "upload.refused")


async def test_the_type_must_be_the_one_the_link_is_for(api: ApiServer) -> None:
    reply = await put(api, await presigned(api), content_type="text/html")
    assert (reply.status_code, reply.json()["code"]) == (415, "source.unsupported_media")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_file_above_the_limit_is_refused_and_nothing_is_kept(
    api: ApiServer, tmp_path: Path, *, streamed: bool
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield bytes(10_000)

    link = await presigned(api)
    content = body() if streamed else bytes(110_000)
    reply = await api.client.put(link["upload_url"], content=content, headers={"Content-Type": "image/jpeg"})
    assert (reply.status_code, reply.json()["code"]) == (413, "source.too_large")
    assert not (tmp_path / "uploads" / link["key"]).exists()
    assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file() and path.name != ".secret"] == []


async def test_other_requests_may_not_be_as_long_as_an_upload(api: ApiServer) -> None:
    reply = await api.client.post(SCAN, content=b"{" + bytes(99_000), headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, "request.too_large")


async def test_a_browser_may_put(api: ApiServer) -> None:
    headers = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type",
    }
    reply = await api.client.options((await presigned(api))["upload_url"], headers=headers)
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "http://localhost:3000")


async def test_a_callback_may_come_any_number_of_times(api: ApiServer) -> None:
    link = await presigned(api)
    replies = [await api.client.post(f"{IMAGES}/scan/callback", json={"key": link["key"]}) for _ in range(2)]
    assert [(reply.status_code, reply.json()) for reply in replies] == [(200, {"key": link["key"]})] * 2


async def test_only_a_put_may_be_as_long_as_an_upload(api: ApiServer) -> None:
    headers = {"Content-Type": "application/json"}
    reply = await api.client.post(f"{IMAGES}/uploads/callback", content=bytes(70_000), headers=headers)
    assert reply.status_code == 413


@pytest.mark.parametrize("url", ["http://[::1", "http://[", "http://a]/x", "//[", "http://℀.example/x.jpg"])
async def test_a_url_that_cannot_be_parsed_is_unsafe_and_no_error_of_ours(api: ApiServer, url: str) -> None:
    reply = await api.client.post(SCAN, json={"image_url": url})
    assert (reply.status_code, reply.json()["code"]) == (422, "source.url_unsafe")
    classified = await api.client.post(f"{SCAN}/classify", json={"image_url": url})
    assert (classified.status_code, classified.json()["error"]["code"]) == (200, "source.url_unsafe")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"image_url": ""},
        {"image_key": "scan/../../etc/passwd"},
        {"image_key": f"scan/{'0' * 32}.jpg", "image_url": "https://photos.example/a.jpg"},
    ],
)
async def test_a_scan_names_one_photo(api: ApiServer, body: dict[str, str]) -> None:
    reply = await api.client.post(SCAN, json=body)
    assert (reply.status_code, reply.json()["code"]) == (422, "request.invalid")


async def test_a_forged_link_to_our_own_address_is_an_unsafe_url(api: ApiServer) -> None:
    link = await presigned(api)
    forged = link["cdn_url"].replace("signature=", "signature=0")
    reply = await api.client.post(SCAN, json={"image_url": forged})
    assert (reply.status_code, reply.json()["code"]) == (422, "source.url_unsafe")


async def test_with_s3_the_links_lead_there_and_no_file_is_served_here(
    jobs_settings: JobsSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(monkeypatch) as pipeline:
        async with running_api(jobs_settings, pipeline=pipeline) as api:
            link = await presigned(api)
            assert link["upload_url"].startswith(str(pipeline.s3_endpoint_url))
            policy = (await api.client.get("/")).headers["content-security-policy"]
            assert f"connect-src 'self' {pipeline.s3_endpoint_url};" in policy
            assert (await put(api, link)).status_code == 200
            assert await scanned(api, ledger, image_url=link["cdn_url"]) == link["key"]
            here = f"/api/v1/images/files/{link['key']}?expires=1&signature=x"
            assert (await api.client.get(here)).json()["code"] == "http.not_found"


async def test_no_cache_asks_for_a_fresh_look(api: ApiServer, ledger: Ledger) -> None:
    for header, fresh in (("no-cache", True), ("max-age=0, No-Cache", True), ("no-store", False)):
        body = {"image_url": "https://photos.example/a.jpg"}
        reply = await api.client.post(SCAN, json=body, headers={"Cache-Control": header})
        job = await ledger.submissions.get(reply.json()["job_id"])
        assert job is not None
        assert job.input.fresh is fresh
