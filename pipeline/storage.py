"""Uploaded photos by key, in a local directory or in S3: links to put and get one, reading, retention.

Keys cannot be guessed, and hold nothing of the client's file name. The only user of boto3.
"""

import asyncio
import hmac
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from pipeline.errors import (
    Internal,
    PipelineError,
    SourceNotFound,
    SourceTimeout,
    SourceTooLarge,
    SourceUnreachable,
)
from pipeline.settings import PipelineSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/heif": "heif",
}
"""Media types that may be uploaded. What is in a file is decided by its bytes, later."""

MEDIA_TYPES = {extension: media_type for media_type, extension in EXTENSIONS.items()}

UPLOADS_PATH = "/api/v1/images/uploads/"
FILES_PATH = "/api/v1/images/files/"
"""Where the api takes and serves the files of a LocalStore."""

S3_THREADS = 16
S3_TIMEOUT = 10

T = TypeVar("T")


class Channel(StrEnum):
    """What an upload is for; the first part of its key."""

    CHAT = "chat"
    SCAN = "scan"
    MY = "my"


KEY = re.compile(rf"({'|'.join(Channel)})/[0-9a-f]{{32}}\.({'|'.join(MEDIA_TYPES)})")


class LinkRefused(Exception):
    """The link was not made by us, or for something else."""


class LinkExpired(Exception):
    """The link was made by us and is past its time."""


class Store(Protocol):
    """Links may be given to anybody; they expire. `base` is the api's own origin, for stores that it serves.

    `upload_origin` is where upload links lead, None for the api itself.
    """

    upload_origin: str | None

    def upload_link(self, key: str, base: str) -> str:
        """To PUT the file, with the Content-Type that goes with the key."""
        ...

    def read_link(self, key: str, base: str) -> str: ...

    def key_of(self, link: str) -> str | None:
        """The key in a read link of ours, expired or not; None for any other URL."""
        ...

    async def read(self, key: str) -> bytes:
        """Raises SourceNotFound, SourceTooLarge, SourceTimeout, SourceUnreachable; Internal if the store denies it."""
        ...

    async def expire(self) -> int:
        """Remove what is older than its time to live. Returns how many."""
        ...

    async def close(self) -> None: ...


def new_key(channel: Channel, media_type: str) -> str:
    return f"{channel}/{secrets.token_hex(16)}.{EXTENSIONS[media_type]}"


def media_type_of(key: str) -> str:
    return MEDIA_TYPES[key.rpartition(".")[2]]


def open_store(settings: PipelineSettings) -> Store:
    """S3 if a bucket is set, else a directory. Raises ValueError when there are no credentials for S3."""
    return LocalStore(settings) if settings.s3_bucket is None else S3Store(settings, settings.s3_bucket)


