"""A server that speaks S3 over HTTP: moto's, in this process, with one bucket and credentials in the environment."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import httpx
import pytest
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
