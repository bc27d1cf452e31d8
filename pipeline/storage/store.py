"""What both stores share: keys and media types, the errors of links, the protocol, the size limit.

Keys are random, so that they cannot be guessed, and hold nothing of the client's file name.
"""

import re
import secrets
from enum import StrEnum
from typing import Protocol

from pipeline.errors import SourceTooLarge

# --- Keys ---

EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/heif": "heif",
}
"""Media type → file extension, of all types that may be uploaded. Intake decides by the bytes what a file really is."""

MEDIA_TYPES = {extension: media_type for media_type, extension in EXTENSIONS.items()}
"""File extension → media type."""


class Channel(StrEnum):
    """What an upload is for; the first part of its key."""

    CHAT = "chat"
    SCAN = "scan"
    MY = "my"


KEY = re.compile(rf"({'|'.join(Channel)})/[0-9a-f]{{32}}\.({'|'.join(MEDIA_TYPES)})")
"""Pattern of a whole key: `scan/<32 hex digits>.jpg`."""


def new_key(channel: Channel, media_type: str) -> str:
    """A random key. Raises KeyError for a media type that is not in EXTENSIONS."""
    return f"{channel}/{secrets.token_hex(16)}.{EXTENSIONS[media_type]}"


def media_type_of(key: str) -> str:
    return MEDIA_TYPES[key.rpartition(".")[2]]


# --- Stores ---


class LinkRefused(Exception):
    """The link's signature is not ours, or it is for another key or method."""


class LinkExpired(Exception):
    """The link is ours, but past its time."""


class Store(Protocol):
    """Photos by key. Links are signed and expire, so clients may have them.

    `base` is the origin of our API, for stores whose links lead there. `upload_origin` is the origin of upload links,
    None for the API itself.
    """

    upload_origin: str | None

    def upload_link(self, key: str, base: str) -> str:
        """A link to PUT the file, with `media_type_of(key)` as its Content-Type."""
        ...

    def read_link(self, key: str, base: str) -> str:
        """A link to GET the file."""
        ...

    def key_of(self, link: str) -> str | None:
        """The key in one of our read links, expired or not; None for any other URL."""
        ...

    async def read(self, key: str) -> bytes:
        """The whole file, at most `fetch_max_bytes`.

        Raises SourceNotFound, SourceTooLarge, SourceTimeout, SourceUnreachable; Internal if the store denies access.
        """
        ...

    async def expire(self) -> int:
        """Delete uploads older than UPLOAD_TTL. Returns how many."""
        ...

    async def close(self) -> None: ...


def check_size(data: bytes, max_bytes: int) -> bytes:
    """The data itself. Raises SourceTooLarge if it is longer than `max_bytes`."""
    if len(data) > max_bytes:
        raise SourceTooLarge(f"upload of more than {max_bytes} bytes")
    return data
