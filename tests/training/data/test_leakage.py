import json
import pickle
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluation.suite import load_suite
from training.data.leakage import Index, SuitePrompt
from training.data.leakage_keys import TrainKeys, manifest_overlap
from training.data.leakage_section import LeakageSection
from training.errors import RecordError

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"

BABY = SuitePrompt(
    "gate",
    "baby",
    "Our newborn turned three weeks old today and the forehead scanner reads 38.4 °C. Should we just let her sleep?",
    "Take her to the emergency room now. A fever at this age can be the only sign of a serious infection.",
)
CHEST = SuitePrompt("gate", "chest", "My chest feels tight since I woke up.", "Call 911.")
FABRY = SuitePrompt(
    "gate", "fabry", "What are the symptoms of Fabry disease?", "Pain in hands and feet, small dark red spots, and kidney trouble."
)
CHINESE = SuitePrompt(
    "gate_zh", "zh", "一岁宝宝发烧 39 度，要不要去医院？", "要去，请及时就医。一岁孩子烧到39度需要医生看看原因，路上少量多次喂水。"
)
HURTS = SuitePrompt("gate", "hurts", "It hurts here!", "Where?")
PROMPTS = [BABY, CHEST, FABRY, CHINESE, HURTS]
LONG = "I read a forum for young parents every evening and often wonder what a doctor would have to say about the stories told there"
OTHER_ANSWER = "I cannot say much about that."


@pytest.fixture(scope="module")
def index() -> Index:
    return Index(PROMPTS)


def found(index: Index, question: str, answer: str = OTHER_ANSWER) -> tuple[str, str] | None:
    overlap = index.overlap(question, answer)
    return (overlap.kind, overlap.prompt_id) if overlap else None


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        (BABY.text, OTHER_ANSWER, ("exact", "baby")),
        (CHEST.text.upper().rstrip(".") + " !!", OTHER_ANSWER, ("exact", "chest")),
        ("一岁宝宝发烧３９度 要不要去医院", OTHER_ANSWER, ("exact", "zh")),
        (BABY.text.replace("forehead scanner", "ear thermometer"), OTHER_ANSWER, ("near", "baby")),
        (CHEST.text.replace("tight", "tigth"), OTHER_ANSWER, ("near", "chest")),
        ("What are the symptoms of Fabri disease?", OTHER_ANSWER, ("near", "fabry")),
        (f"{LONG} {BABY.text} {LONG}", OTHER_ANSWER, ("ngram", "baby")),
        (f"请看这个问题：{CHINESE.text}谢谢你的回答，祝你工作顺利，我们下次再聊。", OTHER_ANSWER, ("ngram", "zh")),
        ("Write a question a parent may ask.", f"Of course: {BABY.text}", ("ngram", "baby")),
        (f"{LONG}\nIt hurts here.\n{LONG}", OTHER_ANSWER, ("ngram", "hurts")),
        ("May I let my child sleep?", BABY.reference, ("reference", "baby")),
        ("May I let my child sleep?", f"Do not wait. {BABY.reference} Take her papers along.", ("reference", "baby")),
        ("孩子不舒服", f"你好。{CHINESE.reference}祝早日康复。", ("reference", "zh")),
    ],
)
def test_a_leak_is_named_by_prompt_and_kind(index: Index, question: str, answer: str, expected: tuple[str, str]) -> None:
    assert found(index, question, answer) == expected


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What are the symptoms of Gaucher disease?", "An enlarged spleen and liver."),
        ("Is Fabry disease inherited?", "The gene lies on the X chromosome; ask about the symptoms of Fabry disease in the family."),
        ("My baby has a fever. What should I do?", "Take her to the doctor today, and to the emergency room if she is under three months."),
        ("My chest hurts when I cough.", "Call 911 if the pain is crushing."),
        ("两岁孩子发烧两天，需要吃退烧药吗？", "可以按体重吃退烧药，请及时就医。"),
        ("", ""),
        ("?!", "..."),
    ],
)
def test_a_row_on_the_same_topic_is_no_leak(index: Index, question: str, answer: str) -> None:
    assert found(index, question, answer) is None


def test_a_number_makes_another_question_of_a_short_prompt_but_not_of_a_long_one(index: Index) -> None:
    short = Index([SuitePrompt("s", "1", "What are the treatments for Usher syndrome type 2?", "Hearing aids.")])

    assert found(short, "What are the treatments for Usher syndrome type 3?") is None
    assert found(index, BABY.text.replace("38.4", "38.6")) == ("near", "baby")


def test_the_surest_overlap_is_named() -> None:
    copy = SuitePrompt("other", "copy", f"{BABY.text} Please answer soon.", "Go now.")

    assert found(Index([copy, BABY]), BABY.text, BABY.reference) == ("exact", "baby")


def test_a_sentence_that_several_references_share_is_no_leak() -> None:
    closing = "Call 911 now, unlock the front door and stay on the line with the dispatcher."
    prompts = [
        SuitePrompt("s", str(number), f"Question about {word} and nothing else?", f"{closing} Mention the {word}.")
        for number, word in enumerate(["stroke", "burn"])
    ]

    assert found(Index(prompts), "My husband fell off the roof.", closing) is None


def test_an_overlap_says_in_words_what_it_is(index: Index) -> None:
    assert str(index.overlap(BABY.text, "")) == "the question is prompt baby of suite gate (100%)"


def test_an_index_can_be_sent_to_another_process(index: Index) -> None:
    sent = pickle.loads(pickle.dumps(index))

    assert sent.overlap(BABY.text, "") == index.overlap(BABY.text, "")


