"""What holds for every request: trace ids, limits, headers, CORS, problems. Served over real sockets."""

from collections.abc import AsyncIterator

import pytest
import structlog

from jobs.ids import new_job_id
from jobs.ledger.ledger import Ledger
from jobs.settings import JobsSettings
from tests.support.api_server import ApiServer, running_api
from tests.support.jobs import new_job

SCAN = "/api/v1/scan"
ORIGIN = "https://app.example"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("headers", "trace_id"),
    [
        ({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, TRACE),
        ({"X-Request-ID": "order-17.retry_2"}, "order-17.retry_2"),
        ({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "order-17.x"}, TRACE),
    ],
)
async def test_the_callers_trace_id_is_kept(api: ApiServer, headers: dict[str, str], trace_id: str) -> None:
    reply = await api.client.get("/nowhere", headers=headers)
    assert reply.headers["x-trace-id"] == reply.json()["trace_id"] == trace_id


@pytest.mark.parametrize("header", [f"00-{'0' * 32}-b7ad6b7169203331-01", "junk", ""])
async def test_a_malformed_trace_id_is_replaced(api: ApiServer, header: str) -> None:
    replies = [await api.client.get("/healthz", headers={"traceparent": header}) for _ in range(2)]
    first, second = (reply.headers["x-trace-id"] for reply in replies)
    assert len(first) == 32
    assert first != second


async def test_the_trace_id_goes_with_the_job(api: ApiServer, ledger: Ledger) -> None:
    body = {"image_url": "https://photos.example/a.jpg"}
    reply = await api.client.post(SCAN, json=body, headers={"X-Request-ID": "order-17"})
    job = await ledger.submissions.get(reply.json()["job_id"])
    assert job is not None
    assert job.trace_id == "order-17"


async def test_each_request_is_one_log_line_by_route(api: ApiServer) -> None:
    with structlog.testing.capture_logs() as lines:
        await api.client.get(f"{SCAN}/{new_job_id()}?wait=0")
    answered = [line for line in lines if line["event"] == "request.answered"]
    assert [(line["method"], line["route"], line["status"]) for line in answered] == [
        ("GET", f"{SCAN}/{{job_id}}", 404)
    ]


@pytest.mark.parametrize("path", ["/nowhere", "/api/v1", "/api/v1/scan/", "/static/nowhere.js", "/docs/page/../x"])
async def test_an_unknown_path_is_a_problem(api: ApiServer, path: str) -> None:
    reply = await api.client.get(path)
    assert (reply.status_code, reply.json()["code"]) == (404, "http.not_found")
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path", "allow"), [("PUT", SCAN, "POST"), ("POST", "/healthz", "GET")])
async def test_a_wrong_method_is_a_problem_that_names_the_right_one(
    api: ApiServer, method: str, path: str, allow: str
) -> None:
    reply = await api.client.request(method, path)
    assert (reply.status_code, reply.json()["code"]) == (405, "http.method_not_allowed")
    assert reply.headers["allow"] == allow


async def test_a_problem_has_every_member(api: ApiServer) -> None:
    problem = (await api.client.get("/nowhere")).json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "retryable", "trace_id"}
    assert problem["type"] == "/api/v1/errors#http.not_found"


@pytest.mark.parametrize(
    ("language", "is_english"),
    [("en", True), ("en-GB,ko;q=0.5", True), ("fr, en;q=0.2", True), ("ko", False), ("fr", False), ("", False)],
)
async def test_a_problem_speaks_the_callers_language(api: ApiServer, language: str, *, is_english: bool) -> None:
    reply = await api.client.get("/nowhere", headers={"Accept-Language": language})
    assert reply.json()["detail"].isascii() is is_english


async def test_the_language_asked_for_in_the_body_wins(api: ApiServer) -> None:
    body = {"image_url": "http://10.0.0.1/", "locale": "en"}
    reply = await api.client.post(SCAN, json=body, headers={"Accept-Language": "ko"})
    assert reply.json()["detail"].isascii()


async def test_a_body_over_the_limit_is_refused_by_its_announced_length(api: ApiServer) -> None:
    reply = await api.client.post(SCAN, content=b" " * 65_537, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, "request.too_large")


async def test_a_body_over_the_limit_is_refused_when_no_length_was_announced(api: ApiServer) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b" " * 1000

    reply = await api.client.post(SCAN, content=pieces(), headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, "request.too_large")


async def test_what_nobody_foresaw_is_an_internal_problem_without_its_detail(api: ApiServer) -> None:
    async def broken() -> None:
        raise RuntimeError("the password is hunter2")

    api.app.add_api_route("/broken", broken)
    with structlog.testing.capture_logs() as lines:
        reply = await api.client.get("/broken", headers={"Origin": "http://localhost:3000"})
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    assert "hunter2" not in reply.text
    assert "Traceback" not in reply.text
    assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "request.broke" in [line["event"] for line in lines]


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/docs", "/api/v1/errors"])
async def test_every_answer_carries_the_security_headers(api: ApiServer, path: str) -> None:
    headers = (await api.client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_an_allowed_origin_is_echoed_with_credentials(jobs_settings: JobsSettings) -> None:
    async with running_api(jobs_settings, cors_origins=f"https://other.example, {ORIGIN}") as api:
        reply = await api.client.get("/healthz", headers={"Origin": ORIGIN})
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert reply.headers["access-control-allow-credentials"] == "true"
    exposed = set(reply.headers["access-control-expose-headers"].lower().split(", "))
    assert exposed == {"location", "retry-after", "x-trace-id"} | {
        f"ratelimit-{n}" for n in ("limit", "remaining", "reset")
    }
    assert "Origin" in reply.headers["vary"]


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil.example", "null", "*"])
async def test_another_origin_is_not_allowed(jobs_settings: JobsSettings, origin: str) -> None:
    async with running_api(jobs_settings, cors_origins=ORIGIN) as api:
        reply = await api.client.get("/healthz", headers={"Origin": origin})
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "header", ["content-type", "x-frontend-origin", "idempotency-key", "last-event-id", "prefer", "cancel-after"]
)
async def test_the_headers_that_clients_send_pass_preflight(jobs_settings: JobsSettings, header: str) -> None:
    async with running_api(jobs_settings, cors_origins=ORIGIN) as api:
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": header}
        reply = await api.client.options(SCAN, headers=asked)
    assert reply.status_code == 200
    assert header in reply.headers["access-control-allow-headers"]


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/page/reference.js", "/docs/swagger-ui/swagger-ui-bundle.js"])
async def test_the_pages_and_their_files_are_served_from_here(api: ApiServer, path: str) -> None:
    assert (await api.client.get(path)).status_code == 200


async def test_the_reference_page_loads_nothing_from_elsewhere(api: ApiServer) -> None:
    assert "//" not in (await api.client.get("/docs")).text


async def test_no_answer_of_a_job_ever_logs_a_client_out(api: ApiServer, ledger: Ledger) -> None:
    """Existing clients take 401 and 403 for the end of their session."""
    job = new_job()
    await ledger.submissions.create(job)
    for path in (job.job_id, f"{job.job_id}/result", "nonsense", new_job_id()):
        assert (await api.client.get(f"{SCAN}/{path}")).status_code not in {401, 403}
