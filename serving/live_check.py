"""Holds sampled live answers against the rules and the suite of their release, in a process of its own at the lowest priority.

    python -m serving.live_check FOLDER     samples as JSON lines on standard input, findings as JSON lines on standard output

It ends when its input does, which is when the server has ended, however that was. It writes no text to any file.
Next: `live_rules.py`, `live_drift.py`; `live_sample.py`, the gateway's side.
"""

import os
import sys
from pathlib import Path
from typing import IO

from evaluation.errors import PatternTooSlow
from serving.live_drift import DriftWindow
from serving.live_figures import SEVERITIES, Checked, NotChecked, Sample
from serving.live_reference import LiveReference, read_reference
from serving.live_rules import LiveRules, last_question

_LEAST_PRIORITY = 19


class Release:
    """A release with what its answers are held against."""

    def __init__(self, release_id: str, reference: LiveReference) -> None:
        self._id, self._rules = release_id, LiveRules(reference.suites)
        self._window = DriftWindow(reference, self._rules.topics)

    def check(self, sample: Sample) -> Checked:
        """Judge one answer, and move the window on.

        Raises:
            PatternTooSlow: a rule ran out of time.
        """
        broken = [result.severity for result in self._rules.broken(sample.turns, sample.answer)]
        prompt = last_question(sample.turns)
        self._window.add(prompt, sample.answer, self._rules.topics.topic(prompt))
        counts = {severity: broken.count(severity) for severity in SEVERITIES}
        return Checked(release=self._id, broken=counts, window=len(self._window), drift=self._window.indices())


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
