"""A server that speaks S3 over HTTP: moto's, in this process, with one bucket and credentials in the environment.

Moto takes any presigned link. `LinkGate` stands before it and judges links as S3 does: signature, signed headers, time.
"""

import hmac
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote

import boto3
import httpx
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

from pipeline.settings import PipelineSettings

BUCKET = "bunri-uploads"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "ap-northeast-2",
    "AWS_DEFAULT_REGION": "ap-northeast-2",
}


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipelineSettings]:
    """Settings for its bucket."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "moto.moto_server.threaded_moto_server.DomainDispatcherApplication",
        lambda create: LinkGate(DomainDispatcherApplication(create)),
    )
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "ap-northeast-2"}
    )
    try:
        yield PipelineSettings.model_validate({"s3_bucket": BUCKET, "s3_endpoint_url": url})
    finally:
        httpx.post(f"{url}/moto-api/reset", trust_env=False)  # Its buckets outlive it in this process.
        server.stop()


class LinkGate:
    """The query-string part of Signature Version 4, before any WSGI application.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)
        refused = _refusal(environ, dict(query)) if "X-Amz-Signature" in dict(query) else None
        if refused is None:
            answered: Iterable[bytes] = self._app(environ, start_response)
            return answered
        code, message = refused
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body))), ("Connection", "close")]
        start_response("403 Forbidden", headers)
        return [body]


def _refusal(environ: dict[str, Any], query: dict[str, str]) -> tuple[str, str] | None:
    start = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > start + timedelta(seconds=int(query["X-Amz-Expires"])):
        return "AccessDenied", "Request has expired"
    if not hmac.compare_digest(_signature(environ, query), query["X-Amz-Signature"]):
        return "SignatureDoesNotMatch", "The request signature we calculated does not match the one you provided."
    return None


def _signature(environ: dict[str, Any], query: dict[str, str]) -> str:
    signed = query["X-Amz-SignedHeaders"]
    sent = {"host": environ["HTTP_HOST"], "content-type": environ.get("CONTENT_TYPE", "")}
    canonical = [
        environ["REQUEST_METHOD"],
        environ["RAW_URI"].partition("?")[0],
        "&".join(
            f"{quote(name, safe='~')}={quote(value, safe='~')}"
            for name, value in sorted(query.items())
            if name != "X-Amz-Signature"
        ),
        *(f"{name}:{sent[name]}" for name in signed.split(";")),
        "",
        signed,
        "UNSIGNED-PAYLOAD",
    ]
    scope = query["X-Amz-Credential"].partition("/")[2]
    text = "\n".join(
        ["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, sha256("\n".join(canonical).encode()).hexdigest()]
    )
    key = f"AWS4{CREDENTIALS['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
