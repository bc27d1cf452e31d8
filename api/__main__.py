"""`python -m api`: the API's own process, on `API_HOST` and `API_PORT`."""

import socket
from typing import Any

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.settings import ApiSettings
from kit import gc_tuning

SHUTDOWN_SECONDS = 3
"""uvicorn's graceful shutdown: without a limit it waits for every open request."""

KEEP_ALIVE_SECONDS = 75
"""Above the 60 s for which proxies keep an idle connection: else a proxy sends a request into a closed one."""

STUCK_CLIENT_MS = 30_000
"""TCP_USER_TIMEOUT: how long a client may leave sent data unacknowledged."""


class Server(uvicorn.Server):
    """Ends event streams and long polls before the graceful shutdown waits for open requests."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc_tuning.freeze_after_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.services.feed.end_following()
        await super().shutdown(sockets)


def config(app: FastAPI, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        access_log=False,  # the middleware logs each request, without its query
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        **options,
    )


def listening_socket(served: uvicorn.Config) -> socket.socket:
    """With TCP_USER_TIMEOUT: the kernel resets connections of stuck clients, for which uvicorn would wait for ever."""
    listening = served.bind_socket()
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_CLIENT_MS)
    return listening


if __name__ == "__main__":
    settings = ApiSettings()
    app = create_app()
    served = config(app, host=settings.host, port=settings.port, forwarded_allow_ips=settings.forwarded_allow_ips)
    Server(served, app).run([listening_socket(served)])
