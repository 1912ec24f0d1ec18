"""`tunegate doctor`, `tunegate prune`, `tunegate audit`, and approving by more than one: what people and scripts get to see."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from serving.approval_terms import ApprovalTerms, Signer
from serving.approvals import Asked
from serving.registry import Registry
from serving.slots import free_port
from tests.fakes_serving import EVIDENCE, candidate, url_in

runner = CliRunner()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path))
    monkeypatch.setenv("TUNEGATE_PORT", str(free_port()))
    with Registry(url_in(tmp_path)) as made:
        yield made


def waiting(registry: Registry) -> None:
    registry.submit(candidate(registry).id, EVIDENCE, None, "gate", Asked(ApprovalTerms(approvers=2)))


def test_the_doctor_says_one_line_for_each_thing_and_the_same_as_json(registry: Registry) -> None:
    plain, as_json = runner.invoke(app, ["doctor"]), runner.invoke(app, ["doctor", "--json"])
    checks = [each["check"] for each in json.loads(as_json.stdout)]
    assert len(checks) == len(plain.stdout.strip().splitlines()) >= 12
    assert {"registry", "clock", "disk", "keys"} <= set(checks)


def test_the_doctor_ends_with_1_when_something_is_wrong(registry: Registry, tmp_path: Path) -> None:
    assert runner.invoke(app, ["doctor"]).exit_code == 0
    (tmp_path / "base" / "tiny").mkdir(parents=True)
    (tmp_path / "base" / "tiny" / "record.json").write_text("{", encoding="utf-8")
    assert runner.invoke(app, ["doctor"]).exit_code == 1


def test_the_first_of_two_signatures_promotes_nothing_and_the_same_account_does_not_sign_twice(registry: Registry) -> None:
    waiting(registry)
    first = runner.invoke(app, ["approve", "clinic-1", "--as", "bob"])
    assert (first.exit_code, "clinic-1 waits for 1 more" in first.stdout) == (0, True)
    second = runner.invoke(app, ["approve", "clinic-1", "--as", "eve"])
    assert "through the same account" in str(second.exception)
    registry.approvals.sign("clinic-1", EVIDENCE, Signer("eve", "key:key-2"))
    assert registry.approvals.standing("clinic-1").missing == 0


def test_an_emergency_is_approved_alone(registry: Registry) -> None:
    waiting(registry)
    done = runner.invoke(app, ["approve", "clinic-1", "--as", "ann", "--emergency", "the old model gives away secrets", "--no-promote"])
    assert (done.exit_code, "approved by ann" in done.stdout) == (0, True)


def test_the_audit_log_is_exported_as_lines_and_as_a_table_without_formulas(registry: Registry) -> None:
    waiting(registry)
    registry.reject("clinic-1", "bob", "=cmd|' /C calc'!A0")
    lines = [json.loads(line) for line in runner.invoke(app, ["audit", "export"]).stdout.splitlines()]
    assert [line["kind"] for line in lines] == [line.kind for line in registry.approvals.lines()]
    assert lines[-1]["reason"] == "=cmd|' /C calc'!A0"
    rows = list(csv.DictReader(io.StringIO(runner.invoke(app, ["audit", "export", "--csv", "--after", "2"]).stdout)))
    assert [int(row["seq"]) for row in rows] == [line["seq"] for line in lines[2:]]
    assert rows[-1]["reason"].startswith("'=")


def test_the_audit_log_is_verified_against_a_head_that_was_noted(registry: Registry) -> None:
    waiting(registry)
    head = json.loads(runner.invoke(app, ["audit", "verify", "--json"]).stdout)["head"]
    assert runner.invoke(app, ["audit", "verify", "--noted", head]).exit_code == 0
    wrong = runner.invoke(app, ["audit", "verify", "--noted", "0" * 63 + "1"])
    assert (wrong.exit_code, "is not in the audit log" in wrong.stdout) == (1, True)


def test_pruning_says_what_it_freed(registry: Registry, tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / "runs" / "demo" / f"merge-{name}").mkdir(parents=True)
        (tmp_path / "runs" / "demo" / f"merge-{name}" / "weights").write_bytes(b"x" * 2_000_000)
    said = runner.invoke(app, ["prune", "--keep", "1", "--dry-run"]).stdout
    assert "would free 2.0 MB in 1 places" in said
    assert json.loads(runner.invoke(app, ["prune", "--keep", "1", "--json"]).stdout)["removed"][0]["size_bytes"] == 2_000_000
    assert runner.invoke(app, ["prune", "--keep", "0"]).exit_code != 0
