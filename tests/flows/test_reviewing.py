"""From a verdict that waits for people to the one after them: over a real server, with the real command and a real kill."""

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from evaluation.errors import ReviewError
from evaluation.parity_records import ParityReport
from evaluation.records import Outcome
from evaluation.review_records import Key
from evaluation.review_votes import VoteBook
from flows import cli, stages
from flows.cases import read_case
from flows.comparing import Together
from flows.errors import NOT_PASSED, NothingJudged
from flows.judging import PARITY_FOLDER, Judged, evaluate, evidence_digest, gate, keep_champion_serving, register
from flows.reviewing import close_review_of, create_review, decide_again, progress_of, under_review
from flows.stages import Line
from serving.lifecycle import State
from serving.slots import free_port
from tests.fakes_flows import ROOT, SAFE, Site, dataset, merged_model, open_small_line, printed, recipe_values, until, write_recipe
from tests.fakes_review import make_vote


def reviewed_line(site: Site, folder: Path, name: str, *, prompts: int = 2) -> Line:
    """A line whose gate wants people to prefer the candidate on at least three of four prompts."""
    values = recipe_values(name)
    values["gate"]["human_review"] = {"min_win_rate": 0.75, "min_prompts": prompts}
    return open_small_line(write_recipe(folder, values), site.settings, site.registry)


def judged(line: Line) -> Judged:
    base = stages.fetch_base(line)
    champion = keep_champion_serving(line, base)
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    return gate(line, release, (evaluate(line, release, merged), evaluate(line, champion), Together()), merged, dataset(line))


def vote_all(site: Site, release_id: str, reviewer: str, *, for_candidate: bool) -> None:
    under = under_review(site.settings.home, release_id)
    key = Key.model_validate_json(under.key_path.read_text(encoding="utf-8"))
    for pair, first in enumerate(key.candidate_first):
        VoteBook(under.folder).add(make_vote(reviewer, pair, "first" if first == for_candidate else "second"))


def test_a_verdict_that_lacks_only_the_review_leaves_the_release_waiting_without_a_slot(site: Site, tmp_path: Path) -> None:
    line = reviewed_line(site, tmp_path, "lacks")
    outcome = judged(line)
    assert (outcome.verdict.outcome, outcome.release.state) == (Outcome.INCONCLUSIVE, State.CANDIDATE)
    assert "lacks-2 waits for human review: tunegate review create lacks-2" in printed(line.display.console)
    assert outcome.release.id not in site.registry.snapshot().leases
    again = judged(line)
    assert (again.release.id, again.release.state) == ("lacks-2", State.CANDIDATE)


@pytest.mark.parametrize(
    ("wins", "outcome", "state"), [(True, Outcome.PASS, State.AWAITING_APPROVAL), (False, Outcome.FAIL, State.REJECTED)]
)
def test_closing_the_review_decides(site: Site, tmp_path: Path, wins: bool, outcome: Outcome, state: State) -> None:
    name = "won" if wins else "lost"
    waiting = judged(reviewed_line(site, tmp_path, name)).release
    create_review(site.settings.home, waiting.id, ["ann"], 10)
    vote_all(site, waiting.id, "ann", for_candidate=wins)
    close_review_of(site.settings.home, waiting.id, "bob", [], None)
    again = decide_again(site.settings, site.registry, site.board.display, waiting.id, "bob")
    assert again is not None
    assert (again.verdict.outcome, again.release.state, again.release.id) == (outcome, state, waiting.id)
    if wins:
        assert again.release.evidence_digest == evidence_digest(
            again.release.model_digest, again.verdict, ParityReport.read(again.verdict_folder / PARITY_FOLDER)
        )
        assert "Blind, 1 reviewer preferred the candidate on 2 prompts" in (again.verdict_folder / "report.md").read_text(encoding="utf-8")
        assert judged(reviewed_line(site, tmp_path, name)).verdict.digest == again.verdict.digest
    else:
        assert decide_again(site.settings, site.registry, site.board.display, waiting.id, "bob") is None


def test_the_key_lies_apart_readable_by_its_owner_alone_and_a_second_draw_is_refused(site: Site, tmp_path: Path) -> None:
    release = judged(reviewed_line(site, tmp_path, "sealed")).release
    create_review(site.settings.home, release.id, ["ann"], 10)
    under = under_review(site.settings.home, release.id)
    assert stat.S_IMODE(under.key_path.stat().st_mode) == 0o400
    assert stat.S_IMODE(under.key_path.parent.stat().st_mode) == 0o700
    assert under.folder not in under.key_path.parents
    assert progress_of(under) == {"ann": 0}
    with pytest.raises(ReviewError, match="has a review already"):  # nor can another be drawn
        create_review(site.settings.home, release.id, ["ann"], 10)


def test_a_review_too_small_for_the_policy_is_refused_before_anybody_votes(site: Site, tmp_path: Path) -> None:
    release = judged(reviewed_line(site, tmp_path, "small", prompts=50)).release
    with pytest.raises(ReviewError, match=r"asks for 50 prompts, 2 were drawn of 2 \(0 have the same answer twice\)"):
        create_review(site.settings.home, release.id, ["ann"], 100)


def test_a_release_that_was_never_judged_cannot_be_reviewed(site: Site) -> None:
    with pytest.raises(NothingJudged, match="nobody-7 was never judged"):
        read_case(site.settings.home, "nobody-7")


def tunegate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["tunegate", *arguments])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    signal.signal(signal.SIGTERM, handler)
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def ask(url: str, token: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data=data, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return dict(json.loads(reply.read()))


def serve(site: Site, release_id: str, port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "flows.cli", "review", "serve", release_id, "--port", str(port)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **site.environment}, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_the_commands_from_create_to_close_with_a_kill_between_two_votes(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    release, port = judged(reviewed_line(site, tmp_path, "shown")).release.id, free_port()
    status, out = tunegate(capsys, monkeypatch, "review", "create", release, "--reviewer", "ann", "--port", str(port))
    assert status == 0, out
    link = next(line.split("\t")[1] for line in out.splitlines() if line.startswith("ann\t"))
    base, token = link.split("/#")
    for place in (1, 2):
        server = serve(site, release, port)
        try:
            until(lambda: _answers(f"{base}/review.js"))
            assert ask(f"{base}/api/pairs/{place}", token)["done"] == place - 1
            assert ask(f"{base}/api/pairs/{place}", token, {"choice": "tie", "comment": "=evil"})["done"] == place
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait(20)
    assert tunegate(capsys, monkeypatch, "review", "status", release)[1].count("2 of 2") == 1
    table = tmp_path / "votes.csv"
    assert tunegate(capsys, monkeypatch, "review", "export", release, "--csv", str(table))[0] == 0
    assert table.read_text(encoding="utf-8").count(",tie,'=evil,") == 2
    status, out = tunegate(capsys, monkeypatch, "review", "close", release, "--as", "bob")
    assert (status, "verdict on shown-2: FAIL, now rejected" in out) == (NOT_PASSED, True)
    result = json.loads(tunegate(capsys, monkeypatch, "review", "status", release, "--json")[1])["result"]
    assert (result["wins"], result["losses"], result["ties"], result["closed_by"]) == (0, 0, 2, "bob")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