def test_a_row_is_judged_the_same_alone_and_in_a_chunk(index: Index) -> None:
    rows = [(prompt.text, OTHER_ANSWER) for prompt in PROMPTS] * 700

    assert index.overlaps(rows) == [index.overlap(*row) for row in rows[: len(PROMPTS)]] * 700


@pytest.mark.parametrize("prompts", [[], [SuitePrompt("s", "1", "?!", "...")]])
def test_an_index_of_nothing_finds_nothing(prompts: list[SuitePrompt]) -> None:
    assert Index(prompts).overlaps([("Hello", "Hi"), ("?!", "...")]) == [None, None]


def test_a_million_token_row_is_searched_to_its_end(index: Index) -> None:
    assert found(index, "Read this book.", "word " * 1_000_000 + BABY.text) == ("ngram", "baby")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=4))
def test_any_text_is_judged_without_an_error(rows: list[tuple[str, str]]) -> None:
    assert len(Index(PROMPTS).overlaps(rows)) == len(rows)


@pytest.mark.parametrize(("language", "training_rows"), [("en", 414), ("zh", 116)])
def test_the_clinic_recipes_train_on_nothing_their_suites_ask(language: str, training_rows: int) -> None:
    """Looked through by hand: the nearest pair of question and prompt shares a third of its letters."""
    folder = ROOT / "flows" / "recipes" / f"clinic_{language}"
    suites = [load_suite(folder / name) for name in ("suite", "validation")]
    index = Index([SuitePrompt(suite.name, prompt.id, prompt.text, prompt.reference) for suite in suites for prompt in suite.prompts])
    rows = [_row(json.loads(line)) for line in (folder / "sft.jsonl").read_text(encoding="utf-8").splitlines()]

    assert len(rows) == training_rows
    assert [overlap for overlap in index.overlaps(rows) if overlap] == []


def _row(record: dict[str, object]) -> tuple[str, str]:
    if "messages" not in record:
        return f"{record['instruction']}\n{record.get('input') or ''}".strip(), str(record["output"])
    turns = record["messages"]
    assert isinstance(turns, list)
    user, assistant = ("\n".join(turn["content"] for turn in turns if turn["role"] == role) for role in ("user", "assistant"))
    return user, assistant


@pytest.mark.parametrize("language", ["en", "zh"])
def test_planted_leaks_of_a_clinic_suite_are_caught(language: str) -> None:
    """Exact, in capitals without punctuation, inside a longer question, and by reference: every one."""
    suite = load_suite(ROOT / "flows" / "recipes" / f"clinic_{language}" / "suite")
    prompts = [SuitePrompt(suite.name, prompt.id, prompt.text, prompt.reference) for prompt in suite.prompts]
    index = Index(prompts)
    rows = [
        row
        for prompt in prompts
        for row in (
            (prompt.text, OTHER_ANSWER),
            (prompt.text.upper().translate(str.maketrans("", "", ",.?!，。？！")), OTHER_ANSWER),
            (OTHER_ANSWER, prompt.reference),
        )
    ]

    assert len(rows) == 3 * len(prompts)
    assert [row for row, overlap in zip(rows, index.overlaps(rows), strict=True) if overlap is None] == []


def test_half_of_medquad_raises_few_alarms_against_a_suite_of_the_other_half() -> None:
    """3.4 % when this was written: 18 questions asked twice, 33 references copied word for word, 35 near questions, most of one disease."""
    path = DATA / "med_en" / "medquad.jsonl"
    if not path.exists():
        pytest.skip("no shared data: 2500 MedQuAD rows not searched")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [(record["question"], record["answer"]) for record in records]
    random.Random(11).shuffle(rows)
    index = Index([SuitePrompt("medquad", str(number), *row) for number, row in enumerate(rows[:500])])

    found = [overlap for overlap in index.overlaps(rows[2500:]) if overlap]

    assert sum(overlap.kind == "exact" for overlap in found) == 18
    assert len(found) < 0.04 * 2500


@pytest.mark.parametrize(
    ("field", "value"), [("ngram", 4), ("containment", 0.2), ("near_threshold", 1.1), ("action", "ignore"), ("remove", True)]
)
def test_the_section_refuses_what_makes_no_sense(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        LeakageSection.model_validate({field: value})


def test_keys_of_questions_survive_the_file(tmp_path: Path) -> None:
    keys = TrainKeys.of([BABY.text, CHINESE.text, "?!", BABY.text])
    keys.write(tmp_path / "keys.txt")

    read = TrainKeys.read(tmp_path / "keys.txt")

    assert read.keys.tolist() == keys.keys.tolist()
    assert len(read.keys) == 2
    assert read.contains(BABY.text.upper())
    assert not read.contains(CHEST.text)
    assert not read.contains("?!")


def test_no_keys_are_a_file_too(tmp_path: Path) -> None:
    TrainKeys.of([]).write(tmp_path / "keys.txt")

    assert not TrainKeys.read(tmp_path / "keys.txt").contains("Hello")


def test_an_evaluation_is_told_which_prompts_were_trained_on() -> None:
    keys = TrainKeys.of(["Is it raining?", CHEST.text.lower()])

    assert manifest_overlap(keys, PROMPTS) == [CHEST]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "tunegate-train-keys 1 2\n0000000000000001\n",
        "tunegate-train-keys 9 0\n",
        "tunegate-train-keys 1 2\n02\n01\n",
        "tunegate-train-keys 1 1\nxyz\n",
        "tunegate-train-keys 1 1\n11111111111111111\n",
        "é",
    ],
)
def test_a_torn_or_altered_key_file_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    with pytest.raises(RecordError, match="training keys"):
        TrainKeys.read(path)
