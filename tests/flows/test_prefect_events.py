"""What a Prefect server is told: an event of its own schema, under an id that stays the same; and what becomes of one that is lost."""

from collections.abc import Iterator
from pathlib import Path

import prefect
import pytest
from prefect.events.schemas.events import Event
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.prefect_events import PrefectOutlet, prefect_outlets
from serving.registry import Registry
from serving.slots import free_port
from tests.fakes_serving import EVIDENCE, approved, url_in
from tests.fakes_sinks import http_sink


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(url_in(tmp_path)) as made:
        yield made


def test_an_approval_is_an_event_that_can_start_a_promotion(registry: Registry) -> None:
    approved(registry, digest="b" * 64)
    with http_sink() as sink, temporary_settings({PREFECT_API_URL: sink.url.removesuffix("/hook") + "/api"}):
        sink.page = f'"{prefect.__version__}"'  # the client asks a server for its version first
        assert registry.notifier(3).bring_up_to_date(PrefectOutlet()) == 2
    event = Event.model_validate(sink.bodies[-1][0])
    assert sink.paths == ["/api/events", "/api/events"]
    assert (event.event, event.resource.id) == ("tunegate.release.approved", "tunegate.release.clinic-1")
    assert (event.payload["release"], event.payload["evidence_digest"]) == ("clinic-1", EVIDENCE)


def test_a_server_that_is_gone_is_told_later(registry: Registry) -> None:
    approved(registry, digest="b" * 64)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        assert registry.notifier(3).bring_up_to_date(PrefectOutlet()) == 0


def test_without_a_server_nobody_is_told() -> None:
    assert prefect_outlets(None) == prefect_outlets("") == ()
