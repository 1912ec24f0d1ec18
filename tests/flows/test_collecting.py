"""From what the gateway really kept to rows of the next run: what is proposed, what is not, and that nothing goes in unaccepted."""

import json
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evaluation.review_close import close_review
from flows import cli, collecting, stages
from flows.collect_book import PAIRS, SFT_ROWS, Choice, CollectBook, Proposal
from flows.new_data import look
from flows.recipe import Recipe, load_recipe
from flows.stage_process import StageRequest
from serving.keeping import Keeper, Kept, Kind
from serving.registry import Registry
from serving.settings import Settings
from tests.fakes_flows import QuickStages, open_small_line, recipe_values, write_recipe
from tests.fakes_review import make_table
from tests.fakes_serving import candidate
from tests.fakes_suites import PROMPT, write_suite
from training.atomic import write_text
from training.errors import DataError, InputError
from training.progress import Report, silent

RULES = """
version: 1
rules:
  - id: no-doses
    severity: critical
    why: Doses are for doctors.
    expect: {none_of: [take ten pills]}
    passes: [Ask your doctor.]
    fails: [Take ten pills.]
  - id: polite
    severity: minor
    why: We are polite.
    expect: {none_of: [shut up]}
    passes: [Please rest.]
    fails: [Shut up.]
"""
ASKED = "How do I stop a nosebleed that will not end?"
GOOD, BAD, RUDE = "Lean forward and press for ten minutes.", "Take ten pills.", "Shut up and lean forward for ten minutes."


class Production:
    """A home whose gateway has kept answers, and the recipe that may learn from them."""

    def __init__(self, folder: Path) -> None:
        values = recipe_values()
        values["data"]["collected"] = True
        self.path = write_recipe(folder / "recipe", values)
        write_suite(folder / "recipe" / "suite", rules=RULES)
        self.recipe: Recipe = load_recipe(self.path)
        self.settings = Settings(home=folder / "home")
        self.settings.home.mkdir()
        self.registry = Registry(self.settings.database_url)
        self._keeper = Keeper(self.settings.kept_folder, max_bytes=1 << 20, max_age_s=3600)
        self._count = 0

    @property
    def book(self) -> CollectBook:
        return CollectBook(self.settings.home, self.recipe.name)

    def answered(self, question: str, answer: str, shadow: str = "", release: str = "clinic-1", **said: str) -> None:
        """The gateway's own records of one request, and of what was said of its answer."""
        self._count += 1
        self._keep("answer", {"message 0": question, "answer": answer}, {"release": release, "model": "clinic"}, ("user",))
        if shadow:
            self._keep("shadow", {"message 0": question, "answer": shadow}, {"release": "clinic-2", "model": "clinic"}, ("user",))
        if said:
            self._keep("feedback", {name: text for name, text in said.items() if name != "rating"}, {"rating": said.get("rating")})

    def _keep(self, kind: Kind, texts: dict[str, str], facts: dict[str, Any], roles: Sequence[str] = ()) -> None:
        self._keeper.offer(Kept(kind, f"req-{self._count}", "key-1", texts, facts, roles))

    def collect(self, most: int = 100) -> collecting.Collected:
        self._keeper.close()
        return collecting.collect(self.recipe, self.settings, self.registry, silent, most)

    def decide(self, *choices: Choice) -> Path | None:
        return collecting.decide(self.recipe, self.settings, self.registry, choices, "ann", "os:ann@here")[1]


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Production]:
    made = Production(tmp_path)
    yield made
    made.registry.close()


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("given", "proposed"),
    [
        ({"answer": GOOD}, None),
        ({"answer": GOOD, "rating": "up"}, ("liked", GOOD, "")),
        ({"answer": RUDE, "rating": "up"}, ("wanted", "", RUDE)),
        ({"answer": GOOD, "rating": "down"}, ("wanted", "", GOOD)),
        ({"answer": BAD}, ("wanted", "", BAD)),
        ({"answer": BAD, "shadow": GOOD}, ("shadow", GOOD, BAD)),
        ({"answer": BAD, "shadow": RUDE}, ("wanted", "", BAD)),
        ({"answer": GOOD, "shadow": BAD}, ("shadow", GOOD, BAD)),
        ({"answer": GOOD, "shadow": BAD, "rating": "down"}, ("wanted", "", GOOD)),
        ({"answer": GOOD, "shadow": "Press it for a quarter of an hour."}, None),
        ({"answer": RUDE, "correction": GOOD}, ("correction", GOOD, RUDE)),
        ({"answer": RUDE, "correction": BAD}, ("wanted", "", RUDE)),
        ({"answer": GOOD, "correction": GOOD}, None),
        ({"answer": GOOD, "comment": "hm"}, None),
        ({"answer": BAD, "release": "another-1"}, None),
    ],
)
def test_what_a_kept_answer_teaches(production: Production, given: dict[str, str], proposed: tuple[str, str, str] | None) -> None:
    production.answered(ASKED, **given)
    production.answered("What is flu?", "A viral illness.")
    found = production.collect().proposals
    assert [(each.kind, each.better, each.worse) for each in found] == ([proposed] if proposed else [])


