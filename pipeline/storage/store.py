"""What every store of uploaded photos has in common: keys, links, errors, limits.

Keys cannot be guessed, and hold nothing of the client's file name.
"""

import re
import secrets
from enum import StrEnum
from typing import Protocol

from pipeline.errors import SourceTooLarge

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


def bounded(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise SourceTooLarge(f"upload of more than {limit} bytes")
    return data
