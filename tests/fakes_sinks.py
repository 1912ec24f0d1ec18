"""Small servers that take what is told: one for HTTP, one that speaks just enough SMTP. Real sockets on loopback, in threads."""

import json
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that nobody trusts by itself, and its key."""
    files = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]], check=True, capture_output=True
    )
    return files


@dataclass
class MailSink:
    """Takes mails; `mails` holds each as it came, `verbs` every command, with `+` once the connection is encrypted."""

    port: int = 0
    verbs: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)


@contextmanager
def mail_sink(tls: ssl.SSLContext | None = None) -> Iterator[MailSink]:
    """A mail server while the block runs; with `tls` it offers STARTTLS, and a login once it is used."""
    sink = MailSink()

    class Handler(socketserver.StreamRequestHandler):
        encrypted = False

        def handle(self) -> None:
            self.wfile.write(b"220 sink\r\n")
            with suppress(OSError):  # a client that does not trust us hangs up
                while (command := self.rfile.readline().decode().strip()) and self.answer(command):
                    pass

        def answer(self, command: str) -> bool:
            verb = command.split(":")[0].split()[0].upper()
            sink.verbs.append(verb + "+" * self.encrypted)
            if verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                sink.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
            elif verb == "RCPT":
                sink.receivers.append(command.partition(":")[2])
            elif verb == "EHLO" and tls is not None:
                self.wfile.write(b"250-sink\r\n" + (b"250-AUTH PLAIN\r\n" if self.encrypted else b"250-STARTTLS\r\n"))
            elif verb == "STARTTLS" and tls is not None:
                self.wfile.write(b"220 go on\r\n")
                self.encrypt(tls)
                return True
            self.wfile.write({"QUIT": b"221 bye\r\n", "AUTH": b"235 ok\r\n"}.get(verb, b"250 ok\r\n"))
            return verb != "QUIT"

        def encrypt(self, context: ssl.SSLContext) -> None:
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
            self.encrypted = True

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
