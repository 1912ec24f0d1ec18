"""Which failures a scheduled run tries again after a pause: a closed list, and nothing that would only fail again."""

import sqlite3
from collections.abc import Callable, Iterator
from importlib import import_module

import httpx2
import psycopg
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from prefect import flow
from prefect.runtime import deployment
from sqlalchemy.engine import make_url

from evaluation.errors import EndpointError
from flows.retrying import PAUSES_S, may_heal, patient
from flows.stage_process import kind_of
from flows.stage_runner import ERRORS
from serving.artefact_store import ArtefactStore
from serving.errors import RegistryUnreachable, StoreError
from serving.postgres_server import PostgresServer
from serving.sqlite_file import SqliteFile
from tests.fakes_prefect import PrefectServer
from training.base_model import kind_of_hub_error
from training.errors import InputError, TunegateError

FOLDERS = ("training", "evaluation", "serving", "flows")


def every_kind(of: type[TunegateError]) -> Iterator[type[TunegateError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from every_kind(kind)


def test_only_seven_of_all_errors_are_tried_again() -> None:
    for folder in FOLDERS:
        import_module(f"{folder}.errors")
    kinds = {kind.__name__: may_heal(kind("x")) for kind in every_kind(TunegateError) if kind.__init__ is TunegateError.__init__}
    assert len(kinds) > 40
    assert {name for name, heals in kinds.items() if heals} == {
        "RegistryUnreachable", "StoreUnreachable", "HubUnreachable", "PrefectUnreachable", "OutOfReach", "StageKilled",
        "SlotEnded",
    }  # fmt: skip


SQLITE = SqliteFile("registry.db")
POSTGRES = PostgresServer(make_url("postgresql://me@127.0.0.1/registry"))


def hub(status: int) -> Exception:
    return HfHubHTTPError("no", response=httpx2.Response(status, request=httpx2.Request("GET", "https://hub.example")))


def ordered(error: TunegateError) -> TunegateError:
    """What a stage's error is to the process that ordered the stage."""
    return ERRORS[kind_of(error)](error.what)


@pytest.mark.parametrize(
    ("met", "heals"),
    [
        (lambda: SQLITE.explain(sqlite3.OperationalError("database is locked")), True),
        (lambda: SQLITE.explain(sqlite3.DatabaseError("database disk image is malformed")), False),
        (lambda: SQLITE.explain(sqlite3.OperationalError("database or disk is full")), False),
        (lambda: POSTGRES.explain(psycopg.OperationalError("connection refused")), True),
        (lambda: POSTGRES.explain(psycopg.OperationalError("canceling statement due to lock timeout")), True),
        (lambda: POSTGRES.explain(psycopg.OperationalError("connection failed: password authentication failed")), False),
        (lambda: kind_of_hub_error(hub(503))("x"), True),
        (lambda: kind_of_hub_error(hub(429))("x"), True),
        (lambda: kind_of_hub_error(hub(401))("x"), False),
        (lambda: kind_of_hub_error(LocalEntryNotFoundError("offline"))("x"), True),
        (lambda: kind_of_hub_error(OSError(28, "No space left on device"))("x"), False),
        (lambda: ordered(kind_of_hub_error(hub(503))("x")), True),
        (lambda: ordered(InputError("a recipe")), False),
        (lambda: ordered(TunegateError("a loss that is NaN")), False),
        (lambda: EndpointError("the server under judgement was killed", fault="connect"), True),
        (lambda: EndpointError("it answers what is no answer", fault="protocol"), False),
        (lambda: KeyError("a bug of ours"), False),
    ],
)
def test_what_may_heal(met: Callable[[], Exception], heals: bool) -> None:
    assert may_heal(met()) is heals


def asked(address: str) -> bool:
    return ArtefactStore(address, 1, pause_s=0).holds("a" * 64)


def refuses(store: MemoryFileSystem, path: str) -> bool:
    raise ConnectionRefusedError(path)


@pytest.mark.parametrize(("address", "heals"), [("memory://models", True), ("nosuch://models", False)])
def test_a_store_that_does_not_answer_may_heal_and_one_that_cannot_be_understood_does_not(
    monkeypatch: pytest.MonkeyPatch, address: str, heals: bool
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "exists", refuses)
    with pytest.raises(StoreError) as met:
        asked(address)
    assert may_heal(met.value) is heals


class Flaky:
    """Fails with the given error so many times, then is well."""

    def __init__(self, error: TunegateError, times: int) -> None:
        self.error, self.times, self.tried = error, times, 0

    def __call__(self) -> int:
        self.tried += 1
        if self.tried <= self.times:
            raise self.error
        return self.tried


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "scheduled", "tried"),
    [(RegistryUnreachable("busy"), True, 3), (RegistryUnreachable("busy"), False, 1), (InputError("a bad recipe"), True, 1)],
)
def test_a_scheduled_run_tries_again_what_heals_and_a_person_is_told_at_once(
    prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch, error: TunegateError, scheduled: bool, tried: int
) -> None:
    flaky = Flaky(error, 2)

    def work() -> int:
        return flaky()

    quick = patient(work).with_options(retry_delay_seconds=[0.0] * len(PAUSES_S))
    monkeypatch.setattr(deployment, "id", "of a schedule" if scheduled else None, raising=False)

    @flow(name="tries")
    def tries() -> int:
        return quick()

    with prefect.ours():
        state = tries(return_state=True)
    assert (flaky.tried, state.is_completed()) == (tried, tried == 3)
