"""`python -m api`: the API's own process, on `API_HOST` and `API_PORT`."""

import uvicorn

from api.settings import ApiSettings

SHUTDOWN_SECONDS = 3
"""Without a limit uvicorn waits for open event streams, which may last as long as their jobs."""

KEEP_ALIVE_SECONDS = 75
"""Above the 60 s for which proxies keep an idle connection: else they send a request into one that we just closed."""

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
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
