"""The numbers must be those of the reference tools."""

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from evaluation.bleu import BLEU_COLUMNS, bleu_of, bleu_signature, bleu_stats
from evaluation.rouge import rouge_l

ENGLISH = [
    ("Please call 911 now and sit down.", "Call 911 now and sit down."),
    ("See a doctor today, please.", "Please see a doctor today."),
    ("Rest.", "Drink plenty of water and rest at home."),
]
CHINESE = [
    ("请及时就医，多喝水。", "请您及时就医，注意多喝水。"),
    ("立即拨打120。", "请立即拨打120，让病人平躺。"),
    ("休息", "在家休息两天"),
]


@pytest.mark.parametrize(("language", "tokenizer", "pairs"), [("en", "13a", ENGLISH), ("zh", "zh", CHINESE)])
def test_corpus_bleu_from_kept_statistics_equals_sacrebleu(language: str, tokenizer: str, pairs: list[tuple[str, str]]) -> None:
    stats = [bleu_stats(answer, reference, language) for answer, reference in pairs]
    expected = BLEU(tokenize=tokenizer).corpus_score([answer for answer, _ in pairs], [[reference for _, reference in pairs]]).score
    assert all(len(row) == BLEU_COLUMNS for row in stats)
    assert bleu_of(tuple(sum(column) for column in zip(*stats, strict=True))) == pytest.approx(expected, abs=1e-9)
    assert expected > 10


def test_the_signature_names_the_tokenizer() -> None:
    assert "tok:13a" in bleu_signature("en")
    assert "tok:zh" in bleu_signature("zh")


def test_english_rouge_l_equals_rouge_score() -> None:
    scorer = RougeScorer(["rougeL"])
    for answer, reference in ENGLISH:
        assert rouge_l(answer, reference, "en") == scorer.score(reference, answer)["rougeL"].fmeasure


def test_chinese_rouge_l_is_not_zero_as_the_default_tokenizer_has_it() -> None:
    """jieba cuts 请/及时/就医/多喝水 and 请/您/及时/就医/注意/多喝水: the common run has 4 of 4 and of 6 words, so F1 = 8/10."""
    answer, reference = CHINESE[0]
    assert RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure == 0
    assert rouge_l(answer, reference, "zh") == pytest.approx(8 / 10)


def test_an_answer_equal_to_its_reference_scores_full_marks() -> None:
    assert rouge_l("请及时就医。", "请及时就医。", "zh") == 1.0
    assert bleu_of(bleu_stats("Call 911 now and rest.", "Call 911 now and rest.", "en")) == pytest.approx(100)
