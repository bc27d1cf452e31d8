"""Uploaded photos by key, in a local directory or in S3: links to put and get one, reading, retention."""

from pipeline.settings import PipelineSettings
from pipeline.storage.local import FILES_PATH, UPLOADS_PATH, LocalStore
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
    "FILES_PATH",
    "KEY",
    "MEDIA_TYPES",
    "UPLOADS_PATH",
    "Channel",
    "LinkExpired",
    "LinkRefused",
    "LocalStore",
    "S3Store",
    "Store",
    "media_type_of",
    "new_key",
    "open_store",
]


def open_store(settings: PipelineSettings) -> Store:
    """S3 if a bucket is set, else a directory. Raises ValueError when there are no credentials for S3."""
    return LocalStore(settings) if settings.s3_bucket is None else S3Store(settings, settings.s3_bucket)
