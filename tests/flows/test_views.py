"""The registry for people and for scripts: nothing is left out, and nothing a person wrote is taken for markup."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import views
from serving.keys import Scope
from serving.records import ServerInfo, SlotState
from serving.registry import Registry, utc_now
from tests.fakes_flows import printed, quiet_console
from tests.fakes_serving import EVIDENCE, approved, candidate, champion, slot_info, url_in


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(url_in(tmp_path)) as opened:
        yield opened


def beat(registry: Registry) -> None:
    now = utc_now()
    registry.beat(ServerInfo(boot_id="b", hostname="h", pid=7, host="127.0.0.1", port=8080, started_at=now, beat_at=now))


def slot(registry: Registry, release: str, reason: str = "") -> None:
    state = SlotState.FAILED if reason else SlotState.READY
    registry.set_slot(slot_info(release, state, utc_now(), port=20000, reason=reason))


def test_an_empty_registry_names_the_first_command(registry: Registry) -> None:
    console = quiet_console()
    views.show_status(console, views.status_of(registry))
    assert "tunegate serve" in printed(console)
    assert "tunegate run flows/recipes/demo.yaml" in printed(console)


def test_the_status_names_the_gateway_champions_slots_and_what_waits(registry: Registry) -> None:
    first, second = champion(registry), approved(registry, digest="b" * 64)
    beat(registry)
    slot(registry, first.id)
    slot(registry, second.id, "no [memory] left")
    state = json.loads(json.dumps(views.status_of(registry)))
    assert (state["champions"], state["waiting"], state["generation"]) == ({"clinic": "clinic-1"}, ["clinic-2"], 1)
    assert [each["base_url"] for each in state["slots"]] == ["http://127.0.0.1:20000"] * 2
    console = quiet_console()
    views.show_status(console, state)
    shown = printed(console)
    assert "gateway     http://127.0.0.1:8080 (process 7" in shown
    assert "champion    clinic: clinic-1" in shown
    assert "slot        clinic-2: failed http://127.0.0.1:20000 no [memory] left" in shown
    assert "tunegate approve clinic-2 --as NAME" in shown


def test_slots_of_a_server_that_is_gone_are_not_shown(registry: Registry) -> None:
    slot(registry, champion(registry).id)
    assert views.status_of(registry)["slots"] == []


def test_every_release_is_one_row(registry: Registry) -> None:
    champion(registry)
    approved(registry, digest="b" * 64)
    console = quiet_console()
    views.show_releases(console, registry.releases())
    lines = printed(console).splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [["clinic-1", "live", "demo", "a" * 12], ["clinic-2", "approved", "demo", "b" * 12]]
    assert EVIDENCE[:12] in lines[2]


def test_a_release_is_shown_with_every_step_and_the_words_people_wrote(registry: Registry) -> None:
    release = candidate(registry)
    registry.reject(release.id, "[bold]eve[/]", "bad [/red] answers \x1b[2J")
    console = quiet_console()
    views.show_release(console, registry.release(release.id), registry.history(release.id))
    shown = printed(console)
    assert all(each in shown for each in ("candidate → rejected", "[bold]eve[/]", "bad [/red] answers \ufffd[2J", "a" * 64))


def test_keys_are_listed_without_their_secrets(registry: Registry) -> None:
    info, secret = registry.create_key("web [app]", [Scope.INFER])
    registry.revoke_key(registry.create_key("old", [Scope.APPROVE])[0].id)
    console = quiet_console()
    views.show_keys(console, registry.keys())
    shown = printed(console)
    assert info.id in shown
    assert "web [app]" in shown
    assert secret.get_secret_value() not in shown
    assert shown.splitlines()[1].rstrip().endswith("–")
