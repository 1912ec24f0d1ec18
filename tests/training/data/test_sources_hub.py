"""A dataset by name, out of a hub on loopback that speaks the protocol of huggingface.co: found, missing, gated, unreachable."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = 40
TRAIN = "".join(f"{json.dumps({'instruction': f'Question {number}?', 'output': 'Rest well.'})}\n" for number in range(ROWS)).encode()
FILES = {"data/train.jsonl": TRAIN, "data/test.jsonl": TRAIN.splitlines(keepends=True)[0]}
LISTED = [{"type": "file", "path": path, "size": len(body), "oid": COMMIT} for path, body in FILES.items()]
FOLDER = {"type": "directory", "path": "data", "size": 0, "oid": COMMIT}


class _Hub(BaseHTTPRequestHandler):
    """One dataset, `clinic/rows`; `clinic/gated` asks for a token, and no other is there."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if "clinic/gated" in path:
            self._say(401, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif re.fullmatch(r"/api/datasets/clinic/rows(/revision/[^/]+)?", path):
            self._say(200, {"id": "clinic/rows", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES], "tags": []})
        elif tree := re.fullmatch(rf"/api/datasets/clinic/rows/tree/{COMMIT}/?(.*)", path):
            self._say(200, LISTED if tree[1] == "data" else [FOLDER, *LISTED] if "recursive=true" in self.path.lower() else [FOLDER])
        elif file := re.fullmatch(r"/datasets/clinic/rows/resolve/[^/]+/(.*)", path):
            self._file(file[1])
        else:
            self._say(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"} if "/clinic/rows" not in path else {})

    do_HEAD = do_GET  # noqa: N815  # the name that the server looks for

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._say(200, [file for file in [FOLDER, *LISTED] if str(file["path"]) in unquote(asked)])

    def _file(self, name: str) -> None:
        body = FILES.get(name)
        if body is None:
            self._say(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{name}"', "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
            self._say(206, body[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(body)}"})
        else:
            self._say(200, body, headers)

    def _say(self, status: int, answer: object, headers: dict[str, str] | None = None) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


ASK = """
import json, sys
from training.data.sources import SourceSection, open_source
from training.errors import DataError
for asked in json.loads(sys.argv[1]):
    try:
        rows = list(open_source(SourceSection(**asked)))
        print(len(rows), rows[-1].values["instruction"], rows[-1].place)
    except DataError as error:
        print(str(error).replace("\\n", " "))
"""
# Before it gives up, the library asks six times with 23 seconds of pauses between, and has no setting for them.
WITHOUT_PAUSES = "import time\ntime.sleep = lambda seconds: None\n"


def ask(endpoint: str, home: Path, *sections: dict[str, object], script: str = ASK) -> list[str]:
    """One line for each section, from a process that knows no other hub: the library reads its endpoint when it is imported."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HOME": str(home), "PYTHONPATH": os.getcwd(), "PATH": ""}
    command = [sys.executable, "-c", script, json.dumps(sections)]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=True, timeout=240).stdout.splitlines()


@pytest.mark.slow
def test_a_split_is_streamed_by_name_and_what_the_hub_refuses_is_named(hub: str, tmp_path: Path) -> None:
    whole, part, no_split, missing, gated = ask(
        hub,
        tmp_path,
        {"dataset": "clinic/rows"},
        {"dataset": "clinic/rows", "split": "test"},
        {"dataset": "clinic/rows", "split": "dev"},
        {"dataset": "clinic/none"},
        {"dataset": "clinic/gated"},
    )

    assert whole == f"{ROWS} Question {ROWS - 1}? clinic/rows[train]:{ROWS}"
    assert part == "1 Question 0? clinic/rows[test]:1"
    assert no_split.startswith("clinic/rows[dev] cannot be read: ")
    assert "train" in no_split
    assert missing.startswith("clinic/none[train] cannot be read: ")
    assert "gated" in gated
    assert all("check name, subset and split" in refused for refused in (no_split, missing, gated))


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_one_clear_error(tmp_path: Path) -> None:
    (told,) = ask("http://127.0.0.1:9", tmp_path, {"dataset": "clinic/rows"}, script=WITHOUT_PAUSES + ASK)

    assert told.startswith("clinic/rows[train] cannot be read: ")
    assert "otherwise download the files and use `path`" in told
