"""What ends an evaluation loses nothing that was answered."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.client import ChatAnswer, Endpoint
from evaluation.config import EvaluationSection
from evaluation.journal import ANSWERS_NAME, STALE_NAME, open_journal
from evaluation.records import TaskScore
from evaluation.scoring import score_endpoint
from evaluation.suite import load_suite
from tests.fakes_evaluation import FakeModel, serve
from tests.fakes_suites import many_prompts, write_suite
from tests.repository.checkout import ROOT
from training.progress import silent

EVALUATE = """
import sys
from pathlib import Path
from evaluation.client import Endpoint
from evaluation.config import EvaluationSection
from evaluation.scoring import score_endpoint
from evaluation.suite import load_suite
from training.progress import silent

folder = Path(sys.argv[1])
section = EvaluationSection(suite=folder / "suite", concurrency=4, perplexity=False, forgetting=None)
endpoint = Endpoint(base_url=sys.argv[2], api_key=sys.argv[3], model=sys.argv[4])
score_endpoint(endpoint, load_suite(section.suite), section, model_digest="m", subject="c", out=folder / "card", report=silent)
"""
ANSWER = ChatAnswer("Rest 休息 😀\n", "stop", 1.5, None, 3)
TASK = TaskScore(task="t", metric="acc", terms="x", accuracy=0.5, correct=(True, False))


def fill(path: Path, count: int = 3, terms: str = "one") -> None:
    async def work() -> None:
        with open_journal(path, terms, batch=2) as journal:
            for number in range(count):
                await journal.add_answer((f"p{number}", 0), ANSWER)
            await journal.add_logprob("p0", (-3.5, 7))
            journal.add_task(TASK)

    asyncio.run(work())


def test_what_was_kept_reads_back(tmp_path: Path) -> None:
    fill(tmp_path / "log")
    with open_journal(tmp_path / "log", "one", batch=1) as journal:
        assert journal.answers == {(f"p{number}", 0): ANSWER for number in range(3)}
        assert (journal.logprobs, journal.tasks) == ({"p0": (-3.5, 7)}, {"t": TASK})


@pytest.mark.parametrize("cut", range(1, 260, 13))
def test_a_line_torn_anywhere_costs_that_line_alone(cut: int, tmp_path: Path) -> None:
    fill(tmp_path / "log")
    raw = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(raw[:-cut])
    with open_journal(tmp_path / "log", "one", batch=1) as journal:
        left = raw[:-cut].count(b"\n") - 1  # the first line is no entry
        kept = len(journal.answers) + len(journal.logprobs) + len(journal.tasks)
        assert left <= kept <= left + 1  # where only the line's end was torn off, it is whole


def test_an_altered_line_is_asked_again_and_the_others_are_kept(tmp_path: Path) -> None:
    fill(tmp_path / "log")
    text = (tmp_path / "log").read_text(encoding="utf-8")
    (tmp_path / "log").write_text(text.replace("Rest", "Walk", 1), encoding="utf-8")
    with open_journal(tmp_path / "log", "one", batch=1) as journal:
        assert sorted(journal.answers) == [("p1", 0), ("p2", 0)]


def test_a_journal_of_other_terms_is_put_aside(tmp_path: Path) -> None:
    fill(tmp_path / "log")
    with open_journal(tmp_path / "log", "two", batch=1) as journal:
        assert journal.answers == {}
    assert (tmp_path / STALE_NAME).is_file()


def test_a_file_that_is_no_journal_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\x00\xff garbage\n" * 5)
    with open_journal(tmp_path / "log", "one", batch=1) as journal:
        assert journal.answers == {}
    assert (tmp_path / STALE_NAME).is_file()


def entries(path: Path) -> int:
    return sum("answer" in json.loads(line)["entry"] for line in path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def kill_after(answers: int, endpoint: Endpoint, folder: Path) -> int:
    """Evaluate in another process, kill it without warning once so many answers are kept, and return how many are."""
    argv = [sys.executable, "-c", EVALUATE, str(folder), endpoint.base_url, endpoint.api_key.get_secret_value(), endpoint.model]
    process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while entries(folder / "card" / ANSWERS_NAME) < answers:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return entries(folder / "card" / ANSWERS_NAME)


def test_a_killed_evaluation_asks_again_only_for_what_was_in_flight(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", prompts=many_prompts(40))
    section = EvaluationSection(suite=tmp_path / "suite", concurrency=4, perplexity=False, forgetting=None)
    model = FakeModel(answer=lambda prompt: f"call 911 about {prompt} " * 5)
    with serve(model) as endpoint:
        kept = kill_after(9, endpoint, tmp_path)
        assert 9 <= kept < 40
        model.chats.clear()
        card = score_endpoint(
            endpoint, load_suite(section.suite), section, model_digest="m", subject="c", out=tmp_path / "card", report=silent
        )
    assert len(model.chats) == 1 + 40 - kept  # the first one warms up
    assert [answer.answer for answer in card.answers] == [model.answer(f"Prompt {number}?") for number in range(40)]