class LocalStore:
    """One file a key. Links are paths of the api, signed with a secret that lies beside the files."""

    upload_origin: str | None = None

    def __init__(self, settings: PipelineSettings) -> None:
        self._folder = settings.upload_dir
        self._max_bytes = settings.fetch_max_bytes
        self._ttl = settings.upload_ttl
        self._link_ttl = settings.upload_link_ttl
        self._secret: bytes | None = None

    def upload_link(self, key: str, base: str) -> str:
        return self._link("PUT", UPLOADS_PATH, key, base)

    def read_link(self, key: str, base: str) -> str:
        return self._link("GET", FILES_PATH, key, base)

    def key_of(self, link: str) -> str | None:
        """Whatever host it names: the signature says that it is ours."""
        try:
            parts = urlsplit(link)
        except ValueError:
            return None
        key = parts.path.removeprefix(FILES_PATH)
        query = dict(parse_qsl(parts.query))
        if parts.path == key or not KEY.fullmatch(key):
            return None
        return key if self._is_signed("GET", key, query.get("expires", ""), query.get("signature", "")) else None

    def check_link(self, verb: str, key: str, expires: str, signature: str) -> None:
        """Raises LinkRefused or LinkExpired."""
        if not KEY.fullmatch(key) or not self._is_signed(verb, key, expires, signature):
            raise LinkRefused
        if time.time() > int(expires):
            raise LinkExpired

    async def write(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """The whole file or nothing. Raises SourceTooLarge, and what `pieces` raises."""
        path = self.path_of(key)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        size = 0
        await asyncio.to_thread(self._make_folder, path.parent)
        try:
            with await asyncio.to_thread(partial.open, "xb") as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > self._max_bytes:
                        raise SourceTooLarge(f"upload of more than {self._max_bytes} bytes")
                    await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(os.replace, partial, path)
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)

    async def read(self, key: str) -> bytes:
        return await asyncio.to_thread(self._read, key)

    async def expire(self) -> int:
        return await asyncio.to_thread(self._expire)

    async def close(self) -> None:
        """Holds nothing open."""

    def path_of(self, key: str) -> Path:
        return self._folder / key

    def _make_folder(self, folder: Path) -> None:
        """What people upload is not for other users of this machine."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)

    def _read(self, key: str) -> bytes:
        try:
            with self.path_of(key).open("rb") as file:
                data = file.read(self._max_bytes + 1)
        except FileNotFoundError as error:
            raise SourceNotFound(f"no upload {key}") from error
        return _bounded(data, self._max_bytes)

    def _expire(self) -> int:
        oldest = time.time() - self._ttl
        removed = 0
        for channel in Channel:
            for file in (self._folder / channel).glob("*"):
                with suppress(FileNotFoundError):  # Another process was faster.
                    if file.stat().st_mtime < oldest:
                        file.unlink()
                        removed += 1
        return removed

    def _link(self, verb: str, path: str, key: str, base: str) -> str:
        expires = str(int(time.time()) + self._link_ttl)
        return f"{base}{path}{key}?{urlencode({'expires': expires, 'signature': self._sign(verb, key, expires)})}"

    def _is_signed(self, verb: str, key: str, expires: str, signature: str) -> bool:
        return hmac.compare_digest(self._sign(verb, key, expires).encode(), signature.encode())

    def _sign(self, verb: str, key: str, expires: str) -> str:
        self._secret = self._secret or _secret_in(self._folder)
        return hmac.digest(self._secret, f"{verb}\n{key}\n{expires}".encode(), "sha256").hex()


class S3Store:
    """Amazon's S3 or a server that speaks it. Its calls block, so they run on threads of their own."""

    def __init__(self, settings: PipelineSettings, bucket: str) -> None:
        """Takes a tenth of a second. Raises ValueError when boto3 finds no credentials."""
        import boto3  # noqa: PLC0415 - 30 MB that only users of S3 need
        from botocore.config import Config  # noqa: PLC0415

        session = boto3.Session()
        if session.get_credentials() is None:
            raise ValueError("S3_BUCKET is set, but there are no AWS credentials")
        addressing = settings.s3_addressing or ("path" if settings.s3_endpoint_url else "virtual")
        self._client: S3Client = session.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            region_name=session.region_name or "us-east-1",
            config=Config(
                signature_version="s3v4",  # boto3 still presigns with version 2 in us-east-1 unless told
                s3={"addressing_style": addressing},
                connect_timeout=S3_TIMEOUT,
                read_timeout=S3_TIMEOUT,
                retries={"total_max_attempts": 1},  # retries are the job's business
                max_pool_connections=S3_THREADS,
            ),
        )
        self._bucket = bucket
        self._read_timeout = settings.fetch_total_timeout
        self._max_bytes = settings.fetch_max_bytes
        self._ttl = settings.upload_ttl
        self._link_ttl = settings.upload_link_ttl
        self._threads = ThreadPoolExecutor(S3_THREADS, thread_name_prefix="s3")
        link = urlsplit(self.upload_link(new_key(Channel.SCAN, "image/jpeg"), ""))
        self.upload_origin: str | None = f"{link.scheme}://{link.netloc}"

    def upload_link(self, key: str, base: str) -> str:
        """The Content-Type is part of the signature. A PUT cannot bound the size: `read` does."""
        del base
        parameters = {"Bucket": self._bucket, "Key": key, "ContentType": media_type_of(key)}
        return self._client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=self._link_ttl)

    def read_link(self, key: str, base: str) -> str:
        del base
        parameters = {"Bucket": self._bucket, "Key": key}
        return self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=self._link_ttl)

    def key_of(self, link: str) -> str | None:
        """The link must point to where ours do."""
        place = link.partition("?")[0]
        key = "/".join(place.rsplit("/", 2)[-2:])
        return key if KEY.fullmatch(key) and self.read_link(key, "").partition("?")[0] == place else None

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
            data = _bounded(body.read(self._max_bytes + 1), self._max_bytes)
            body.read(1)  # Only a read that comes back empty lets botocore see that a body was cut off.
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
                    if errors := reply.get("Errors"):  # It answers 200 all the same.
                        raise Internal(f"the upload store kept {len(errors)} photos: {errors[0].get('Code')}")
                removed += len(old)
        return removed

    async def _call(self, work: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see __init__

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ClientError as error:
            raise _refusal(error.response) from error
        except BotoCoreError as error:  # No connection, no answer in time, a cut body.
            raise SourceUnreachable(f"the upload store: {type(error).__name__}") from error


def _bounded(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise SourceTooLarge(f"upload of more than {limit} bytes")
    return data


def _refusal(response: object) -> PipelineError:
    """What S3 refuses is our own fault, but for a key that is not there and the server's own trouble."""
    fields = response if isinstance(response, dict) else {}
    code = str(fields.get("Error", {}).get("Code"))
    status = int(fields.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    detail = f"the upload store answered {status} {code}"
    if code in {"NoSuchKey", "404"}:
        return SourceNotFound(detail)
    if status >= 500 or status == 429 or code == "SlowDown":  # noqa: PLR2004 - server errors, too many requests
        return SourceUnreachable(detail)
    return Internal(detail)


def _secret_in(folder: Path) -> bytes:
    """The secret of this directory, made when it is missing; processes that start at once agree on one."""
    path = folder / ".secret"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        candidate = folder / f".secret.{secrets.token_hex(8)}"
        descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(candidate, path)  # Fails if another process was faster; then its secret holds.
        except FileExistsError:
            pass
        finally:
            candidate.unlink()
    return path.read_bytes()
