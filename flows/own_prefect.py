"""Prefect's server of one command, where the user runs none: begun early, used when the first flow begins, ended with the command.

Prefect would start one by itself when the first flow begins, import the whole server into this process for that, and wait for both.
Here it starts in a process of its own while the command still reads, imports, or fetches the base model. It is held by the leash that
holds engines, so nothing of it outlives the command. Next: `delivery.py`, which uses it.
"""

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from flows.errors import PrefectUnreachable
from serving import leash
from serving.settings import Settings
from serving.slots import free_port

LOG_NAME = "server.log"
_LOOK_EVERY_S, _STOPS_WITHIN_S = 0.05, 5.0
# On a machine that is also loading a model.
_STARTS_WITHIN_S = 180.0
# What Prefect tells its own temporary servers.
_TEMPORARY = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}

_ours: set[str] = set()


class OwnPrefect:
    """A server with its database in our home. It ends with this process, after Prefect's client has told it the last event."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self.url, self.log = f"http://127.0.0.1:{self._port}/api", folder / LOG_NAME
        server = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(self._port)]
        argv = [sys.executable, "-I", "-S", leash.__file__, sys.executable, *server, "--log-level", "error", "--lifespan", "on"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **_TEMPORARY}
            )
        atexit.register(self.stop)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Flows run on it while the block runs; where the user has a server after all, they run there, and this one ends at once.

        Raises:
            PrefectUnreachable: it did not come up.
        """
        from prefect.settings import PREFECT_API_URL, temporary_settings

        if PREFECT_API_URL.value():  # a server of the user's, named in a file that only Prefect reads
            self.stop()
            yield
            return
        self._wait()
        _ours.add(self.url)
        with temporary_settings({PREFECT_API_URL: self.url}):
            yield

    def stop(self) -> None:
        """Let it finish what it writes; what does not end then is killed."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOPS_WITHIN_S)
        assert self._process.stdin is not None
        self._process.stdin.close()  # the leash is let go
        self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(_LOOK_EVERY_S)
        raise PrefectUnreachable(
            "Prefect's own server did not come up",
            why="the flows are shown, and their runs kept, by it",
            do=f"read {self.log}, or start a server and set PREFECT_API_URL",
        )

    def _answers(self) -> bool:
        # Not by a client that would ask a proxy of the environment's.
        connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("GET", "/api/health")
            return connection.getresponse().status == HTTPStatus.OK
        return False


def server_of_the_user() -> str | None:
    """The API that flows of this process talk to, unless it is only ours, where nobody listens."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    return None if url in _ours else url


def use_own_prefect(settings: Settings) -> None:
    """Without a Prefect server of the user's, keep the database of a temporary one in our home."""
    os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect"))
    # Prefect makes this folder, but not the one above it.
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    # Prefect 3.7 looks for this file below the user's own home, whatever PREFECT_HOME says, and warns where that has no `.prefect`.
    os.environ.setdefault("PREFECT_SERVER_MEMO_STORE_PATH", str(Path(os.environ["PREFECT_HOME"]) / "memo_store.toml"))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # The default of 20 s is too short for a machine that is also loading a model.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")


def begin(settings: Settings) -> OwnPrefect | None:
    """Start the server of this command; None where the environment names one of the user's."""
    use_own_prefect(settings)
    return None if os.environ.get("PREFECT_API_URL") else OwnPrefect(Path(os.environ["PREFECT_HOME"]))
