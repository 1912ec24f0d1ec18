import re
from html.parser import HTMLParser
from pathlib import Path

from evaluation.config import GateSection
from evaluation.gate import decide
from evaluation.records import Scorecard
from evaluation.report import cut_pieces, write_report
from evaluation.rules import RuleResult, Span
from tests.fakes_evaluation import make_answer, make_card
from training.records import DatasetManifest, MergeCertificate, MergedModel, MergeMeasurement, SourceCount

POLICY = GateSection(min_prompts=5, resamples=200, must_not_regress={"rouge_l": {"by": 0.1}})  # type: ignore[dict-item]


def page(folder: Path, candidate: Scorecard, champion: Scorecard | None, **kwargs: object) -> str:
    path = folder / "report.html"
    write_report(path, candidate, champion, decide(candidate, champion, POLICY), **kwargs)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def sample(broken: int = 1, answer: str = "no need to call 911") -> Scorecard:
    return make_card([make_answer(number, broken="critical" if number < broken else None, answer=answer) for number in range(8)])


def test_verdict_comes_before_numbers_and_those_before_broken_rules(tmp_path: Path) -> None:
    text = page(tmp_path, sample(), sample(0))
    assert text.index("FAIL —") < text.index("<h2>Reasons") < text.index("<h2>Numbers") < text.index("<h2>Broken rules (1 prompts)")


def test_failed_conditions_come_first(tmp_path: Path) -> None:
    text = page(tmp_path, sample(), sample(0))
    outcomes = re.findall(r'<tr><td><span class="tag (\w+)">', text)
    assert outcomes[0] == "FAIL"
    assert outcomes[-1] == "PASS"


def test_what_a_model_says_is_never_markup(tmp_path: Path) -> None:
    text = page(tmp_path, sample(answer="<script>alert(1)</script>"), None)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    seen: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.extend(f"{tag} {name}" for name, _ in attrs if name in ("src", "href"))

    text = page(tmp_path, sample(), sample(0))
    Links().feed(text)
    assert seen == []
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_both_answers_stand_side_by_side(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        sample(1, answer="candidate speaks"),
        make_card([make_answer(n, answer="champion speaks") for n in range(8)], subject="clinic-1"),
    )
    case = text[text.index("<details") :]
    assert case.index("candidate speaks") < case.index("champion speaks")


def test_evidence_is_cut_out_with_its_role() -> None:
    answer = "No need to call 911; wait at home."
    spans = (
        Span(start=11, end=19, text="call 911", phrase="call 911", role="denied"),
        Span(start=21, end=33, text="wait at home", phrase="wait at home", role="forbidden"),
    )
    pieces = cut_pieces(answer, [RuleResult(rule_id="r", severity="critical", passed=False, reason="", evidence=spans)])
    assert [(piece.text, piece.mark) for piece in pieces] == [
        ("No need to ", ""),
        ("call 911", "denied"),
        ("; ", ""),
        ("wait at home", "forbidden"),
        (".", ""),
    ]
    assert "".join(piece.text for piece in pieces) == answer


def test_overlapping_evidence_shows_the_worse_role() -> None:
    spans = (Span(start=0, end=4, text="abcd", phrase="x", role="meant"), Span(start=2, end=6, text="cdef", phrase="y", role="forbidden"))
    pieces = cut_pieces("abcdef", [RuleResult(rule_id="r", severity="minor", passed=False, reason="", evidence=spans)])
    assert [(piece.text, piece.mark) for piece in pieces] == [("ab", "meant"), ("cdef", "forbidden")]


def test_an_empty_answer_is_shown_as_such(tmp_path: Path) -> None:
    assert "(empty answer)" in page(tmp_path, sample(answer=""), None)


def test_a_first_release_is_reported_without_a_champion(tmp_path: Path) -> None:
    text = page(tmp_path, sample(0), None)
    assert "no champion yet" in text
    assert "were not judged" in text


def test_certificate_and_dataset_are_shown_when_given(tmp_path: Path) -> None:
    measured = MergeMeasurement(variant="bf16_base", kl_nats=0.25, flip_rate=0.125, perplexity=7.5, rule_passes=30, rule_prompts=32)
    merged = MergedModel(
        created_at="x",
        base_digest="b",
        adapter_digest="a",
        certificate=MergeCertificate(
            trained=measured.model_copy(update={"variant": "trained"}),
            measurements=(measured,),
            chosen="bf16_base",
            reason="It keeps more rules.",
        ),
        files=(),
    )
    source = SourceCount(path="sft.jsonl", sha256="0", format="alpaca", rows_in=10, kept=9, dropped={"duplicate": 1})
    dataset = DatasetManifest(
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
    text = page(tmp_path, sample(), sample(0), merged=merged, dataset=dataset)
    assert "It keeps more rules." in text
    assert "12.5 %" in text
    assert "duplicate: 1" in text


def test_a_large_report_stays_small(tmp_path: Path) -> None:
    many = make_card([make_answer(number, broken="critical") for number in range(400)])
    assert len(page(tmp_path, many, many)) < 1_500_000
