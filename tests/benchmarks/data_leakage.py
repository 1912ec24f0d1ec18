"""Leakage: which planted leaks are caught, how often a clean row is taken for one, and what a row costs.

    python -m tests.benchmarks.data_leakage [--show]

Suites: the two clinic suites of the recipes, and 500 prompts out of one half of MedQuAD and of Huatuo each, whose other half is the
training data. The halves are not clean by themselves (MedQuAD asks some questions twice): with --show every alarm among them is printed,
to be judged by hand.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from opencc import OpenCC

from evaluation.suite import load_suite
from training.data.leakage import KINDS, Index, SuitePrompt
from training.data.leakage_section import LeakageSection

Row = tuple[str, str]
Plant = Callable[[SuitePrompt, Row, random.Random], Row]  # prompt and an innocent row -> a row that leaks
ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


def clinic(language: str) -> tuple[list[SuitePrompt], list[Row]]:
    """A recipe's suites and its training rows."""
    folder = ROOT / "flows" / "recipes" / f"clinic_{language}"
    prompts = []
    for name in ("suite", "validation"):
        suite = load_suite(folder / name)
        prompts += [SuitePrompt(suite.name, prompt.id, prompt.text, prompt.reference) for prompt in suite.prompts]
    return prompts, [_row(json.loads(line)) for line in (folder / "sft.jsonl").read_text(encoding="utf-8").splitlines()]


