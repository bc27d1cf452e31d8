"""Uploads: what is asked for, and the links that come back."""

from typing import Annotated

from pydantic import StringConstraints

from api.schemas.requests import Request
from jobs.view import View
from pipeline.storage import KEY


class UploadRequest(Request):
    """`filename`, `uploader_id` and `metadata` come from older clients; the key holds nothing of them."""

    filename: Annotated[str, StringConstraints(max_length=255)] | None = None
    content_type: Annotated[str, StringConstraints(max_length=100)]


class UploadDone(Request):
    key: Annotated[str, StringConstraints(pattern=f"^{KEY.pattern}$")]


class UploadView(View):
    """PUT the file to `upload_url` with `required_headers`, then name `key` or `cdn_url` in a scan."""

    key: str
    upload_url: str
    cdn_url: str
    expires_in: int
    required_headers: dict[str, str]


class UploadDoneView(View):
    key: str
