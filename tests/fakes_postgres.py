"""A real, private PostgreSQL: a cluster in a temporary folder, on loopback, by an unprivileged user, gone at the end."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg

from serving.migrate import upgrade

_USER = "tunegate"
_DATABASE = "registry"
_EMPTIED = """
    ALTER TABLE transitions DISABLE TRIGGER USER;
    ALTER TABLE audit_log DISABLE TRIGGER USER;
    TRUNCATE audit_log, outlets, runs, releases, transitions, slot_leases, rollouts, tallies, shadows, slots, server, api_keys;
    UPDATE generation SET value = 0;
    ALTER TABLE transitions ENABLE TRIGGER USER;
    ALTER TABLE audit_log ENABLE TRIGGER USER;
"""


@dataclass
class Cluster:
    """A running server. `empty` gives the URL of a new database, `fresh` that of one registry without rows, the same each time."""

    folder: Path
    port: int
    password: str = field(repr=False)
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def empty(self) -> str:
        """A database without tables."""
        name = f"empty{next(self._numbers)}"
        self.run(self.url("postgres"), f"CREATE DATABASE {name}")
        return self.url(name)

    def fresh(self) -> str:
        """A registry without rows; emptied, which takes a tenth of the time that making one does."""
        self.run(self.url(_DATABASE), _EMPTIED)
        return self.url(_DATABASE)

    def run(self, url: str, statement: str) -> None:
        """As somebody who goes past our code would."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)

    def stop(self) -> None:
        """End the server at once, as a machine that fails does."""
        _as_owner([_program("pg_ctl"), "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop"])

    def start(self) -> None:
        """Run the server and wait until it answers."""
        # Nothing here outlives the tests, so nothing need reach the disk.
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        log = str(self.folder / "log")
        _as_owner([_program("pg_ctl"), "-D", str(self.folder / "data"), "-l", log, "-o", options, "-w", "start"])


@contextmanager
def postgres_cluster() -> Iterator[Cluster]:
    """A cluster while the block runs."""
    # Not pytest's folder: its parents are closed to the unprivileged owner.
    with tempfile.TemporaryDirectory(prefix="tunegate-postgres-") as made:
        cluster = Cluster(Path(made), _free_port(), secrets.token_hex(8))
        if os.geteuid() == 0:
            shutil.chown(made, "postgres")
        password = cluster.folder / "password"
        password.write_text(cluster.password, encoding="utf-8")
        if os.geteuid() == 0:
            shutil.chown(password, "postgres")
        password.chmod(0o600)
        authentication = ["--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--locale=C"]
        _as_owner([_program("initdb"), "-D", str(cluster.folder / "data"), "-U", _USER, *authentication])
        cluster.start()
        try:
            cluster.run(cluster.url("postgres"), f"CREATE DATABASE {_DATABASE}")
            upgrade(cluster.url(_DATABASE))
            yield cluster
        finally:
            cluster.stop()


def _program(name: str) -> str:
    """Debian keeps the server's programs apart from the path, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    program = str(found[-1]) if found else shutil.which(name)
    assert program is not None, f"{name} is missing: install the package postgresql, as .ci/run does"
    return program


def _as_owner(command: Sequence[str]) -> None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() == 0:
        pwd.getpwnam("postgres")
        command = ["runuser", "-u", "postgres", "--", *command]
    # The server keeps what it is given as its output open; a pipe would never end.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    assert done.returncode == 0, f"{command} ended with {done.returncode}"


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