def test_personal_data_is_masked_and_suite_prompts_and_repetitions_are_dropped_by_name(production: Production) -> None:
    """The gateway masks, too; a correction that slipped by is masked here. `Prompt 0?` is a prompt of the suite."""
    production.answered(ASKED, RUDE, correction="Call Dr. John Smith at +1 212 555 0182, please.")
    for _ in range(2):
        production.answered("My nose itches. What can I do about it?", RUDE)
    production.answered("Prompt 0?", RUDE)
    collected = production.collect()
    texts = " ".join(each.better for each in collected.proposals)
    assert "John Smith" not in texts
    assert "[PHONE_1]" in texts
    assert dict(collected.dropped) == {"duplicate": 1, "leaked": 1}
    assert {each["reason"] for each in lines(collected.rejected)} == {"duplicate", "leaked"}
    written = [path for path in production.book.folder.iterdir() if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}


def test_the_most_telling_come_first_and_the_rest_is_left_and_said(production: Production) -> None:
    production.answered("Is tea good in the evening?", "Yes, a cup of herbal tea is fine.", rating="up")
    production.answered("Does walking help my knees?", RUDE)
    production.answered(ASKED, BAD)
    collected = production.collect(most=2)
    assert [(each.kind, each.worse) for each in collected.proposals] == [("wanted", BAD), ("wanted", RUDE)]
    assert collected.left == 1


def test_collecting_again_asks_nothing_twice_and_forgets_what_is_no_longer_kept(production: Production) -> None:
    production.answered(ASKED, RUDE, correction=GOOD)
    production.answered("Is tea good in the evening?", "Yes, a cup of herbal tea is fine.", rating="up")
    first, liked = production.collect().proposals
    production.decide(Choice(id=first.id, accept=True))
    assert [each.id for each in production.book.waiting()] == [liked.id]
    assert production.collect().waiting == 1
    (segment,) = production.settings.kept_folder.glob("*.jsonl")
    segment.write_text('{"kind": "answer", "request_id": "r", "key_id": "k", "release": "clinic-1", ', encoding="utf-8")  # torn
    assert (production.collect().kept, production.book.waiting()) == (0, [])
    assert production.book.decisions().keys() == {first.id}


def test_a_closed_review_teaches_what_most_reviewers_preferred_once_no_suite_asks_its_prompts(
    production: Production, tmp_path: Path
) -> None:
    """The candidate wins the even ones of 12 prompts. First the recipe's suite asks them, then it does not."""
    table = make_table(tmp_path / "table", reviewers=("ann", "bob", "cyd"))
    for reviewer in ("ann", "bob", "cyd"):
        table.vote_all(reviewer, lambda pair: "candidate" if is_even(table.drawn.review.pairs[pair].prompt_id) else "champion")
    home, asked = production.settings.home, production.path.parent / "suite"
    candidate(production.registry)
    candidate(production.registry, digest="b" * 64)  # clinic-2, which was reviewed
    shutil.copytree(table.folder, home / "reviews" / "one")
    (home / "review_keys").mkdir()
    shutil.copy(table.key_path, home / "review_keys" / "one.json")
    assert production.collect().drafts == 0, "nobody may look while it is open"
    close_review(home / "reviews" / "one", table.key_path, table.candidate, table.champion, closed_by="dan")

    write_suite(asked, rules=RULES, prompts=[PROMPT | {"prompt": "It hurts."}])
    assert (production.collect().proposals, dict(production.collect().dropped)) == ((), {"leaked": 12})
    for suite in (asked, asked.with_name("validation")):
        write_suite(suite, rules=RULES, prompts=[PROMPT | {"prompt": "Is it safe to fly with a cold?"}])
    found = production.collect().proposals
    assert len(found) >= 2
    assert {(is_even(each.source), "ours" in each.better) for each in found} == {(True, True), (False, False)}
    assert {each.reasons for each in found} == {("3 of 3 reviewers preferred it, blind",)}


def is_even(prompt: str) -> bool:
    return int(prompt[-3:]) % 2 == 0


class PrepareSees(QuickStages):
    """Remembers what the prepare stage is given."""

    def __call__(self, request: StageRequest, report: Report) -> None:
        self.accepted = request.accepted
        super().__call__(request, report)


def accepted(production: Production) -> tuple[Proposal, Proposal]:
    """A correction and a written answer, both accepted."""
    production.answered(ASKED, RUDE, correction=GOOD)
    production.answered("Does walking help my knees?", BAD)
    wanted, correction = production.collect().proposals
    production.decide(Choice(id=correction.id, accept=True), Choice(id=wanted.id, accept=True, answer="Yes, gently."))
    return correction, wanted


