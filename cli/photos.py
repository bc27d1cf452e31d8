"""Photos from this machine, served on loopback for one run. Uploads will make this unnecessary."""

import asyncio
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_urlsafe
from threading import Thread

LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class PhotoServer:
    """Serves the given files and nothing else, under names that cannot be guessed."""

    port: int
    urls: dict[Path, str]

    @property
    def allow(self) -> str:
        """For FETCH_ALLOW: this one address and port."""
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def serving_photos(files: list[Path]) -> AsyncIterator[PhotoServer]:
    paths = {f"/{token_urlsafe(12)}/{number}": file for number, file in enumerate(files)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = paths.get(self.path)
            if file is None:
                self.send_error(404)
                return
            with file.open("rb") as photo:
                data = photo.read(LIMIT)
            self.send_response(200)
            self.send_header("Content-Type", mimetypes.guess_type(file.name)[0] or "application/octet-stream")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """The worker logs what it fetches."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, name="photos", daemon=True).start()
    port = server.server_port
    try:
        yield PhotoServer(port, {file: f"http://127.0.0.1:{port}{path}" for path, file in paths.items()})
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
