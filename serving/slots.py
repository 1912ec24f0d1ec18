"""One engine process: started on a free loopback port with a key of its own, ready when it has answered, stopped without a loss.

Knows nothing of the registry or of why it should run. Next: `supervisor.py`, which decides that.
"""

import asyncio
import os
import secrets
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from serving import leash
from serving.engine_probe import Address, Pace, answered, went_silent
from serving.errors import SlotError
from serving.slot_folder import KEY_NAME, write_key
from serving.slot_sockets import make_sockets, remove_sockets

_HOST = "127.0.0.1"
# Below the range from which Linux takes ports for outgoing connections, so that none of them takes ours before the engine does.
_PORTS = range(20_000, 32_000)
_EXIT_GRACE_S = 5.0
_LOG_NAME = "vllm.log"
_MAX_LOG_BYTES = 16 << 20
_TAIL_LINES = 5


class EngineCommand(Protocol):
    """What to run. The environment is added to the server's and holds no secret."""

    @property
    def argv(self) -> tuple[str, ...]: ...

    @property
    def env(self) -> Mapping[str, str]: ...


class SlotProcess:
    """An engine that serves the model `release_id` under its own name.

    Args:
        folder: keeps the key (readable by this user alone) and the log.
        command: port -> what to run.
        start_timeout_s: most seconds to the first answer.
        exit_grace_s: seconds, beyond those to drain, that it may take to end.
        silent_s: seconds without an answer or a token after which one that was ready counts as ended, though it runs; 0: never.
    """

    def __init__(
        self,
        release_id: str,
        folder: Path,
        command: Callable[[int], EngineCommand],
        *,
        start_timeout_s: float,
        exit_grace_s: float = _EXIT_GRACE_S,
        silent_s: float = 0.0,
    ) -> None:
        self.release_id = release_id
        self.port = 0
        self._folder, self._command, self._start_timeout_s = folder, command, start_timeout_s
        self._exit_grace_s, self._silent_s = exit_grace_s, silent_s
        self._key = SecretStr(secrets.token_urlsafe(32))
        self._process: Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Of the leash, which is also the number of the process group; None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def base_url(self) -> str:
        """Root of the engine's HTTP server, without `/v1`."""
        return f"http://{_HOST}:{self.port}"

    @property
    def served_name(self) -> str:
        """What the engine calls the model."""
        return self.release_id

    async def start(self) -> None:
        """Start the process; it is not ready yet.

        Raises:
            SlotError: no port is free, the command cannot be made, or the folder cannot be written to.
        """
        self.port = free_port()
        # The engine gets no setting of ours: the registry's address may hold a password.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TUNEGATE_")}
        try:
            command = self._command(self.port)
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_key(self._folder, self._key)
            own = {"VLLM_API_KEY": self._key.get_secret_value(), "VLLM_RPC_BASE_PATH": str(make_sockets(self._folder))}
            with _log_file(self._folder / _LOG_NAME).open("ab") as log:
                self._log_start = log.tell()
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", leash.__file__, *command.argv),
                    env={**inherited, **command.env, **own},
                    stdin=PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except (OSError, ValueError, KeyError) as error:
            what = f"the engine of {self.release_id} cannot be started: {type(error).__name__}: {error}"
            raise SlotError(what, do=f"look at {self._folder} and at the model's config.json") from error

    async def ready(self) -> None:
        """Return when the engine has answered a real completion.

        Raises:
            SlotError: it exited first, or took too long; the end of its log is quoted.
        """
        asked, exited = asyncio.create_task(answered(self._address)), asyncio.create_task(self._running.wait())
        try:
            await asyncio.wait({asked, exited}, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                return asked.result()
            if exited.done():
                raise self.failure(f"ended with status {exited.result()} before its first answer")
            raise self.failure(f"did not answer within {self._start_timeout_s:g} s")
        finally:
            asked.cancel()
            exited.cancel()

    async def exited(self) -> int:
        """Wait for the process to end by itself; returns its status."""
        return await self._running.wait()

    async def ended(self) -> str:
        """Wait for it to end by itself, or to fall silent, which ends it; returns how, with the end of its log."""
        exited, silent = asyncio.create_task(self._running.wait()), asyncio.create_task(self._went_silent())
        try:
            await asyncio.wait({exited, silent}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                return str(self.failure(f"ended with status {exited.result()}"))
            self._kill()  # nobody who waits for it will be answered: there is nothing to drain
            return str(self.failure(f"{silent.result()}, and was killed"))
        finally:
            exited.cancel()
            silent.cancel()

    async def stop(self, drain_s: float) -> None:
        """Let the engine finish what it is answering, at most `drain_s` seconds, then make sure that nothing of it is left."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), drain_s + self._exit_grace_s)
        except TimeoutError:
            pass
        finally:
            self._kill()
            (self._folder / KEY_NAME).unlink(missing_ok=True)
            remove_sockets(self._folder)
        await self._process.wait()

    def failure(self, what: str) -> SlotError:
        """An error about this engine, with the end of its log."""
        log = self._folder / _LOG_NAME
        tail = _tail(log, self._log_start).replace(self._key.get_secret_value(), "[key]")
        return SlotError(f"the engine of {self.release_id} {what}", why=tail, do=f"read {log}")

    async def _went_silent(self) -> str:
        if not self._silent_s:
            await asyncio.Event().wait()  # nobody wants to know
        return await went_silent(self._address, Pace.for_silence(self._silent_s))

    def _kill(self) -> None:
        """The whole family."""
        with suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)

    @property
    def _address(self) -> Address:
        return Address(self.base_url, self.served_name, self._key)

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("SlotProcess.start() was not awaited")
        return self._process


def free_port() -> int:
    """A loopback port nobody listens on.

    Raises:
        SlotError: after 100 tries.
    """
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    raise SlotError(f"no loopback port between {_PORTS.start} and {_PORTS.stop} is free", do="stop what listens there")


def _log_file(path: Path) -> Path:
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path


def _tail(log: Path, start: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "there is no log"
    return " | ".join(line.strip() for line in lines[-_TAIL_LINES:]) or "its log is empty"
