"""A real Prefect server and a real process worker on loopback, with a database of their own."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from monitoring.alerting import Alert
from serving.slots import free_port
from tests.fakes_flows import ROOT, until

START_S = 180.0
# Each look is a query that the server answers instead of working.
POLL_S = 0.5
WORKER = (sys.executable, "-m", "prefect", "worker", "start", "--pool", "tunegate", "--type", "process")


def as_alertmanager(alert: Alert) -> dict[str, Any]:
    """What Alertmanager posts (webhook, version 4) when this alert fires in the first of its cases that says it does."""
    labels = {"alertname": alert.name, **alert.labels, **next(case for case in alert.cases if case.fires).fires[0]}
    told = {"summary": alert.summary, "runbook": alert.runbook}
    fired = {
        "status": "firing",
        "labels": labels,
        "annotations": told,
        "startsAt": "2026-01-02T03:04:05.678Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1:9090/graph?g0.expr=up",
        "fingerprint": "4f6b1a2c3d4e5f60",
    }
    common = {"groupLabels": {"alertname": alert.name}, "commonLabels": labels, "commonAnnotations": told}
    group = {"groupKey": '{}/{action=~"collect|retrain"}:{alertname="' + alert.name + '"}', "truncatedAlerts": 0}
    return {"version": "4", "status": "firing", "receiver": "tunegate", "externalURL": "http://127.0.0.1:9093", **group, **common} | {
        "alerts": [fired]
    }


@dataclass(frozen=True)
class PrefectServer:
    """Where a server answers, and what a process needs to find it."""

    url: str
    env: Mapping[str, str]
    folder: Path

    @contextmanager
    def ours(self) -> Iterator[None]:
        """This process talks to it while the block runs."""
        with temporary_settings({PREFECT_API_URL: self.url, PREFECT_HOME: self.folder / "prefect"}):
            yield

    def copy_database(self, home: Path) -> None:
        """Spare a server of its own below `home` the making of its tables, which takes longer than all the rest of its start."""
        home.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.folder / "prefect.db")) as ours, closing(sqlite3.connect(home / "prefect.db")) as theirs:
            ours.backup(theirs)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the server's API answers, without our client in between."""
        answer = httpx.post(f"{self.url}{path}", json=body, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Every run of a flow that is more than a date in the calendar, oldest first."""
        states = {"operator": "and_", "state": {"name": {"not_any_": ["Scheduled"]}}}
        found = self.post("/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "flow_runs": states, "sort": "START_TIME_ASC"})
        return list(found)

    def storm(self, event: str, labels: Mapping[str, str], times: int) -> None:
        """Tell it the same thing so many times at once."""
        resource, now = {"prefect.resource.id": "tunegate.storm", **labels}, datetime.now(UTC).isoformat()
        told = [{"id": str(uuid4()), "occurred": now, "event": event, "resource": resource} for _ in range(times)]
        httpx.post(f"{self.url}/events", json=told, timeout=120).raise_for_status()

    def events(self, name: str) -> list[str]:
        """The releases that this event was told of."""
        found = self.post("/events/filter", {"filter": {"event": {"name": [name]}}})
        return [event["resource"]["tunegate.release"] for event in found["events"]]

    def count_events(self, name: str, *, of: str) -> int:
        """How often a run of the flow `of` has told this event."""
        found = self.post("/events/filter", {"filter": {"event": {"name": [name]}}})
        return sum(any(each.get("prefect.resource.name") == of for each in event["related"]) for event in found["events"])

    def wait_for_run(self, flow: str, state: str = "COMPLETED") -> dict[str, Any]:
        """The oldest run of a flow that has ended, once there is one; where all is slow, the next may be submitted before it starts."""

        def ended() -> list[dict[str, Any]]:
            return [run for run in self.runs(flow) if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")]

        until(lambda: bool(ended()), 300, POLL_S)
        run = ended()[0]
        assert run["state_type"] == state, run["state"]
        return run

    @contextmanager
    def worker(self, env: Mapping[str, str]) -> Iterator[None]:
        """A worker that looks for work every half second."""
        log = (self.folder / "worker.log").open("wb")
        process = subprocess.Popen(WORKER, cwd=self.folder, env={**self.env, **env}, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)
            log.close()


def new_server(folder: Path, database_url: str | None = None) -> tuple[PrefectServer, tuple[str, ...]]:
    """A server that is to be, and the command that starts it, in its environment and its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    own = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
        "PREFECT_API_DATABASE_CONNECTION_URL": database_url or f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    return PrefectServer(url, {**os.environ, **own}, folder), command


@contextmanager
def prefect_server(folder: Path, database_url: str | None = None) -> Iterator[PrefectServer]:
    """A server while the block runs."""
    server, command = new_server(folder, database_url)
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(command, cwd=folder, env=server.env, stdout=log, stderr=log)
    try:
        until(lambda: answers(server.url) or process.poll() is not None, START_S, 0.2)
        assert process.poll() is None, (folder / "server.log").read_text(encoding="utf-8")[-2000:]
        yield server
    finally:
        # What this process tells by events is bound to one server: the next must not be told through this one's closed connection.
        EventsWorker.drain_all(timeout=5, at_exit=False)
        process.terminate()
        process.wait(60)
        log.close()


def answers(url: str) -> bool:
    """Whether a server is up."""
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
