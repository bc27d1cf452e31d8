"""Server-sent events out of a stream of bytes. Pure."""

from collections.abc import Iterator


class EventDecoder:
    """Finds the data of each event, however the bytes are cut; comments and all other fields are skipped.

    Takes time in proportion to the bytes and keeps at most one event: bounding that is the caller's business.
    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._ended_in_cr = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of the events that end in this chunk. An event without data is none."""
        if not chunk:
            return
        if self._ended_in_cr:
            chunk = chunk.removeprefix(b"\n")  # The other half of a line end.
        self._ended_in_cr = chunk.endswith(b"\r")
        *ended, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for end in ended:
            self._line += end
            if data := self._end_line():
                yield data
        self._line += rest

    def _end_line(self) -> bytes:
        """The data of an event, if the line was the empty one that ends it."""
        line = bytes(self._line)
        self._line.clear()
        if not line:
            data = b"\n".join(self._data)
            self._data.clear()
            return data
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return b""
