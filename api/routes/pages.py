"""Static pages: the playground at /, the API's reference at /docs. Served from this host, nothing from a CDN."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent.parent
WEB = HERE / "web"
REFERENCE = HERE / "reference"


def install(app: FastAPI) -> None:
    swagger_ui = Path(str(files(fastapi_offline))) / "static"
    app.router.routes += [
        Route("/", _file(WEB / "index.html")),
        Route("/docs", _file(REFERENCE / "index.html")),
        Mount("/static", StaticFiles(directory=WEB)),
        Mount("/docs/page", StaticFiles(directory=REFERENCE)),
        Mount("/docs/swagger-ui", StaticFiles(directory=swagger_ui)),
    ]


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_request: Request) -> Response:
        return FileResponse(path)

    return serve
