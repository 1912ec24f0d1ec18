"""Small servers that take what is told: one for HTTP, one that speaks just enough SMTP. Real sockets on loopback, in threads."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class HttpSink:
    """Answers each POST with the next of `statuses`, then with 200, and remembers it; answers a GET of a version with `page`."""

    url: str = ""
    page: str | None = None
    statuses: list[int] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def http_sink() -> Iterator[HttpSink]:
    """A sink while the block runs."""
    sink = HttpSink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            sink.raw.append(raw)
            sink.bodies.append(json.loads(raw))
            sink.headers.append(dict(self.headers.items()))
            sink.paths.append(self.path)
            self.send_response(sink.statuses.pop(0) if sink.statuses else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def do_GET(self) -> None:
            if sink.page is None or not self.path.endswith("/version"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(sink.page)))
            self.end_headers()
            self.wfile.write(sink.page.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            sink.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
            yield sink
        finally:
            server.shutdown()
            thread.join()


@dataclass
class MailSink:
    """Takes mails; `mails` holds each as it came."""

    port: int = 0
    mails: list[str] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)


@contextmanager
def mail_sink() -> Iterator[MailSink]:
    """A mail server while the block runs."""
    sink = MailSink()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 sink\r\n")
            while command := self.rfile.readline().decode().strip():
                verb = command.split(":")[0].split()[0].upper()
                if verb == "DATA":
                    self.wfile.write(b"354 go on\r\n")
                    sink.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                elif verb == "RCPT":
                    sink.receivers.append(command.partition(":")[2])
                self.wfile.write(b"221 bye\r\n" if verb == "QUIT" else b"250 ok\r\n")
                if verb == "QUIT":
                    return

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address, daemon_threads = True, True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            sink.port = server.server_address[1]
            yield sink
        finally:
            server.shutdown()
            thread.join()
