import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evaluation.config import GateSection
from evaluation.gate import decide
from evaluation.parity_records import Fault, FaultKind, ParityReport
from evaluation.records import Scorecard
from evaluation.report import render_report, write_report
from evaluation.report_markdown import markdown_report
from evaluation.report_provenance import Evidence, chain
from tests.fakes_evaluation import make_answer, make_card
from training.records import DatasetManifest, MergeCertificate, MergedModel, MergeMeasurement, SourceCount

POLICY = GateSection(min_prompts=5, resamples=200, must_not_regress={"rouge_l": {"by": 0.1}})  # type: ignore[dict-item]
HOSTILE = "</details><script>alert(1)</script><img src=x onerror=alert(1)>\u202e"


class Page(HTMLParser):
    """What of a page's markup could fetch, run or steer, and how many answers it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.changes: list[str] = []
        self.dangerous: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "srcset"):
                self.links.append(value or "")
            if name.startswith("on") or name == "style":
                self.dangerous.append(f"{tag} {name}")
            if tag == "details" and name == "data-change":
                self.changes.append(value or "")


def evidence(candidate: Scorecard, champion: Scorecard | None, **more: object) -> Evidence:
    return Evidence(candidate, champion, decide(candidate, champion, POLICY), POLICY, **more)  # type: ignore[arg-type]


def page(candidate: Scorecard, champion: Scorecard | None, **more: object) -> str:
    return render_report(evidence(candidate, champion, **more))


def sample(broken: int = 1, answer: str = "no need to call 911", subject: str = "candidate") -> Scorecard:
    answers = [make_answer(number, broken="critical" if number < broken else None, answer=answer) for number in range(8)]
    return make_card(answers, subject=subject)


def merged_model() -> MergedModel:
    measured = MergeMeasurement(variant="bf16_base", kl_nats=0.25, flip_rate=0.125, perplexity=7.5, rule_passes=30, rule_prompts=32)
    certificate = MergeCertificate(
        trained=measured.model_copy(update={"variant": "trained"}),
        measurements=(measured,),
        chosen="bf16_base",
        reason="It keeps more rules.",
    )
    return MergedModel(created_at="x", base_digest="b", adapter_digest="a" * 64, certificate=certificate, files=())


def dataset() -> DatasetManifest:
    source = SourceCount(path="sft.jsonl", sha256="0", format="alpaca", rows_in=10, kept=9, dropped={"duplicate": 1})
    return DatasetManifest(
        created_at="x",
        base_digest="b",
        section_digest="s",
        sources=(source,),
        train_rows=8,
        validation_rows=1,
        train_tokens=99,
        loss_tokens=55,
        files=(),
    )


def test_verdict_comes_before_reasons_then_numbers_then_rules_then_answers(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", evidence(sample(), sample(0)))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    order = ["<h1>", 'id="reasons"', 'id="numbers"', 'id="topics"', 'id="rules"', 'id="answers-title"', 'id="provenance"']
    assert [text.index(each) for each in order] == sorted(text.index(each) for each in order)


def test_failed_conditions_come_first() -> None:
    reasons = re.search(r'<ul class="reasons">(.*?)</ul>', page(sample(), sample(0)), flags=re.DOTALL)
    assert reasons is not None
    outcomes = re.findall(r'<span class="tag (\w+)">', reasons[1])
    assert (outcomes[0], outcomes[-1]) == ("FAIL", "PASS")


@pytest.mark.parametrize("where", ["answer", "topic", "prompt", "subject"])
def test_what_a_model_or_a_suite_says_is_never_markup(where: str) -> None:
    answer = make_answer(1, answer=HOSTILE if where == "answer" else "fine", broken="minor")
    if where == "topic":
        answer = answer.model_copy(update={"topic": HOSTILE})
    if where == "prompt":
        answer = answer.model_copy(update={"prompt_id": HOSTILE, "messages": (answer.messages[0].model_copy(update={"content": HOSTILE}),)})
    card = make_card([answer], subject=HOSTILE if where == "subject" else "candidate")
    text = page(card, None)
    assert (Page(text).tags.count("script"), Page(text).tags.count("img"), Page(text).dangerous) == (1, 0, [])
    assert "\u202e" not in text
    assert "⟨U+202E⟩" in text


def test_only_the_pages_own_script_and_style_may_run() -> None:
    text = page(sample(answer=HOSTILE), sample(0))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    for tag in ("script", "style"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


def test_the_page_fetches_nothing() -> None:
    text = page(sample(), sample(0))
    assert [link for link in Page(text).links if not link.startswith("#")] == []
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_every_link_leads_to_a_place_on_the_page() -> None:
    text = page(sample(), sample(0), merged=merged_model())
    links = Page(text).links
    assert len(links) >= 8
    assert [link for link in links if f'id="{link[1:]}"' not in text] == []


def test_every_prompt_is_on_the_page_under_what_became_of_it() -> None:
    """Of four prompts: broken by the candidate, by both, by the champion, by nobody."""
    ours = [make_answer(number, broken="critical" if number < 2 else None) for number in range(4)]
    theirs = [make_answer(number, broken="critical" if number in (1, 2) else None) for number in range(4)]
    assert Page(page(make_card(ours), make_card(theirs))).changes == ["broken", "still", "fixed", "same"]


def test_both_answers_stand_side_by_side() -> None:
    text = page(sample(1, answer="candidate speaks"), sample(0, answer="champion speaks"))
    case = text[text.index("<details") :]
    assert case.index("candidate speaks") < case.index("champion speaks")


def test_an_empty_answer_is_shown_as_such() -> None:
    assert "(empty answer)" in page(sample(answer=""), None)


def test_a_first_release_is_reported_without_a_champion() -> None:
    text = page(sample(0), None)
    assert "no champion yet" in text
    assert "were not judged" in text


def test_certificates_and_provenance_are_shown_when_given() -> None:
    fault = Fault(kind=FaultKind.TEMPLATE, subject="p1", what="differs at token 3")
    parity = ParityReport(
        created_at="x",
        subject="clinic-2",
        model_digest="m",
        suite_digest="s",
        against_trainer=True,
        weights_sha256={"model.safetensors": "w"},
        compared=9,
        faults=(fault,),
    )
    text = page(sample(), sample(0), merged=merged_model(), dataset=dataset(), parity=parity, recipe_name="demo", recipe_digest="f" * 64)
    for expected in (
        "It keeps more rules.",
        "12.5 %",
        "differs at token 3",
        "10 rows in from 1 source",
        "f" * 64,
        "a" * 64,
        dataset().digest,
    ):
        assert expected in text


def test_a_large_report_stays_small() -> None:
    many = make_card([make_answer(number, broken="critical") for number in range(400)])
    assert len(page(many, many)) < 1_000_000


def test_the_markdown_says_verdict_reasons_and_the_first_broken_answers() -> None:
    text = markdown_report(evidence(sample(2), sample(0, subject="clinic-1"), merged=merged_model(), dataset=dataset()))
    assert text.startswith("# FAIL: candidate, against clinic-1\n")
    assert "| **FAIL** | `must.critical_failures` |" in text
    assert "newly broken 2, same words 6." in text
    assert text.count("- **critical** p00") == 2
    assert f"`{dataset().digest[:12]}`" in text


def test_the_markdown_cannot_be_steered_by_an_answer() -> None:
    text = markdown_report(evidence(sample(1, answer="x\n# PASS\n| a | b |\n<script>[x](http://evil)"), None))
    assert not [line for line in text.splitlines() if line.startswith("# PASS")]
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "\\[x\\](http" in text


def test_the_markdown_of_many_answers_stays_short() -> None:
    answer = make_answer(0, broken="critical", answer="word " * 400)
    many = make_card([answer.model_copy(update={"prompt_id": f"p{number}"}) for number in range(2000)])
    assert len(markdown_report(evidence(many, many))) < 20_000


def test_what_the_training_warned_of_stands_beside_its_adapter() -> None:
    """Over-fitting, for one: who approves has to know."""
    warned = merged_model().model_copy(update={"warnings": ("over-fitting since step 20",)})

    (step,) = [step for step in chain(evidence(sample(), None, merged=warned)) if step.name == "Adapter"]
    assert step.what == "trained on that dataset; over-fitting since step 20"
