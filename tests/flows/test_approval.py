"""From a verdict to an approval over a real server: by key, by risk bounds, and what an approval does not cover."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from evaluation.aggregates import METRICS
from flows import stages
from flows.approval import approve_release
from flows.approval_section import AutoApproval, Numbers, risks
from flows.comparing import Together
from flows.judging import Judged, evaluate, gate, keep_champion_serving, register
from flows.promotion import switch
from serving.errors import EvidenceMismatch
from serving.keys import Scope
from serving.lifecycle import State
from tests.fakes_flows import SAFE, Site, dataset, merged_model, open_small_line, printed, recipe_values, until, write_recipe

BETTER = {name: metric.higher_is_better for name, metric in METRICS.items()}


def passed(site: Site, folder: Path, public_name: str, **approval: Any) -> Judged:
    """A release that passed its gate, under these terms."""
    path = write_recipe(folder, recipe_values(public_name) | {"approval": approval})
    line = open_small_line(path, site.settings, site.registry)
    champion = keep_champion_serving(line, stages.fetch_base(line))
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    judged = gate(line, release, (evaluate(line, release, merged), evaluate(line, champion), Together()), merged, dataset(line))
    print(printed(line.display.console))
    return judged


def test_two_keys_approve_over_http_and_a_caller_may_not(site: Site, tmp_path: Path) -> None:
    release = passed(site, tmp_path, "signed-twice", approvers=2).release
    url, body = f"{site.url}/admin/releases/{release.id}/approve", {"evidence_digest": release.evidence_digest}
    for name in ("bob", "eve"):
        _, secret = site.registry.create_key(name, [Scope.APPROVE])
        until(lambda: httpx.get(f"{site.url}/admin/releases", headers=bearer(secret)).status_code == 200)  # noqa: B023
        assert httpx.post(url, json=body, headers=bearer(site.key)).status_code == 403
        assert httpx.post(url, json=body).status_code == 401
        assert httpx.post(url, json=body, headers=bearer(secret)).status_code == 200
    assert site.registry.release(release.id).state is State.APPROVED
    assert switch(site.board, site.registry.release(release.id), "bob").state is State.LIVE
    assert httpx.post(url, content=b"x" * 20_000, headers=bearer(secret)).status_code == 413


def bearer(secret: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret.get_secret_value()}"}


def test_a_recipe_that_changed_after_the_approval_promotes_nothing(site: Site, tmp_path: Path) -> None:
    release = passed(site, tmp_path, "rewritten").release
    approve_release(site.registry, release.id, "bob", "", None)
    recipe = tmp_path / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    for changed in (text.replace("r: 4", "r: 8"), "name: [", None):
        recipe.unlink() if changed is None else recipe.write_text(changed, encoding="utf-8")
        with pytest.raises(EvidenceMismatch, match="is another one now"):
            switch(site.board, site.registry.release(release.id), "bob")
    assert site.registry.release(release.id).state is State.APPROVED
    recipe.write_text(text, encoding="utf-8")
    assert switch(site.board, site.registry.release(release.id), "bob").state is State.LIVE


def test_within_its_risk_bounds_a_release_is_approved_by_nobody(site: Site, tmp_path: Path) -> None:
    auto = {"bounds": {"critical_failures": {"max": 0}}, "max_loss": {"critical_failures": 0}}
    release = passed(site, tmp_path, "unasked", auto=auto).release
    assert release.state is State.APPROVED
    assert site.registry.history(release.id)[-1].actor == "policy"


def test_outside_one_risk_bound_somebody_is_asked(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = passed(site, tmp_path, "asked", auto={"bounds": {"critical_failures": {"max": 0}, "perplexity": {"max": 100}}}).release
    assert release.state is State.AWAITING_APPROVAL
    assert "perplexity was not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("candidate", "champion", "said"),
    [
        ({"rule_pass_rate": 0.95, "perplexity": 4.0}, {"perplexity": 4.0}, []),
        ({"rule_pass_rate": 0.94, "perplexity": 4.0}, {"perplexity": 4.0}, ["rule_pass_rate is 0.94, below 0.95"]),
        ({"rule_pass_rate": None, "perplexity": 4.0}, {"perplexity": 4.0}, ["rule_pass_rate was not measured"]),
        ({"rule_pass_rate": float("nan"), "perplexity": 4.0}, {"perplexity": 4.0}, ["rule_pass_rate is nan, below 0.95"]),
        ({"rule_pass_rate": 1.0, "perplexity": 4.6}, {"perplexity": 4.0}, ["perplexity is worse by 0.6, more than 0.5"]),
        ({"rule_pass_rate": 1.0, "perplexity": 3.0}, {"perplexity": 4.0}, []),
        ({"rule_pass_rate": 1.0, "perplexity": 4.0}, {}, ["perplexity was not measured on both"]),
        ({"rule_pass_rate": 1.0, "perplexity": 4.0}, None, ["there is no champion to compare with"]),
    ],
)
def test_which_risks_are_seen(candidate: Numbers, champion: Numbers | None, said: list[str]) -> None:
    auto = AutoApproval.model_validate({"bounds": {"rule_pass_rate": {"min": 0.95}}, "max_loss": {"perplexity": 0.5}})
    assert risks(auto, candidate, champion, BETTER) == said


@pytest.mark.parametrize(
    ("auto", "said"),
    [
        ({"bounds": {}}, "names no metric"),
        ({"bounds": {"rule_pass_rate": {"min": 0.9, "proven": True}}}, "belongs to the gate"),
        ({"bounds": {"rule_pass_rate": {"min": 0.9}}, "max_loss": {"perplexity": -1}}, "greater than or equal to 0"),
        ({"bounds": {"rule_pass_rate": {"min": 0.9}}, "max_loss": {"ttft_p50_s": 1}}, "speed is compared side by side, by the gate"),
        ({"bounds": {"colour": {"min": 0.9}}}, "Input should be"),
    ],
)
def test_bounds_that_bound_nothing_are_refused(auto: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AutoApproval.model_validate(auto)
