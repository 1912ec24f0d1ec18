"""Rows from a web server on loopback: with and without ranges, gone, refusing, hanging up, silent."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.data import read_files
from training.data.sources import SourceSection, open_source
from training.errors import DataError

ROWS = 2_000
BODY = "".join(f"{json.dumps({'instruction': f'Question {number}', 'output': 'Rest. ' * 20})}\n" for number in range(ROWS)).encode()
STATUSES = {"gone": 410, "missing": 404, "private": 401, "broken": 500}


class _Handler(BaseHTTPRequestHandler):
    """What it does is said by the path."""

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        if not self._head():
            return
        if "hangs_up" in self.path:
            self.wfile.write(BODY[: len(BODY) // 2])
        elif "silent" in self.path:
            self.wfile.write(BODY[: len(BODY) // 2])
            self.wfile.flush()
            self.server.closing.wait(30)  # type: ignore[attr-defined]
        elif "Range" in self.headers and "ranges" in self.path:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            self.wfile.write(BODY[int(first) : int(last) + 1])
        else:
            self.wfile.write(BODY)

    def _head(self) -> bool:
        status = next((code for word, code in STATUSES.items() if word in self.path), 200)
        size = len(BODY)
        if status == 200 and "Range" in self.headers and "ranges" in self.path:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            status, size = 206, min(int(last), size - 1) + 1 - int(first)
        self.send_response(status)
        if "ranges" in self.path:
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + size - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(size if status < 400 else 0))
        self.end_headers()
        return status < 400

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.closing = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.closing.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def read(address: str) -> int:
    return len(list(open_source(SourceSection(path=address))))


def refused(address: str) -> str:
    with pytest.raises(DataError) as caught:
        read(address)
    return str(caught.value)


@pytest.mark.parametrize("path", ["whole.jsonl", "ranges.jsonl", "whole.jsonl?token=hunter22"])
def test_a_file_is_read_whole_with_ranges_and_without(web: str, path: str) -> None:
    assert read(f"{web}/{path}") == ROWS


@pytest.mark.parametrize(("path", "status"), STATUSES.items())
def test_a_server_that_refuses_is_named_with_what_it_answered(web: str, path: str, status: int) -> None:
    told = refused(f"{web}/{path}.jsonl?token=hunter22")

    assert str(status) in told
    assert f"/{path}.jsonl" in told
    assert "hunter22" not in told


def test_a_server_that_hangs_up_in_the_middle_is_named_and_no_row_passes_for_the_last(web: str) -> None:
    told = refused(f"{web}/hangs_up.jsonl?token=hunter22")

    assert "stopped being readable" in told
    assert "hunter22" not in told


def test_a_server_that_falls_silent_is_given_up(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_files, "SILENCE_S", 0.5)

    assert "stopped being readable" in refused(f"{web}/silent.jsonl")


def test_nobody_listening_is_told_at_once() -> None:
    assert "cannot be reached" in refused("http://127.0.0.1:9/rows.jsonl")
