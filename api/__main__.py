"""`python -m api`: the API's own process, on `API_HOST` and `API_PORT`."""

import uvicorn

from api.settings import ApiSettings

SHUTDOWN_SECONDS = 3
"""Without a limit uvicorn waits for open event streams, which may last as long as their jobs."""

if __name__ == "__main__":
    settings = ApiSettings()
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        access_log=False,  # the middleware logs each request, without its query
        log_config=None,
        server_header=False,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