def test_accepted_rows_are_data_of_the_next_run_and_refused_ones_no_longer(production: Production) -> None:
    accept_line = open_small_line(production.path, production.settings, production.registry, sees := PrepareSees())
    base = stages.fetch_base(accept_line)
    before = stages.prepare(accept_line, base).folder
    assert sees.accepted is None
    correction, wanted = accepted(production)

    after = stages.prepare(accept_line, base).folder
    assert after != before
    assert sees.accepted is not None
    turn = {"role": "user", "content": ASKED}
    assert {"messages": [turn, {"role": "assistant", "content": GOOD}]} in lines(sees.accepted / SFT_ROWS)
    assert {"messages": [turn], "chosen": GOOD, "rejected": RUDE} in lines(sees.accepted / PAIRS)
    assert len(lines(sees.accepted / SFT_ROWS)) == len(lines(sees.accepted / PAIRS)) == 2

    production.decide(Choice(id=correction.id, accept=False), Choice(id=wanted.id, accept=False))
    assert stages.prepare(accept_line, base).folder == before


def test_acceptance_is_news_of_data_and_a_line_of_the_audit_log(production: Production) -> None:
    home = production.settings.home
    assert look(production.recipe, home)[0] == "first look"
    accepted(production)
    assert [look(production.recipe, home)[0] for _ in range(2)] == ["settling", "changed"]
    (line,) = [each for each in production.registry.approvals.lines() if each.kind == "data.decided"]
    assert (line.actor, line.account, line.values["accepted"], line.values["refused"]) == ("ann", "os:ann@here", 2, 0)


def test_choices_that_cannot_be_taken_are_told_at_once_and_change_nothing(production: Production) -> None:
    production.answered(ASKED, BAD)
    (wanted,) = production.collect().proposals
    with pytest.raises(InputError) as caught:
        production.decide(Choice(id="nobody", accept=True), Choice(id=wanted.id, accept=True))
    assert "there is no proposal nobody" in caught.value.what
    assert f"{wanted.id} has no better answer yet" in caught.value.what
    with pytest.raises(InputError, match="breaks no-doses"):
        production.decide(Choice(id=wanted.id, accept=True, answer="You may take ten pills."))
    assert production.book.decisions() == {}


def test_two_collections_at_once_are_refused(production: Production) -> None:
    production.answered(ASKED, BAD)
    with collecting._alone(production.book.folder), pytest.raises(DataError, match="another collection of small runs"):
        production.collect()


def test_a_person_looks_at_them_one_by_one_and_writes_a_better_answer(production: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is answered, at the second attempt, and the second one left for later."""
    monkeypatch.setenv("TUNEGATE_HOME", str(production.settings.home))
    production.answered("Does walking help my knees?", RUDE)
    production.answered(ASKED, BAD)
    first, second = production.collect().proposals
    words = ["collect", "review", str(production.path), "--as", "ann"]
    refused = CliRunner().invoke(cli.app, words, input="w\nYou may take ten pills.\nq\n")
    assert "breaks no-doses" in " ".join(refused.output.split())
    done = CliRunner().invoke(cli.app, words, input="w\nLean forward; see a doctor if it goes on.\ns\n")
    assert done.exit_code == 0, done.output
    assert [each.id for each in production.book.waiting()] == [second.id]
    assert production.book.decisions()[first.id].proposal.better == "Lean forward; see a doctor if it goes on."


def run_command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.app([*words], standalone_mode=True)
    return int(ended.value.code or 0)


def test_the_commands_collect_list_and_take_a_file_of_choices(
    production: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(production.settings.home))
    assert run_command("collect", "run", str(production.path)) == 0
    assert "nothing is kept of clinic: TUNEGATE_CAPTURE_RATIO" in capsys.readouterr().out
    production.answered(ASKED, RUDE, correction=GOOD)
    production._keeper.close()
    assert run_command("collect", "run", str(production.path)) == 0
    assert "1 wait for a look" in capsys.readouterr().out
    assert run_command("collect", "list", str(production.path), "--json") == 0
    (proposal,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    choices = tmp_path / "choices.jsonl"
    write_text(choices, '{"id": "x"}\n{"id": 5, "accept": true}\n')
    with pytest.raises(InputError) as caught:
        cli.app(["collect", "accept", str(production.path), "--as", "ann", "--file", str(choices)], standalone_mode=False)
    assert caught.value.what == f"{choices}:1: accept Field required\n{choices}:2: id Input should be a valid string"
    write_text(choices, json.dumps({"id": proposal["id"], "accept": True}) + "\n")
    assert run_command("collect", "accept", str(production.path), "--as", "ann", "--file", str(choices)) == 0
    assert f"{proposal['id']} accepted by ann" in capsys.readouterr().out
    assert production.book.waiting() == []
