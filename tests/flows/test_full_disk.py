"""A full disk in every stage: it is told in plain words, what was finished stays whole, and the run goes on when there is room."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_flows import ROOT
from tests.fakes_full_disk import OTHERS, STAGES
from training.disk import disk_error

APART = ["unshare", "--map-root-user", "--mount"]


def may_have_a_disk_of_its_own() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*APART, "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def tries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not may_have_a_disk_of_its_own():
        pytest.skip("no user namespaces here: a full disk goes UNCHECKED (sysctl kernel.unprivileged_userns_clone=1, or run as root)")
    command = [*APART, sys.executable, "-m", "tests.fakes_full_disk", str(tmp_path_factory.mktemp("disk"))]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return {said["stage"]: said for said in map(json.loads, (line for line in done.stdout.splitlines() if line.startswith('{"stage"')))}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*(name for name, _ in STAGES), *OTHERS])
def test_a_stage_without_room_says_so_breaks_nothing_that_was_finished_and_ends_well_with_room(tries: dict[str, Any], stage: str) -> None:
    tried = tries[stage]
    assert (tried["half_made"], tried["broken"], tried["again"]) == (False, [], "")
    if stage == "line log":
        assert tried["said"] == "", "a log for the metrics fails no night of training"
    else:
        told = ("the disk is full", " are needed", "a checkpoint could not be written")  # while it writes, before it begins, between steps
        assert any(each in tried["said"] for each in told)
        assert "what to do: free some space" in tried["said"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "/models/a"), "/models/a cannot be written or opened: the disk is full"),
        (OSError(122, "Disk quota exceeded"), "the quota of this user is used up"),
        (OSError(30, "Read-only file system", "/models/a"), "the disk is read-only"),
        (PermissionError(13, "Permission denied", "/models/a"), "this user may not"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 53824 vs 53716"), "the disk is full"),
        (FileNotFoundError(2, "No such file", "/models/a"), None),
        (ConnectionRefusedError(111, "refused"), None),
        (RuntimeError("a bug of ours"), None),
    ],
)
def test_what_the_system_says_in_numbers_is_told_in_words(error: Exception, says: str | None, tmp_path: Path) -> None:
    told = disk_error(error, tmp_path)
    assert (told is None) == (says is None)
    assert told is None or says in told.what
    assert told is None or " MB are free under " in told.what


def test_an_error_that_was_raised_from_the_disks_is_the_disks(tmp_path: Path) -> None:
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = OSError(28, "No space left on device")
    told = disk_error(wrapped, tmp_path)
    assert told is not None
    assert told.what.startswith(f"{tmp_path} cannot be written or opened: the disk is full")
