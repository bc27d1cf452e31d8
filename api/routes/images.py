"""Uploads: presigned links and, where the store is a local directory, the files behind them."""

from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from fastapi import Header, Query, Request, Response
from starlette.responses import FileResponse

from api.deps import Services, ServicesDep, public_origin
from api.http import openapi
from api.http.openapi import ok, problems
from api.http.problems import Problem
from api.http.responses import json_response
from api.paths import API
from api.schemas.uploads import UploadDone, UploadDoneView, UploadRequest, UploadView
from pipeline.errors import SourceTooLarge, SourceUnsupportedMedia
from pipeline.storage import EXTENSIONS, Channel, LocalStore, media_type_of, new_key

FILE_HEADERS = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}

Expires = Annotated[str, Query(pattern="^[0-9]{1,12}$", description="Epoch seconds; part of the link.")]
Signature = Annotated[str, Query(max_length=128, description="Part of the link.")]

log = structlog.get_logger()

router = openapi.router(f"{API}/images", "images")


@router.post("/{channel}", responses={200: ok(UploadView, "Where to PUT the photo"), **problems(415, 422)})
async def presign(channel: Channel, body: UploadRequest, request: Request, services: ServicesDep) -> Response:
    """A link to upload one photo, and the names by which a scan reads it then."""
    media_type = body.content_type.partition(";")[0].strip().lower()
    if media_type not in EXTENSIONS:
        raise SourceUnsupportedMedia("an upload of a type that is no accepted image")
    key = new_key(channel, media_type)
    base = public_origin(request, services)
    log.info("upload.presigned", upload=redacted(key))
    return json_response(
        UploadView(
            key=key,
            upload_url=services.store.upload_link(key, base),
            cdn_url=services.store.read_link(key, base),
            expires_in=services.pipeline.upload_link_ttl,
            required_headers={"Content-Type": media_type},
        )
    )


@router.post("/{channel}/callback", responses={200: ok(UploadDoneView, "Noted"), **problems(422)})
async def callback(channel: Channel, body: UploadDone) -> Response:
    """Older clients say here that the upload is done. Nothing depends on it; it may come any number of times."""
    if not body.key.startswith(f"{channel}/"):
        raise Problem("request.invalid")
    return json_response(UploadDoneView(key=body.key))


@router.put(
    "/uploads/{channel}/{name}",
    status_code=204,
    responses={**problems(404, 410, 413, 415, 422)},
    openapi_extra={"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def put(
    channel: Channel,
    name: str,
    request: Request,
    services: ServicesDep,
    expires: Expires,
    signature: Signature,
    content_type: Annotated[str, Header()] = "",
) -> Response:
    """Take the file that an `upload_url` is for, whole or not at all."""
    key = f"{channel}/{name}"
    store = _local_store(services)
    store.check_link("PUT", key, expires, signature)
    if content_type.partition(";")[0].strip().lower() != media_type_of(key):
        raise SourceUnsupportedMedia("an upload of another type than its link is for")
    announced = int(request.headers.get("content-length", 0))  # The server accepts only a number.
    if announced > services.pipeline.fetch_max_bytes:
        raise SourceTooLarge(f"an upload of {announced} bytes is announced")
    await store.write(key, _chunks(request))
    log.info("upload.stored", upload=redacted(key))
    return Response(status_code=204)


@router.get(
    "/files/{channel}/{name}",
    response_class=Response,
    responses={
        200: {"description": "The photo", "content": {"image/*": {}}},
        **problems(404, 410, 422),
    },
)
async def read(channel: Channel, name: str, services: ServicesDep, expires: Expires, signature: Signature) -> Response:
    """The file behind a `cdn_url`."""
    key = f"{channel}/{name}"
    store = _local_store(services)
    store.check_link("GET", key, expires, signature)
    path = store.path_of(key)
    if not path.is_file():
        raise Problem("upload.refused")
    return FileResponse(path, headers=FILE_HEADERS, media_type=media_type_of(key))


def redacted(key: str) -> str:
    """The key for logs, cut to 12 characters: a whole key gives access to its photo."""
    return f"{key[:12]}…"


def _local_store(services: Services) -> LocalStore:
    """The store whose files this API serves. Raises Problem `http.not_found` with S3, which serves its own."""
    if not isinstance(services.store, LocalStore):
        raise Problem("http.not_found")
    return services.store


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk
