"""From an approval to traffic: what was signed is what is switched to, nobody notices, and the way back is instant."""

import asyncio
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.parity_records import ParityReport
from evaluation.records import Verdict
from flows import stages
from flows.approval import approve_release
from flows.asking import ask_once
from flows.comparing import Together
from flows.display import Display
from flows.errors import NoRoom, ServingFailed
from flows.judging import PARITY_FOLDER, Judged, evaluate, gate, keep_champion_serving, register
from flows.load import light_load
from flows.promotion import Switchboard, check_evidence, exchange, switch, wait_until_routed
from flows.retrying import may_heal
from flows.serving_control import wait_for_slot
from serving.errors import EvidenceMismatch, RunUnderWay, TransitionRefused
from serving.lifecycle import State
from serving.records import Release, SlotInfo, SlotState
from serving.registry import Registry
from serving.rollout_section import RolloutSection
from serving.run_leases import promotion_of
from serving.settings import Settings
from serving.slots import free_port
from tests.fakes_flows import (
    SAFE,
    UNSAFE,
    Site,
    dataset,
    merged_model,
    open_small_line,
    printed,
    quiet_console,
    recipe_values,
    write_recipe,
)
from tests.fakes_serving import EVIDENCE, STEPS, champion, slot_info, url_in
from tests.fakes_serving import approved as signed_off
from training.errors import RecordError
from training.progress import silent


def passed(site: Site, folder: Path, public_name: str, says: str = SAFE) -> Judged:
    """A release that awaits its approval, with a champion in production."""
    line = site.line(folder, public_name)
    champion = keep_champion_serving(line, stages.fetch_base(line))
    merged = merged_model(line, says)
    release = register(line, merged)
    return gate(line, release, (evaluate(line, release, merged), evaluate(line, champion), Together()), merged, dataset(line))


def approved(site: Site, folder: Path, public_name: str, says: str = SAFE) -> Release:
    release = passed(site, folder, public_name, says).release
    return approve_release(site.registry, release.id, "bob", "looks right", None)


def answering(site: Site, public_name: str) -> tuple[str, str]:
    answer = ask_once(site.settings, public_name, "Does it hurt?", "Be careful.")
    return answer.release_id, answer.text


def test_a_switch_under_load_fails_no_request(site: Site, tmp_path: Path) -> None:
    release = approved(site, tmp_path, "moves")
    with light_load(site.url, site.key, "moves", every_s=0.02) as load:
        time.sleep(0.3)
        live = switch(site.board, release, "ann")
        asyncio.run(wait_until_routed(site.url, site.key, live))
        time.sleep(0.3)
    assert load.failures == []
    assert load.failed == 0
    assert set(load.answered) == {"moves-1", "moves-2"}
    assert load.answered.total() == load.sent > 20


def test_on_a_machine_for_one_engine_a_model_is_judged_and_promoted_in_the_champions_place_and_no_request_is_lost(
    site: Site, tmp_path: Path
) -> None:
    values = recipe_values("one-engine")
    values["serving"]["change"] = "recreate"
    line = open_small_line(write_recipe(tmp_path, values), site.settings, site.registry, None)
    champion = keep_champion_serving(line, stages.fetch_base(line))
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    cards = (evaluate(line, release, merged), evaluate(line, champion), Together())
    approve_release(site.registry, gate(line, release, cards, merged, dataset(line)).release.id, "bob", "looks right", None)
    with light_load(site.url, site.key, "one-engine", every_s=0.05) as load:
        time.sleep(0.3)
        live = switch(site.board, site.registry.release(release.id), "ann")
        asyncio.run(wait_until_routed(site.url, site.key, live))
    assert load.failures == []
    assert set(load.answered) == {"one-engine-1", "one-engine-2"}
    assert answering(site, "one-engine") == ("one-engine-2", SAFE)


class FullHost(Registry):
    """A registry whose server says: no room beside the champion; and a newcomer in its place does not come up."""

    def slots(self) -> tuple[SlotInfo, ...]:
        champion = self.champion("clinic")
        assert champion is not None
        if champion.id == "clinic-1":
            waiting = slot_info("clinic-2", SlotState.WAITING, self.now(), port=None, reason="no memory for it beside clinic-1")
            return slot_info("clinic-1", SlotState.READY, self.now()), waiting
        return (slot_info("clinic-2", SlotState.FAILED, self.now(), reason="out of memory"),)


@pytest.mark.parametrize(("steps", "fault"), [(RolloutSection(), "out of memory"), (STEPS, "steps need two engines at once")])
def test_what_cannot_take_the_champions_place_leaves_the_champion_in_production(tmp_path: Path, steps: RolloutSection, fault: str) -> None:
    settings = Settings(home=tmp_path / "home", start_timeout_s=20)
    with FullHost(url_in(tmp_path)) as registry:
        before = champion(registry)
        release = signed_off(registry, digest="b" * 64, rollout=steps)
        settings.slot_folder(before.id).mkdir(parents=True)
        (settings.slot_folder(before.id) / "key").write_text("k", encoding="utf-8")
        board = Switchboard(settings, registry, Display(quiet_console()))
        with pytest.raises(NoRoom) as no_room:
            wait_for_slot(registry, settings, release, silent)
        with pytest.raises(ServingFailed, match=fault):
            exchange(board, release, EVIDENCE, "ann", no_room.value)
        assert registry.champion("clinic") == before
        assert registry.release(release.id).state is (State.APPROVED if steps.steps else State.ROLLED_BACK)


class Ended(Registry):
    """A registry whose server says that an engine has failed, after so many lives."""

    lives = 0

    def slots(self) -> tuple[SlotInfo, ...]:
        return (slot_info("clinic-1", SlotState.FAILED, self.now()).model_copy(update={"restarts": self.lives}),)


@pytest.mark.parametrize(("lives", "again"), [(0, False), (1, True)])
def test_an_engine_that_ended_may_come_up_again_and_one_that_was_refused_will_not(tmp_path: Path, lives: int, again: bool) -> None:
    with Ended(url_in(tmp_path)) as registry:
        registry.lives = lives
        with pytest.raises(ServingFailed) as failed:
            wait_for_slot(registry, Settings(home=tmp_path), champion(registry), silent)
    assert may_heal(failed.value) is again


def test_a_rollback_puts_the_former_champion_back_at_once(site: Site, tmp_path: Path) -> None:
    live = switch(site.board, approved(site, tmp_path, "returns"), "ann")
    asyncio.run(wait_until_routed(site.url, site.key, live))
    back = site.registry.rollback("returns", "ann", "worse")
    assert back.id == "returns-1"
    assert asyncio.run(wait_until_routed(site.url, site.key, back)) < 3
    assert answering(site, "returns") == ("returns-1", UNSAFE)


def test_a_rollback_under_load_fails_no_request(site: Site, tmp_path: Path) -> None:
    live = switch(site.board, approved(site, tmp_path, "retreats"), "ann")
    asyncio.run(wait_until_routed(site.url, site.key, live))
    with light_load(site.url, site.key, "retreats", every_s=0.01) as load:
        time.sleep(0.3)
        back = site.registry.rollback("retreats", "ann", "worse")
        asyncio.run(wait_until_routed(site.url, site.key, back))
        time.sleep(0.3)
    assert load.failures == []


def test_after_the_switch_the_new_model_answers_and_the_slot_needs_no_lease(site: Site, tmp_path: Path) -> None:
    live = switch(site.board, approved(site, tmp_path, "lives"), "ann")
    asyncio.run(wait_until_routed(site.url, site.key, live))
    assert answering(site, "lives") == ("lives-2", SAFE)
    assert live.id not in site.registry.snapshot().leases


def test_who_waits_for_another_promotion_gives_up_in_time_and_says_for_whom_and_since_when(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", turn_timeout_s=1)
    with Registry(url_in(tmp_path)) as registry:
        champion(registry)
        release = signed_off(registry, digest="b" * 64)
        registry.runs.begin(promotion_of(release.id), "bob")
        board = Switchboard(settings, registry, Display(quiet_console()))
        began = time.monotonic()
        with pytest.raises(RunUnderWay) as gave_up:
            switch(board, release, "ann")
        since = rf"process {os.getpid()} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d UTC; its end was waited for, 1 s long"
        assert re.search(f"a promotion of clinic-2 is under way: {since}", gave_up.value.what)
        assert "TUNEGATE_TURN_TIMEOUT_S" in (gave_up.value.do or "")
        assert time.monotonic() - began >= 1
        assert "its end is waited for" in printed(board.display.console)
        assert registry.release(release.id).state is State.APPROVED


@pytest.fixture(scope="module")
def signed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return approved(site, tmp_path_factory.mktemp("signed"), "signed")


def copied(release: Release, folder: Path) -> Release:
    """The same release over a copy of its model and its evidence, which a test may spoil."""
    assert release.report_path is not None
    model, verdict = folder / "model", folder / "verdict"
    shutil.copytree(release.model_dir, model)
    shutil.copytree(release.report_path.parent, verdict)
    return release.model_copy(update={"model_dir": model, "report_path": verdict / release.report_path.name})


def alter_verdict(model: Path, verdict: Path) -> None:
    record = verdict / "record.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"measured": 0.0', '"measured": 0.5', 1), encoding="utf-8")


def lose_verdict(model: Path, verdict: Path) -> None:
    (verdict / "record.json").unlink()


def swap_verdict(model: Path, verdict: Path) -> None:
    """A whole, valid verdict, but another one."""
    Verdict.read(verdict).model_copy(update={"notes": ("looks good",)}).write(verdict)


def lose_parity(model: Path, verdict: Path) -> None:
    shutil.rmtree(verdict / PARITY_FOLDER)


def swap_parity(model: Path, verdict: Path) -> None:
    """A whole, valid report that compared more."""
    report = ParityReport.read(verdict / PARITY_FOLDER)
    report.model_copy(update={"compared": report.compared + 1}).write(verdict / PARITY_FOLDER)


def flip_byte(model: Path, verdict: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])


def add_file(model: Path, verdict: Path) -> None:
    (model / "extra.py").write_text("", encoding="utf-8")


def lose_model(model: Path, verdict: Path) -> None:
    (model / "model.safetensors").unlink()


def test_evidence_as_it_was_signed_is_what_is_promoted(signed: Release, tmp_path: Path) -> None:
    assert check_evidence(copied(signed, tmp_path)) == signed.evidence_digest


@pytest.mark.parametrize(
    ("spoil", "refusal"),
    [
        (alter_verdict, RecordError),
        (lose_verdict, RecordError),
        (swap_verdict, EvidenceMismatch),
        (lose_parity, RecordError),
        (swap_parity, EvidenceMismatch),
        (flip_byte, RecordError),
        (add_file, RecordError),
        (lose_model, RecordError),
    ],
)
def test_evidence_that_changed_after_the_approval_is_refused(
    signed: Release, tmp_path: Path, spoil: Callable[[Path, Path], None], refusal: type[Exception]
) -> None:
    release = copied(signed, tmp_path)
    spoil(tmp_path / "model", tmp_path / "verdict")
    with pytest.raises(refusal):
        check_evidence(release)


@pytest.mark.parametrize(("spoil", "refusal"), [(flip_byte, RecordError), (swap_verdict, EvidenceMismatch)])
def test_a_refused_switch_changes_nothing_and_the_champion_still_serves(
    site: Site, tmp_path: Path, spoil: Callable[[Path, Path], None], refusal: type[Exception]
) -> None:
    name = spoil.__name__.replace("_", "-")
    release = approved(site, tmp_path, name)
    assert release.report_path is not None
    spoil(release.model_dir, release.report_path.parent)
    with pytest.raises(refusal):
        switch(site.board, release, "ann")
    assert site.registry.release(release.id).state is State.APPROVED
    assert answering(site, name) == (f"{name}-1", UNSAFE)


def test_a_release_without_evidence_is_refused(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "bare")
    with pytest.raises(EvidenceMismatch, match="never submitted"):
        check_evidence(register(line, merged_model(line, SAFE)))


def test_a_release_that_nobody_approved_is_refused(site: Site, tmp_path: Path) -> None:
    waiting = passed(site, tmp_path, "waits").release
    with pytest.raises(TransitionRefused, match="not approved"):
        switch(site.board, waiting, "ann")
    assert answering(site, "waits") == ("waits-1", UNSAFE)


def test_an_approval_is_bound_to_the_digest_that_was_shown(site: Site, tmp_path: Path) -> None:
    waiting = passed(site, tmp_path, "bound").release
    assert waiting.evidence_digest is not None
    for wrong in ("", "f" * 12, waiting.evidence_digest + "0"):
        with pytest.raises(EvidenceMismatch, match="was submitted with evidence"):
            approve_release(site.registry, waiting.id, "bob", "", wrong)
    assert site.registry.release(waiting.id).state is State.AWAITING_APPROVAL
    assert approve_release(site.registry, waiting.id, "bob", "", waiting.evidence_digest[:12]).state is State.APPROVED
    again = approve_release(site.registry, waiting.id, "eve", "", waiting.evidence_digest[:12])
    assert [step.actor for step in site.registry.history(again.id) if step.to_state is State.APPROVED] == ["bob"]
    with pytest.raises(EvidenceMismatch):
        approve_release(site.registry, waiting.id, "bob", "", "f" * 12)


def test_waiting_for_a_release_that_is_not_routed_ends_with_a_refusal_and_not_a_traceback(site: Site, tmp_path: Path) -> None:
    waiting = passed(site, tmp_path, "never").release
    with pytest.raises(ServingFailed, match="does not answer with never-2"):
        asyncio.run(wait_until_routed(site.url, site.key, waiting, within_s=0.3))
    with pytest.raises(ServingFailed, match="does not answer with never-2"):
        asyncio.run(wait_until_routed(f"http://127.0.0.1:{free_port()}", site.key, waiting, within_s=0.3))