def halves(language: str) -> tuple[list[SuitePrompt], list[Row]]:
    """500 prompts of one half, and the rows of the other."""
    path = DATA / ("med_en/medquad.jsonl" if language == "en" else "med_zh/alpaca.jsonl")
    rows = [_row(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    random.Random(11).shuffle(rows)
    prompts = [SuitePrompt(path.stem, str(number), *row) for number, row in enumerate(rows[:500])]
    return prompts, rows[len(rows) // 2 :]


def _row(record: dict[str, object]) -> Row:
    if "messages" in record:
        turns = record["messages"]
        assert isinstance(turns, list)
        return tuple("\n".join(turn["content"] for turn in turns if turn["role"] == role) for role in ("user", "assistant"))  # type: ignore[return-value]
    if "question" in record:
        return str(record["question"]), str(record["answer"])
    return f"{record['instruction']}\n{record.get('input') or ''}".strip(), str(record["output"])


# ---- plants ----------------------------------------------------------------------------------------------------------------

_EXCHANGED = (
    "what:which should:must can:could is:was are:were my:our the:this a:one have:got has:had do:need and:plus i:we "
    "really:truly when:if help:assist doctor:physician baby:infant mother:mum father:dad 怎么:如何 怎么办:怎样办 吗:么 "
    "请问:想问 应该:该 需要:要 可能:也许 患者:病人 出现:有了 什么:啥 治疗:医治 症状:表现 宝宝:孩子"
)
_SYNONYMS = dict(pair.split(":") for pair in _EXCHANGED.split())
_BARE = str.maketrans(dict.fromkeys(",.;:!?()，。；：！？（）、'\"", " "))


def _is_chinese(text: str) -> bool:
    return sum("\u4e00" <= letter <= "\u9fff" for letter in text) * 2 > len(text.replace(" ", ""))


def _typo(text: str, rng: random.Random) -> str:
    place = rng.choice([number for number, letter in enumerate(text) if letter.isalpha()])
    return text[:place] + rng.choice("etaoins" if text.isascii() else "的了是") + text[place + 1 :]


def _paraphrase(text: str, rng: random.Random, times: int) -> str:
    """Exchange up to `times` common words for others, or drop one where none is common."""
    if _is_chinese(text):
        there = [word for word in _SYNONYMS if not word.isascii() and word in text]
        for word in rng.sample(there, min(times, len(there))):
            text = text.replace(word, _SYNONYMS[word], 1)
        return text if there else text[:-1] + "呢"
    words = text.split()
    there_at = [place for place, word in enumerate(words) if word.lower() in _SYNONYMS]
    for place in rng.sample(there_at, min(times, len(there_at))):
        words[place] = _SYNONYMS[words[place].lower()]
    return " ".join(words if there_at else words[1:])


def _lengthened(text: str) -> str:
    if _is_chinese(text):
        return f"你好，我在网上看到一个问题，想请你帮忙看看：{text}谢谢你的回答，祝工作顺利。"
    return f"Hello, I found this in a forum and would like to know your opinion. {text} Thank you very much for taking the time to answer."


def _some_words_changed(text: str, rng: random.Random, share: float) -> str:
    joiner = "" if _is_chinese(text) else " "
    parts = list(text) if not joiner else text.split()
    return joiner.join(("thing" if joiner else "某") if rng.random() < share else part for part in parts)


@cache
def _converter() -> OpenCC:
    return OpenCC("s2twp")  # with Taiwan's words, which is harder than its characters


def _traditional(text: str) -> str:
    """English stays as it is."""
    return str(_converter().convert(text))


PLANTS: dict[str, Plant] = {
    "exact": lambda prompt, row, rng: (prompt.text, row[1]),
    "case and punctuation changed": lambda prompt, row, rng: (prompt.text.translate(_BARE).upper(), row[1]),
    "in traditional characters": lambda prompt, row, rng: (_traditional(prompt.text), row[1]),
    "reference in traditional characters": lambda prompt, row, rng: (row[0], _traditional(prompt.reference)),
    "one typo": lambda prompt, row, rng: (_typo(prompt.text, rng), row[1]),
    "one common word exchanged": lambda prompt, row, rng: (_paraphrase(prompt.text, rng, 1), row[1]),
    "three common words exchanged": lambda prompt, row, rng: (_paraphrase(prompt.text, rng, 3), row[1]),
    "prompt in a longer question": lambda prompt, row, rng: (_lengthened(prompt.text), row[1]),
    "prompt in the answer": lambda prompt, row, rng: (row[0], f"{row[1]} {prompt.text} {row[1]}"),
    "reference copied": lambda prompt, row, rng: (row[0], prompt.reference),
    "reference in a longer answer": lambda prompt, row, rng: (row[0], f"{row[1]} {prompt.reference}"),
    "reference, 5% of words changed": lambda prompt, row, rng: (row[0], _some_words_changed(prompt.reference, rng, 0.05)),
    "reference, 15% of words changed": lambda prompt, row, rng: (row[0], _some_words_changed(prompt.reference, rng, 0.15)),
}


# ---- tables ----------------------------------------------------------------------------------------------------------------


def catch_table(corpora: dict[str, tuple[list[SuitePrompt], list[Row]]]) -> None:
    """Share of planted leaks caught, for the right prompt or one with the same text, and by which check."""
    print(f"{'share of planted leaks caught':36}" + "".join(f"{name:>16}" for name in corpora))
    for plant, make in PLANTS.items():
        line = f"{plant:36}"
        for prompts, rows in corpora.values():
            rng = random.Random(plant)
            index = Index(prompts)
            found = index.overlaps([make(prompt, rng.choice(rows), rng) for prompt in prompts])
            line += f"{sum(overlap is not None for overlap in found) / len(prompts):16.1%}"
        print(line)


def alarm_table(corpora: dict[str, tuple[list[SuitePrompt], list[Row]]], show: bool) -> None:
    """Alarms among rows that were not planted, and the speed."""
    print(f"\n{'rows not planted':16}{'prompts':>8}{'rows':>7}" + "".join(f"{kind:>11}" for kind in KINDS) + f"{'share':>8}{'rows/s':>9}")
    for name, (prompts, rows) in corpora.items():
        index = Index(prompts, LeakageSection())
        index.overlaps(rows[:100])
        started = time.process_time()
        found = index.overlaps(rows)
        spent = time.process_time() - started
        kinds = Counter(overlap.kind for overlap in found if overlap)
        print(
            f"{name:16}{len(prompts):>8}{len(rows):>7}"
            + "".join(f"{kinds[kind]:>11}" for kind in KINDS)
            + f"{kinds.total() / len(rows):8.2%}{len(rows) / spent:9.0f}"
        )
        if show:
            _show(prompts, rows, found)


def _show(prompts: Sequence[SuitePrompt], rows: Sequence[Row], found: Sequence[object]) -> None:
    by_id = {(prompt.suite, prompt.id): prompt for prompt in prompts}
    for row, overlap in zip(rows, found, strict=True):
        if overlap is not None:
            prompt = by_id[overlap.suite, overlap.prompt_id]  # type: ignore[attr-defined]
            print(
                f"    {overlap}\n      row    {row[0][:99]!r} {row[1][:99]!r}\n      prompt {prompt.text[:99]!r} {prompt.reference[:99]!r}"
            )


def main() -> None:
    """Print both tables."""
    corpora = {"clinic_en": clinic("en"), "clinic_zh": clinic("zh")}
    if DATA.is_dir():
        corpora |= {"medquad": halves("en"), "huatuo": halves("zh")}
    catch_table(corpora)
    alarm_table(corpora, "--show" in sys.argv)


if __name__ == "__main__":
    main()
