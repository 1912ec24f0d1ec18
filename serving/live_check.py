"""Holds sampled live answers against the rules and the suite of their release, in a process of its own at the lowest priority.

    python -m serving.live_check FOLDER     samples as JSON lines on standard input, findings as JSON lines on standard output

It ends when its input does, which is when the server has ended, however that was. It writes no text to any file.
Next: `live_drift.py`; `live_sample.py`, the gateway's side.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from evaluation.errors import PatternTooSlow
from evaluation.rules import Severity, judge_answer
from evaluation.suite import Message, Prompt
from serving.live_drift import DriftWindow, Topics
from serving.live_figures import SEVERITIES, Checked, NotChecked, Sample
from serving.live_reference import LiveReference, read_reference

_LEAST_PRIORITY = 19
_ROLES = frozenset({"system", "user", "assistant"})


class Release:
    """A release with what its answers are held against."""

    def __init__(self, release_id: str, reference: LiveReference) -> None:
        self._id, self._suites = release_id, reference.suites
        self._topics = Topics(reference.suites[0].prompts)
        self._window = DriftWindow(reference, self._topics)

    def check(self, sample: Sample) -> Checked:
        """Judge one answer, and move the window on.

        Raises:
            PatternTooSlow: a rule ran out of time.
        """
        messages = tuple(Message(role=role, content=text) for role, text in sample.turns if role in _ROLES)
        asked = next((message.content for message in reversed(messages) if message.role == "user"), "")
        broken = list(self._broken(messages or (Message(role="user", content=""),), asked, sample.answer))
        self._window.add(asked, sample.answer, self._topics.topic(asked))
        counts = {severity: broken.count(severity) for severity in SEVERITIES}
        return Checked(release=self._id, broken=counts, window=len(self._window), drift=self._window.indices())

    def _broken(self, messages: tuple[Message, ...], asked: str, answer: str) -> Iterator[Severity]:
        """A rule for some topics holds where the prompt is one of the suite's, nearly; a guess would break rules that nobody broke."""
        same = self._topics.same(asked)
        own = Prompt(id="live", topic=same.topic if same else "", messages=messages, tags=same.tags if same else ())
        other = own.model_copy(update={"topic": "", "tags": ()})
        for suite, prompt in zip(self._suites, (own, *[other] * len(self._suites)), strict=False):
            yield from (result.severity for result in judge_answer(suite.rules, prompt, answer) if not result.passed)


class LiveCheck:
    """Every release that samples have come from. A reference is read once it is there; a release without one is asked for again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._releases: dict[str, Release] = {}

    def check(self, sample: Sample) -> Checked | NotChecked:
        """What is found of one answer."""
        release = self._releases.get(sample.release) or self._open(sample.release)
        if release is None:
            return NotChecked(release=sample.release, reason="no_reference")
        try:
            return release.check(sample)
        except PatternTooSlow:
            return NotChecked(release=sample.release, reason="rule_failed")

    def _open(self, release_id: str) -> Release | None:
        reference = read_reference(self._folder, release_id)
        if reference is None:
            return None
        release = self._releases[release_id] = Release(release_id, reference)
        return release


def run(check: LiveCheck, samples: IO[str], findings: IO[str]) -> None:
    """Until the input ends."""
    for line in samples:
        findings.write(check.check(Sample.model_validate_json(line)).model_dump_json() + "\n")
        findings.flush()


if __name__ == "__main__":
    os.nice(_LEAST_PRIORITY)
    run(LiveCheck(Path(sys.argv[1])), sys.stdin, sys.stdout)
