"""The light load says the truth: what was not answered whole has failed, whatever it looked like."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from flows.load import LoadResult, light_load
from serving.slots import free_port

KEY = SecretStr("tg-key")
STREAM = 'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n'
WHOLE = {False: json.dumps({"choices": [{"message": {"content": "hi"}}]}), True: STREAM + "data: [DONE]\n\n"}

Behave = Callable[["Gateway", bool], None]


class Gateway(BaseHTTPRequestHandler):
    """Answers every chat as `behave` says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    behave: Behave

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer tg-key"
        type(self).behave(self, asked["stream"])

    def send(self, text: str, *, status: int = 200, missing: int = 0) -> None:
        self.send_response(status)
        self.send_header("x-tunegate-release", "clinic-1")
        self.send_header("Content-Length", str(len(text) + missing))
        self.end_headers()
        self.wfile.write(text.encode())
        if missing:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def gateway(behave: Behave) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Behaving", (Gateway,), {"behave": staticmethod(behave)}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def loaded(url: str, seconds: float = 0.15) -> LoadResult:
    with light_load(url, KEY, "clinic", every_s=0.01) as load:
        time.sleep(seconds)
    return load


def well(reply: Gateway, stream: bool) -> None:
    reply.send(WHOLE[stream])


def test_answers_are_counted_by_release_and_nothing_is_lost() -> None:
    with gateway(well) as url:
        load = loaded(url)
    assert load.failed == 0
    assert load.answered == {"clinic-1": load.sent}
    assert load.sent >= 4


def test_a_slow_gateway_does_not_slow_the_load_down() -> None:
    """Open loop: at 0.01 s a request, 0.15 s send more than the one that a closed loop would have got through."""

    def slowly(reply: Gateway, stream: bool) -> None:
        time.sleep(0.3)
        well(reply, stream)

    with gateway(slowly) as url:
        load = loaded(url)
    assert (load.failed, load.answered.total()) == (0, load.sent)
    assert load.sent >= 4


def ends_without_done(reply: Gateway, stream: bool) -> None:
    reply.send(STREAM if stream else WHOLE[False])


def error_event(reply: Gateway, stream: bool) -> None:
    reply.send('data: {"error": {"message": "engine died"}}\n\ndata: [DONE]\n\n' if stream else WHOLE[False])


def cut_in_the_middle(reply: Gateway, stream: bool) -> None:
    reply.send(STREAM if stream else WHOLE[False], missing=100 if stream else 0)


@pytest.mark.parametrize(
    ("behave", "why"), [(ends_without_done, "cut short"), (error_event, "cut short"), (cut_in_the_middle, "ClientPayloadError")]
)
def test_every_stream_that_is_cut_is_a_failure_and_the_whole_answers_are_not(behave: Behave, why: str) -> None:
    with gateway(behave) as url:
        load = loaded(url)
    assert load.failed == load.sent // 2
    assert load.answered.total() == load.sent - load.failed
    assert all(why in failure for failure in load.failures)


def http_500(reply: Gateway, stream: bool) -> None:
    reply.send('{"error": {"message": "no slot"}}', status=500)


def empty(reply: Gateway, stream: bool) -> None:
    reply.send("")


def not_an_object(reply: Gateway, stream: bool) -> None:
    reply.send("[1]")


def no_choices(reply: Gateway, stream: bool) -> None:
    reply.send('{"choices": []}')


def hang_up(reply: Gateway, stream: bool) -> None:
    reply.close_connection = True


@pytest.mark.parametrize("behave", [http_500, empty, not_an_object, no_choices, hang_up])
def test_an_answer_that_is_none_is_a_failure(behave: Behave) -> None:
    with gateway(behave) as url:
        load = loaded(url)
    assert load.failed == load.sent > 0
    assert load.answered.total() == 0


def test_a_failure_names_the_request_and_what_came_back() -> None:
    with gateway(http_500) as url:
        load = loaded(url)
    assert all(re.fullmatch(r"request \d+: HTTP 500: .*no slot.*", failure) for failure in load.failures)
    assert 1 <= len(load.failures) <= 5


def test_a_refused_connection_is_a_failure() -> None:
    load = loaded(f"http://127.0.0.1:{free_port()}")
    assert load.failed == load.sent > 0
    assert "ClientConnectorError" in load.failures[0]


def test_a_load_that_sent_nothing_has_failed() -> None:
    result = LoadResult()
    result.settle()
    assert (result.failed, result.failures) == (1, ["no request was sent"])


def test_what_was_never_accounted_for_has_failed() -> None:
    result = LoadResult(sent=3, failed=1)
    result.answered["clinic-1"] = 1
    result.settle()
    assert result.failed == 2


def test_an_error_of_the_block_ends_the_load_and_is_not_hidden() -> None:
    with gateway(well) as url:
        with pytest.raises(ZeroDivisionError), light_load(url, KEY, "clinic", every_s=0.01):
            raise ZeroDivisionError
        assert not any(thread.name == "light load" for thread in threading.enumerate())
