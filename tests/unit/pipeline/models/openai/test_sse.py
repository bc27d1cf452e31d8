"""Events out of bytes, however the network cuts them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.openai.sse import EventDecoder

STREAM = (
    ": a comment\n\nevent: ping\n\n"
    'event: delta\ndata: {"text": "유리병"}\n\n'
    "id: 7\ndata:no blank\ndata\ndata:  two blanks\nretry: 10\n\n"
    "data: a: colon\n\ndatum: nothing\n\ndata:\n\n"
    "data: [DONE]\n\ndata: never ended"
)
EVENTS = ['{"text": "유리병"}', "no blank\n\n two blanks", "a: colon", "[DONE]"]
LINE_ENDS = ["\n", "\r\n", "\r"]


def decoded(*chunks: bytes) -> list[str]:
    decoder = EventDecoder()
    return [data.decode() for chunk in chunks for data in decoder.feed(chunk)]


def encoded(line_end: str) -> bytes:
    return STREAM.replace("\n", line_end).encode()


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_events_are_the_same_wherever_the_stream_is_cut_in_two(line_end: str) -> None:
    body = encoded(line_end)
    for cut in range(len(body) + 1):
        assert decoded(body[:cut], body[cut:]) == EVENTS


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_events_are_the_same_byte_by_byte(line_end: str) -> None:
    assert decoded(*(bytes([each]) for each in encoded(line_end))) == EVENTS


@given(st.sampled_from(LINE_ENDS), st.lists(st.integers(0, len(STREAM) * 3)))
def test_events_are_the_same_in_any_chunks(line_end: str, cuts: list[int]) -> None:
    body = encoded(line_end)
    ends = [0, *sorted(cuts), len(body)]
    assert decoded(*(body[start:end] for start, end in itertools.pairwise(ends))) == EVENTS


def test_an_event_is_there_as_soon_as_its_last_line_ends() -> None:
    decoder = EventDecoder()
    assert list(decoder.feed(b"data: a\r\n\r")) == [b"a"]
    assert list(decoder.feed(b"\ndata: b\n")) == []
    assert list(decoder.feed(b"\n")) == [b"b"]
