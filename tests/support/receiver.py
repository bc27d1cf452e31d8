"""A receiver of webhooks on a real socket. It verifies each request with the `standardwebhooks` package."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from tests.support.image_server import Answer, ImageServer, Request, image_server, reply

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_" + "b3RoZXIgc2VjcmV0IG9mIDI0IGJ5dGVzIQ=="
"""A second one, for the time in which secrets rotate."""


@dataclass
class Receiver:
    """Answers each POST with the next of `answers`, then with `otherwise`; `messages` are the verified bodies."""

    server: ImageServer
    secret: str
    answers: list[Answer] = field(default_factory=list)
    otherwise: Answer = field(default_factory=lambda: reply(204))
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def requests(self) -> list[Request]:
        return self.server.requests

    @property
    def url(self) -> str:
        return self.server.url("/hooks/path-token?token=TOPSECRET")

    def receive(self, request: Request) -> Answer:
        message: dict[str, Any] = Webhook(self.secret).verify(request.body, request.headers)
        self.messages.append(message)
        return self.answers.pop(0) if self.answers else self.otherwise


@contextmanager
def receiver(secret: str = SECRET) -> Iterator[Receiver]:
    receivers: list[Receiver] = []

    def answer(request: Request) -> Answer:
        return receivers[0].receive(request)

    with image_server(answer) as server:
        receivers.append(Receiver(server, secret))
        yield receivers[0]
