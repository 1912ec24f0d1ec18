"""The numbers must be those of the reference tools' own command lines, on the same files."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from evaluation.metrics.bleu import BLEU_COLUMNS, bleu_of, bleu_signature, bleu_stats
from evaluation.metrics.chrf import CHRF_COLUMNS, chrf_of, chrf_signature, chrf_stats
from evaluation.metrics.labels import label_row, macro_f1
from evaluation.metrics.rouge import rouge
from evaluation.metrics.words import ChineseTokenizer
from tests.repository.checkout import ROOT

CLINIC = ROOT / "flows" / "recipes"
Pairs = list[tuple[str, str]]


def clinic_pairs(language: str, count: int = 24) -> Pairs:
    """(answer, reference) lines: each prompt's reference against another prompt's, with its own beginning before it."""
    lines = (CLINIC / f"clinic_{language}/suite/prompts.jsonl").read_text(encoding="utf-8").splitlines()
    references = [" ".join(json.loads(line)["reference"].split()) for line in lines[:count]]
    others = [*references[1:], references[0]]
    return [(own[: len(own) // (2 + at % 3)] + " " + other, own) for at, (own, other) in enumerate(zip(references, others, strict=True))]


def run_tool(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", *arguments], capture_output=True, text=True, check=True, timeout=300)
    return done.stdout


def write_lines(path: Path, lines: Iterable[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def sums(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_bleu_and_chrf_and_their_signatures_are_those_of_sacrebleus_command_line(language: str, tmp_path: Path) -> None:
    pairs = clinic_pairs(language)
    answers = write_lines(tmp_path / "answers", (answer for answer, _ in pairs))
    references = write_lines(tmp_path / "references", (reference for _, reference in pairs))
    tokenizer = {"en": "13a", "zh": "zh"}[language]
    told = json.loads(run_tool("sacrebleu", references, "-i", answers, "-m", "bleu", "chrf", "--tokenize", tokenizer, "-w", "9"))
    bleu, chrf = ({**each, "score": float(each["score"])} for each in told)
    bleu_rows = [bleu_stats(answer, reference, language) for answer, reference in pairs]
    chrf_rows = [chrf_stats(answer, reference) for answer, reference in pairs]
    assert (len(bleu_rows[0]), len(chrf_rows[0])) == (BLEU_COLUMNS, CHRF_COLUMNS)
    assert bleu_of(sums(bleu_rows)) == pytest.approx(bleu["score"], abs=1e-8)
    assert chrf_of(sums(chrf_rows)) == pytest.approx(chrf["score"], abs=1e-8)
    assert 5 < bleu["score"] < 95
    assert (bleu_signature(language), chrf_signature()) == (bleu["signature"], chrf["signature"])


def rouge_by_command_line(pairs: Pairs, folder: Path) -> list[tuple[float, ...]]:
    """F1 of ROUGE-1, 2 and L, line by line."""
    targets = write_lines(folder / "targets", (reference for _, reference in pairs))
    decodes = write_lines(folder / "decodes", (answer for answer, _ in pairs))
    out = folder / "scores.csv"
    files = (f"--target_filepattern={targets}", f"--prediction_filepattern={decodes}", f"--output_filename={out}")
    run_tool("rouge_score.rouge", "--rouge_types=rouge1,rouge2,rougeL", "--noaggregate", *files)
    with out.open(encoding="utf-8") as file:
        return [tuple(float(row[f"{kind}-F"]) for kind in ("rouge1", "rouge2", "rougeL")) for row in csv.DictReader(file)]


def test_english_rouge_is_that_of_rouge_scores_command_line(tmp_path: Path) -> None:
    pairs = clinic_pairs("en")
    told = rouge_by_command_line(pairs, tmp_path)
    assert len(told) == len(pairs)
    for (answer, reference), expected in zip(pairs, told, strict=True):
        assert rouge(answer, reference, "en") == pytest.approx(expected, abs=1e-6)


def test_chinese_rouge_is_that_of_rouge_scores_command_line_on_jiebas_words(tmp_path: Path) -> None:
    """Its command line takes no tokenizer and drops what is not ASCII, so each word that jieba finds gets an ASCII name."""
    pairs, names, cut = clinic_pairs("zh"), dict[str, str](), ChineseTokenizer()

    def named(text: str) -> str:
        return " ".join(names.setdefault(word, f"w{len(names)}x") for word in cut.tokenize(text))

    told = rouge_by_command_line([(named(answer), named(reference)) for answer, reference in pairs], tmp_path)
    assert len(told) == len(pairs)
    for (answer, reference), expected in zip(pairs, told, strict=True):
        assert rouge(answer, reference, "zh") == pytest.approx(expected, abs=1e-6)


def test_chinese_rouge_l_is_not_zero_as_the_default_tokenizer_has_it() -> None:
    """jieba cuts 请/及时/就医/多喝水 and 请/您/及时/就医/注意/多喝水: the common run has 4 of 4 and of 6 words, so F1 = 8/10."""
    answer, reference = "请及时就医，多喝水。", "请您及时就医，注意多喝水。"
    assert rouge(answer, reference, "en")[2] == 0
    assert rouge(answer, reference, "zh")[2] == pytest.approx(8 / 10)


def test_an_answer_equal_to_its_reference_scores_full_marks() -> None:
    assert rouge("请及时就医。", "请及时就医。", "zh") == (1.0, 1.0, 1.0)
    assert bleu_of(bleu_stats("Call 911 now and rest.", "Call 911 now and rest.", "en")) == pytest.approx(100)
    assert chrf_of(chrf_stats("Call 911 now.", "Call 911 now.")) == pytest.approx(100)


def test_macro_f1_is_that_of_scikit_learn_over_the_true_labels() -> None:
    random = np.random.default_rng(3)
    truth = [str(number) for number in random.integers(0, 4, 200)]
    given = [label if random.random() < 0.6 else str(random.integers(0, 6)) for label in truth]
    labels = sorted(set(truth))
    counts = np.sum([label_row(one, other if other != "5" else None, labels) for one, other in zip(truth, given, strict=True)], axis=0)
    assert macro_f1(counts) == pytest.approx(f1_score(truth, given, labels=labels, average="macro"))
    assert 0.3 < accuracy_score(truth, given) < 0.9
