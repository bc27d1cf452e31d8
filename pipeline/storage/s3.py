"""Storage of uploads in Amazon S3 or a compatible server. The only user of boto3."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pipeline.errors import Internal, PipelineError, SourceNotFound, SourceTimeout, SourceTooLarge, SourceUnreachable
from pipeline.settings import PipelineSettings
from pipeline.storage.store import KEY, Channel, check_size, media_type_of, new_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

MAX_CONCURRENT_CALLS = 16
"""Threads, and connections, of one store."""

TIMEOUT_SECONDS = 10.0
"""Limit to connect, and between two reads."""

T = TypeVar("T")


class S3Store:
    """One object for each key. boto3 blocks, so its calls run in a thread pool."""

    def __init__(self, settings: PipelineSettings, bucket: str) -> None:
        """Takes 0.1 s. Raises ValueError when boto3 finds no credentials."""
        self._client = _open_client(settings)
        self._bucket = bucket
        self._read_timeout = settings.fetch_total_timeout
        self._max_bytes = settings.fetch_max_bytes
        self._ttl = settings.upload_ttl
        self._link_ttl = settings.upload_link_ttl
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT_CALLS, thread_name_prefix="s3")
        link = urlsplit(self.upload_link(new_key(Channel.SCAN, "image/jpeg"), ""))
        self.upload_origin: str | None = f"{link.scheme}://{link.netloc}"

    def upload_link(self, key: str, base: str) -> str:
        """The signature covers the Content-Type. A presigned PUT cannot limit the size, so `read` does."""
        del base
        parameters = {"Bucket": self._bucket, "Key": key, "ContentType": media_type_of(key)}
        return self._client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=self._link_ttl)

    def read_link(self, key: str, base: str) -> str:
        del base
        parameters = {"Bucket": self._bucket, "Key": key}
        return self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=self._link_ttl)

    def key_of(self, link: str) -> str | None:
        """Compares the URLs without their signatures: the link must point to the object that our own would."""
        url = link.partition("?")[0]
        key = "/".join(url.rsplit("/", 2)[-2:])
        return key if KEY.fullmatch(key) and self.read_link(key, "").partition("?")[0] == url else None

    async def read(self, key: str) -> bytes:
        try:
            async with asyncio.timeout(self._read_timeout):
                return await self._call(lambda: self._read(key))
        except TimeoutError as error:
            raise SourceTimeout("the upload store took too long") from error

    async def expire(self) -> int:
        return await self._call(self._expire)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _read(self, key: str) -> bytes:
        found = self._client.get_object(Bucket=self._bucket, Key=key)
        with closing(found["Body"]) as body:
            if found.get("ContentLength", 0) > self._max_bytes:
                raise SourceTooLarge(f"upload of {found['ContentLength']} bytes")
            data = check_size(body.read(self._max_bytes + 1), self._max_bytes)
            body.read(1)  # Only an empty read makes botocore notice a truncated body.
            return data

    def _expire(self) -> int:
        oldest = time.time() - self._ttl
        pages = self._client.get_paginator("list_objects_v2")
        removed = 0
        for channel in Channel:
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{channel}/"):
                old: list[ObjectIdentifierTypeDef] = [
                    {"Key": each["Key"]}
                    for each in page.get("Contents", [])
                    if each["LastModified"].timestamp() < oldest and KEY.fullmatch(each["Key"])
                ]
                if old:
                    reply = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": old, "Quiet": True})
                    if errors := reply.get("Errors"):  # The status is 200 all the same.
                        raise Internal(f"the upload store kept {len(errors)} photos: {errors[0].get('Code')}")
                removed += len(old)
        return removed

    async def _call(self, work: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as boto3

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ClientError as error:
            raise _error_of(error.response) from error
        except BotoCoreError as error:  # No connection, no answer in time, a truncated body.
            raise SourceUnreachable(f"the upload store: {type(error).__name__}") from error


def _open_client(settings: PipelineSettings) -> "S3Client":
    import boto3  # noqa: PLC0415 - 30 MB that only users of S3 need
    from botocore.config import Config  # noqa: PLC0415

    session = boto3.Session()
    if session.get_credentials() is None:
        raise ValueError("S3_BUCKET is set, but there are no AWS credentials")
    addressing = settings.s3_addressing or ("path" if settings.s3_endpoint_url else "virtual")
    return session.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=session.region_name or "us-east-1",
        config=Config(
            signature_version="s3v4",  # boto3's default still presigns with version 2 in us-east-1
            s3={"addressing_style": addressing},
            connect_timeout=TIMEOUT_SECONDS,
            read_timeout=TIMEOUT_SECONDS,
            retries={"total_max_attempts": 1},  # the job retries
            max_pool_connections=MAX_CONCURRENT_CALLS,
        ),
    )


def _error_of(response: object) -> PipelineError:
    """Internal for a refusal, which is our mistake, except for a missing key and for trouble of the server."""
    fields = response if isinstance(response, dict) else {}
    code = str(fields.get("Error", {}).get("Code"))
    status = int(fields.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    detail = f"the upload store answered {status} {code}"
    if code in {"NoSuchKey", "404"}:
        return SourceNotFound(detail)
    if status >= 500 or status == 429 or code == "SlowDown":  # noqa: PLR2004 - server errors, too many requests
        return SourceUnreachable(detail)
    return Internal(detail)
