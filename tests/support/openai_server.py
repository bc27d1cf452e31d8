"""A stand-in for the Responses API, on a real socket: answers like a well-behaved model, or misbehaves on demand.

`python -m tests.support.openai_server --port N [--latency S]` runs it alone, for demos and benchmarks.
"""

import argparse
import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from tests.support.image_server import Answer, ImageServer, Request, image_server, reply

PATH = "/v1/responses"

SEEN: dict[str, Any] = {
    "middle_category": "유리병",
    "minor_category": None,
    "situation_tags": [],
    "confidence": 0.93,
    "candidates": [{"middle_category": "유리병", "confidence": 0.93}],
}
WRITTEN: dict[str, Any] = {
    "disposal_steps": ["내용물을 비워 주세요.", "물로 헹궈 주세요.", "유리병 수거함에 넣어 주세요."],
    "user_answer": "유리병이에요. 비우고 헹궈서 유리병 수거함에 넣어 주세요.",
}
USAGE: dict[str, Any] = {
    "input_tokens": 3000,
    "input_tokens_details": {"cached_tokens": 2000, "cache_write_tokens": 500},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 3100,
}


READ: dict[str, Any] = {
    "is_about_waste": True,
    "things": [
        {
            "name": "유리병",
            "middle_category": "유리병",
            "minor_category": None,
            "situation_tags": ["라벨_있음"],
            "confidence": 0.9,
        }
    ],
}
PROSE = ("유리병은 ", "비우고 헹궈서 ", "유리병 수거함에 넣어 주세요.")


def purpose_of(request: Request) -> str:
    """`vision`, `question` or `answer`, by the name of the schema asked for; without one it is `chat`."""
    asked = orjson.loads(request.body)
    return str(asked["text"]["format"]["name"]) if "text" in asked else "chat"


def well_behaved(request: Request) -> Answer:
    match purpose_of(request):
        case "vision":
            return completed(SEEN)
        case "question":
            return completed(READ)
        case "chat":
            return streamed(PROSE)
        case _:
            return completed(WRITTEN)


def streamed(deltas: Iterable[str], *, pause: float = 0.0, last: str | None = "completed", **fields: Any) -> Answer:
    """Prose, piece by piece. `last` is how the stream ends; None: it is cut off. `fields` are of its last response."""
    deltas = list(deltas)
    content = [{"type": "output_text", "text": "".join(deltas), "annotations": []}]

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(sse("response.created", response={"id": "resp_1", "status": "in_progress", "output": []}))
        for delta in deltas:
            writer.write(sse("response.output_text.delta", item_id="msg_1", delta=delta))
            await writer.drain()
            await asyncio.sleep(pause)
        if last is not None:
            writer.write(sse(f"response.{last}", response=response_body(last, content, **fields)))
        await writer.drain()
        writer.close()

    return answer


def sse(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


@contextmanager
def openai_server(port: int = 0, fallback: Callable[[Request], Answer] = well_behaved) -> Iterator[ImageServer]:
    """Set `server.fallback` to make it misbehave; `server.requests` holds what it was sent."""
    with image_server(fallback, port) as server:
        yield server


def base_url(server: ImageServer) -> str:
    return server.url("/v1")


def completed(output: object, usage: dict[str, Any] | None = USAGE) -> Answer:
    """A finished response. A string is sent as it is, anything else as JSON."""
    text = output if isinstance(output, str) else orjson.dumps(output).decode()
    return response("completed", [{"type": "output_text", "text": text, "annotations": []}], usage=usage)


def refusal() -> Answer:
    return response("completed", [{"type": "refusal", "refusal": "I can't help with that."}])


def incomplete(reason: str) -> Answer:
    content = [{"type": "output_text", "text": '{"middle_cat', "annotations": []}]
    return response("incomplete", content, incomplete_details={"reason": reason})


def failed(code: str) -> Answer:
    return response("failed", [], error={"code": code, "message": "it failed"})


def response(status: str, content: list[dict[str, Any]], **fields: Any) -> Answer:
    return reply(200, orjson.dumps(response_body(status, content, **fields)), Content_Type="application/json")


def response_body(status: str, content: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content}
    return {
        "id": "resp_1",
        "object": "response",
        "status": status,
        "error": None,
        "incomplete_details": None,
        "output": [{"type": "reasoning", "id": "rs_1", "summary": []}, message],
        "usage": USAGE,
        **fields,
    }


def problem(status: int, code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI writes it."""
    error = {"message": "Incorrect API key provided: sk-secret", "type": code, "code": code, "param": None}
    return reply(status, orjson.dumps({"error": error}), Content_Type="application/json", **headers)


def late(answer: Answer, seconds: float) -> Answer:
    async def wait_first(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await answer(writer)

    return wait_first


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a well-behaved stand-in for the OpenAI Responses API.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args()
    with openai_server(options.port, lambda request: late(well_behaved(request), options.latency)) as server:
        print(base_url(server), flush=True)  # noqa: T201 - whoever started it reads the URL here
        threading.Event().wait()


if __name__ == "__main__":
    main()
