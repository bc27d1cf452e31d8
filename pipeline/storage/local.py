"""Storage of uploads in a local directory. The API receives and serves the files, by links that are signed here."""

import asyncio
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from pipeline.errors import SourceNotFound, SourceTooLarge
from pipeline.settings import PipelineSettings
from pipeline.storage.store import KEY, Channel, LinkExpired, LinkRefused, check_size

UPLOADS_PATH = "/api/v1/images/uploads/"
FILES_PATH = "/api/v1/images/files/"
"""The API's paths that receive and serve the files of a LocalStore."""


class LocalStore:
    """One file for each key. The secret that signs links lies beside the files: processes on one directory share it."""

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
        """Ignores the link's host: the signature proves that the link is ours."""
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
        """Raises LinkRefused or LinkExpired. `verb` is PUT or GET; `expires` is in epoch seconds."""
        if not KEY.fullmatch(key) or not self._is_signed(verb, key, expires, signature):
            raise LinkRefused
        if time.time() > int(expires):
            raise LinkExpired

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Atomic: stores the whole file or nothing. Raises SourceTooLarge, and the errors of `chunks`."""
        path = self.path_of(key)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        size = 0
        await asyncio.to_thread(self._make_folder, path.parent)
        try:
            with await asyncio.to_thread(partial.open, "xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise SourceTooLarge(f"upload of more than {self._max_bytes} bytes")
                    await asyncio.to_thread(file.write, chunk)
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
        """Other users of this machine must not read uploads."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)

    def _read(self, key: str) -> bytes:
        try:
            with self.path_of(key).open("rb") as file:
                data = file.read(self._max_bytes + 1)
        except FileNotFoundError as error:
            raise SourceNotFound(f"no upload {key}") from error
        return check_size(data, self._max_bytes)

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
        self._secret = self._secret or _load_secret(self._folder)
        return hmac.digest(self._secret, f"{verb}\n{key}\n{expires}".encode(), "sha256").hex()


def _load_secret(folder: Path) -> bytes:
    """The directory's secret. Creates it if it is missing; processes that start at the same time get the same one."""
    path = folder / ".secret"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        candidate = folder / f".secret.{secrets.token_hex(8)}"
        descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(candidate, path)  # Fails if another process was faster; then its secret is used.
        except FileExistsError:
            pass
        finally:
            candidate.unlink()
    return path.read_bytes()
