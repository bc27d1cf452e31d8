"""Storage of uploaded photos: `open_store` returns a local directory or S3, behind one protocol, `Store`."""

from pipeline.settings import PipelineSettings
from pipeline.storage.local import UPLOADS_PATH, LocalStore
from pipeline.storage.s3 import S3Store
from pipeline.storage.store import (
    EXTENSIONS,
    KEY,
    MEDIA_TYPES,
    Channel,
    LinkExpired,
    LinkRefused,
    Store,
    media_type_of,
    new_key,
)

__all__ = [
    "EXTENSIONS",
    "KEY",
    "MEDIA_TYPES",
    "UPLOADS_PATH",
    "Channel",
    "LinkExpired",
    "LinkRefused",
    "LocalStore",
    "Store",
    "media_type_of",
    "new_key",
    "open_store",
]


def open_store(settings: PipelineSettings) -> Store:
    """S3 if S3_BUCKET is set, else a directory. Raises ValueError when there are no credentials for S3."""
    return LocalStore(settings) if settings.s3_bucket is None else S3Store(settings, settings.s3_bucket)
