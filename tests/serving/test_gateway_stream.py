"""What is read of an answer that is passed on."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway_stream import StreamTail, Usage, usage_of


def tail_of(stream: bytes, piece_size: int = 7) -> StreamTail:
    tail = StreamTail()
    for start in range(0, len(stream), piece_size):
        tail.feed(stream[start : start + piece_size])
    return tail


@pytest.mark.parametrize(
    ("stream", "well"),
    [
        (b"data: {}\n\ndata: [DONE]\n\n", True),
        (b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n", True),
        (b"data: {}\n\n", False),
        (b"data: [DONE]\n\ndata: {}\n\n", False),
        (b"", False),
    ],
)
def test_a_stream_ended_well_only_when_done_came_last(stream: bytes, well: bool) -> None:
    assert tail_of(stream).ended_well() is well


@pytest.mark.parametrize(
    ("event", "is_error"),
    [
        (b'{"error": {"message": "engine died"}}', True),
        (b'{"choices": [{"delta": {"content": "an \\"error\\" of mine"}}]}', False),
        (b'{"choices": [], "error": null}', False),
        (b'{"error" broken', False),
    ],
)
def test_an_error_is_told_from_a_text_about_errors(event: bytes, is_error: bool) -> None:
    assert tail_of(b"data: {}\n\ndata: " + event + b"\n\ndata: [DONE]\n\n").carries_error() is is_error


@settings(deadline=None, max_examples=50)
@given(prompt=st.integers(0, 10**6), completion=st.integers(0, 10**6), text=st.text(), spaced=st.booleans())
def test_usage_is_what_a_full_parse_says(prompt: int, completion: int, text: str, spaced: bool) -> None:
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
    answer = {"choices": [{"message": {"content": text + ' "usage": {"prompt_tokens": 999}'}}], "usage": usage}
    body = json.dumps(answer, separators=(", ", ": ") if spaced else (",", ":")).encode()
    assert usage_of(body) == Usage(prompt, completion)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"usage": null}', b'{"usage": {"prompt_tokens": "many"}}', b'{"usage":', b'{"usage": [1]}'])
def test_no_usage_is_none(body: bytes) -> None:
    assert usage_of(body) is None


def test_the_last_usage_of_a_long_stream_counts() -> None:
    event = b'data: {"usage": {"prompt_tokens": 1, "completion_tokens": %d}}\n\n'
    stream = b"".join(event % number for number in range(2000)) + b"data: [DONE]\n\n"
    assert tail_of(stream, 1000).usage() == Usage(1, 1999)


def test_a_long_stream_is_not_kept() -> None:
    tail = StreamTail()
    for _ in range(10_000):
        tail.feed(b"x" * 100)
    assert len(tail._bytes) <= 20_000
