"""The chain of the history: what was changed behind the registry's back shows, and says where."""

from collections.abc import Callable, Iterator

import pytest

from serving.history import START, Line, Linked, audit, sha256_of
from serving.registry import Registry
from tests.fakes_serving import EVIDENCE, Clock, approved, champion

Beside = Callable[[str], None]


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    with Registry(registry_url, now=Clock()) as opened:
        champion(opened)
        opened.promote(approved(opened, digest="b" * 64).id, EVIDENCE, "bob")
        yield opened


def past_the_triggers(registry: Registry, beside: Beside, statement: str) -> tuple[str, ...]:
    """What somebody with all rights to the database could do, and what `verify` says to it."""
    if registry._database.engine.dialect.name == "sqlite":
        for verb in ("update", "delete"):
            beside(f"DROP TRIGGER transitions_no_{verb}")
        beside(statement)
    else:
        beside("ALTER TABLE transitions DISABLE TRIGGER USER")
        beside(statement)
        beside("ALTER TABLE transitions ENABLE TRIGGER USER")
    return registry.verify().faults


def test_an_untouched_history_has_no_faults_and_as_many_steps_as_were_taken(registry: Registry) -> None:
    """clinic-1: candidate, live, retired; clinic-2: candidate, awaiting, approved, live."""
    found = registry.verify()
    assert (found.steps, found.faults) == (7, ())
    assert found.head == registry.history("clinic-2")[-1].sha256


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE transitions SET actor = 'eve' WHERE seq = 5", "step 5 (clinic-2 → approved) was changed after it was written"),
        ("UPDATE transitions SET reason = 'fine' WHERE seq = 2", "step 2 (clinic-1 → live) was changed"),
        ("UPDATE transitions SET at = '2031-01-01 00:00:00.000000' WHERE seq = 3", "step 3 (clinic-2 → candidate) was changed"),
        ("DELETE FROM transitions WHERE seq = 5", "step 6 (clinic-1 → retired) should have number 5: a step is missing"),
        ("DELETE FROM transitions WHERE seq = 7", "clinic-2 is live, but its last step leads to approved"),
        ("UPDATE releases SET state = 'rejected' WHERE id = 'clinic-1'", "clinic-1 is rejected, but its last step leads to retired"),
    ],
)
def test_a_changed_past_is_found_and_named(registry: Registry, beside: Beside, statement: str, fault: str) -> None:
    assert any(found.startswith(fault) for found in past_the_triggers(registry, beside, statement))


def test_a_history_written_anew_is_found_by_a_hash_that_was_noted_elsewhere(registry: Registry) -> None:
    faults = registry.verify(["f" * 64]).faults
    assert faults == ("the noted hash ffffffffffff is not in the history: steps were removed or rewritten",)


def test_a_step_that_does_not_exist_is_found_even_when_its_hash_is_right(registry: Registry) -> None:
    at = Clock()().replace(tzinfo=None)
    first = Line(1, "clinic-1", None, "candidate", "ann", "added", None, at, START)
    leap = Line(2, "clinic-1", "candidate", "retired", "eve", "", None, at, sha256_of(first))
    found = audit([Linked(first, sha256_of(first)), Linked(leap, sha256_of(leap))], {"clinic-1": "retired"})
    assert found.faults == ("step 2 (clinic-1 → retired) is no step that exists: from candidate, while the release was candidate",)
