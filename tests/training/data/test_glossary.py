import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.glossary import Glossary, GlossarySection
from training.data.rows import Conversation, Message, Pair, Place
from training.errors import DataError

PLACE = Place("rows.jsonl", 1)


def glossary(folder: Path, body: str, name: str = "terms.csv", **options: object) -> Glossary:
    path = folder / name
    path.write_text(body, encoding="utf-8")
    return Glossary(GlossarySection.model_validate({"path": path, **options}))


MEDICAL = """term,replacement
MI,myocardial infarction
heart attack,myocardial infarction
T2DM,type 2 diabetes mellitus
BP,blood pressure (BP)
ca,cancer
心梗,心肌梗死
急性心梗,急性心肌梗死
维C,维生素C
COVID,COVID-19
"""


@pytest.mark.parametrize(
    ("text", "after", "counts"),
    [
        ("MI is an emergency.", "myocardial infarction is an emergency.", {"MI": 1}),
        ("mi casa, Mi, MIT, MI5, AMI, x_MI", "mi casa, Mi, MIT, MI5, AMI, x_MI", {}),
        ("(MI)/MI-related", "(myocardial infarction)/myocardial infarction-related", {"MI": 2}),
        ("患MI后", "患myocardial infarction后", {"MI": 1}),
        (
            "Heart attack or HEART ATTACK, not heart attacks",
            "Myocardial infarction or Myocardial infarction, not heart attacks",
            {"heart attack": 2},
        ),
        ("BP 120/80, blood pressure (BP) 120/80", "blood pressure (BP) 120/80, blood pressure (BP) 120/80", {"BP": 1}),
        ("Ca of the lung; calcium", "Cancer of the lung; calcium", {"ca": 1}),
        ("急性心梗与心梗", "急性心肌梗死与心肌梗死", {"急性心梗": 1, "心梗": 1}),
        ("心肌梗死", "心肌梗死", {}),
        ("多吃维C片，维CT", "多吃维生素C片，维CT", {"维C": 1}),
        ("COVID and COVID-19", "COVID-19 and COVID-19", {"COVID": 1}),
        ("see https://x.org/MI?q=MI or mail MI@heart.org, `MI` and\n```\nMI\n```\n", None, {}),
        ("见www.mi.org/MI。MI", "见www.mi.org/MI。myocardial infarction", {"MI": 1}),
        ("", "", {}),
    ],
)
def test_terms_are_written_as_the_glossary_has_them(tmp_path: Path, text: str, after: str | None, counts: dict[str, int]) -> None:
    terms = glossary(tmp_path, MEDICAL)
    after = text if after is None else after

    assert terms.apply(text) == (after, Counter(counts))
    assert terms.apply(after) == (after, Counter())


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("t.csv", "MI,myocardial infarction\nBP,pressure\n"),
        ("t.csv", '\ufeffterm,replacement\r\n# heart\r\nMI,"myocardial infarction"\r\n\r\nBP , pressure\r\n'),
        ("t.tsv", "MI\tmyocardial infarction\nBP\tpressure\n"),
        ("t.yaml", "# heart\nMI: myocardial infarction\nBP: 'pressure'\n"),
        ("t.yml", '{"MI": "myocardial infarction", "BP": "pressure"}'),
    ],
)
def test_csv_tsv_and_yaml_say_the_same(tmp_path: Path, name: str, body: str) -> None:
    assert glossary(tmp_path, body, name).apply("MI, BP")[0] == "myocardial infarction, pressure"


def test_a_word_that_yaml_takes_for_a_boolean_is_a_word(tmp_path: Path) -> None:
    assert glossary(tmp_path, "NO: nitric oxide\n", "t.yaml").apply("NO is a gas, no?")[0] == "nitric oxide is a gas, no?"


def test_a_replacement_may_use_other_terms(tmp_path: Path) -> None:
    terms = glossary(tmp_path, "STEMI,ST-elevation MI\nMI,myocardial infarction (MI)\nheart attack,MI\n")

    assert terms.apply("STEMI, heart attack")[0] == "ST-elevation myocardial infarction (MI), myocardial infarction (MI)"


def test_a_term_that_appears_by_replacing_is_replaced_too(tmp_path: Path) -> None:
    terms = glossary(tmp_path, "心梗,心肌梗死\n急性心肌梗死,AMI\n")

    assert terms.apply("急性心梗") == ("AMI", Counter({"心梗": 1, "急性心肌梗死": 1}))


def test_case_can_be_decided_by_the_recipe(tmp_path: Path) -> None:
    body = "MI,infarction\nflu,influenza\n"

    assert glossary(tmp_path, body, case="insensitive").apply("mi, Flu")[0] == "infarction, Influenza"
    assert glossary(tmp_path, body, case="sensitive").apply("mi, Flu, MI, flu")[0] == "mi, Flu, infarction, influenza"


def test_an_abbreviation_and_a_word_may_be_told_apart_by_case(tmp_path: Path) -> None:
    terms = glossary(tmp_path, "US,ultrasound\nus,the team\n")

    assert terms.apply("US of the liver, ask us")[0] == "ultrasound of the liver, ask the team"


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        (
            "t.csv",
            "MI,a\nBP\nx,\n,y\nMI,b\n--,dash\na,b,c\nFlu,1\nflu,2\n",
            [
                "7 faults",
                "line 2: 1 columns",
                "line 3: the replacement is empty",
                "line 4: the term is empty",
                "line 5: 'MI' is already on line 1",
                "line 6: '--' has no letter",
                "line 7: 3 columns",
            ],
        ),
        ("t.csv", "Flu,1\nflu,2\n", ["line 2: 'flu' is already on line 1"]),
        (
            "t.csv",
            "a,b\nb,c\nc,a\nx,yy z\nyy,x\n",
            ["2 faults", "'a' (line 1) → 'b' (line 2) → 'c' (line 3) → 'a' (line 1)", "'x' (line 4) → 'yy' (line 5)"],
        ),
        ("t.csv", "心梗,心肌梗死\n心肌梗死,心梗\n", ["a circle: '心梗' (line 1) → '心肌梗死' (line 2)"]),
        ("t.csv", 'a,"x\ny"\nb,`c`\n', ["line 1: ", "line 3: ", "neither line breaks nor backticks"]),
        (
            "t.yaml",
            "MI: a\nBP: [b]\nMI: c\n",
            ["2 faults", "line 2: a term and its replacement are plain text", "line 3: 'MI' is already on line 1"],
        ),
        ("t.yaml", "- MI\n- BP\n", ["line 1: t.yaml must be a mapping"]),
        ("t.yaml", "MI: 'a\n", ["not YAML"]),
        ("t.yaml", "[" * 5000, ["not YAML"]),
        ("t.csv", "", ["has no terms"]),
        ("t.yaml", "", ["has no terms"]),
        ("t.csv", "a" * 500 + ",b\n", ["line 1: longer than 400"]),
    ],
)
def test_every_fault_is_named_with_its_line_at_once(tmp_path: Path, name: str, body: str, said: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        glossary(tmp_path, body, name)

    assert str(tmp_path / name) in caught.value.what
    assert [part for part in said if part not in caught.value.what] == []


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"caf\xe9,coffee\n")
    for path, said in [(tmp_path / "no.csv", "is not there"), (tmp_path, "cannot be read"), (tmp_path / "latin.csv", "is not UTF-8")]:
        with pytest.raises(DataError, match=said):
            Glossary(GlossarySection(path=path))


def test_only_the_texts_of_those_named_are_rewritten(tmp_path: Path) -> None:
    messages = ({"role": "system", "content": "MI"}, {"role": "user", "content": "MI"}, {"role": "assistant", "content": "MI"})
    row = Conversation(PLACE, messages)
    pair = Pair(PLACE, messages[:2], chosen="MI", rejected="no MI")

    def roles(*where: str) -> tuple[list[str], str]:
        terms = glossary(tmp_path, "MI,infarct\n", where=where)
        changed, counts = terms.apply_to(row)
        preferred, _ = terms.apply_to(pair)
        assert isinstance(preferred, Pair)
        assert counts["MI"] == len(where)
        return [message["role"] for message in changed.messages if message["content"] == "infarct"], preferred.rejected

    assert roles("questions") == (["user"], "no MI")
    assert roles("answers") == (["assistant"], "no infarct")
    assert roles("questions", "answers", "system") == (["system", "user", "assistant"], "no infarct")


def test_turns_without_text_pass(tmp_path: Path) -> None:
    call: Message = {"role": "assistant", "content": None, "tool_calls": []}
    row = Conversation(PLACE, ({"role": "user", "content": "MI"}, call, {"role": "tool", "content": "MI"}))

    changed, _ = glossary(tmp_path, "MI,infarct\n").apply_to(row)

    assert [message["content"] for message in changed.messages] == ["infarct", None, "MI"]


WORDS = st.lists(st.sampled_from([*"abABc.()-_心梗肌死ßİ`@ ", "ab", "AB", "://"]), min_size=1, max_size=5).map("".join)


@settings(max_examples=400, deadline=None)
@given(pairs=st.dictionaries(WORDS, WORDS, min_size=1, max_size=5), text=st.lists(WORDS, max_size=8).map("".join))
def test_applying_twice_is_applying_once(tmp_path_factory: pytest.TempPathFactory, pairs: dict[str, str], text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "random.tsv"
    path.write_text("".join(f"{term}\t{written}\n" for term, written in pairs.items()), encoding="utf-8")
    try:
        terms = Glossary(GlossarySection(path=path))
    except DataError:
        return

    once, _ = terms.apply(text)

    assert terms.apply(once) == (once, Counter())


def test_ten_thousand_terms_cost_little_more_than_ten(tmp_path: Path) -> None:
    """The work is one look-up per word, whatever the number of terms; 20 times leaves room for a busy machine."""
    texts = [f"The patient {number} took drug{number}ol for 高血压 and 糖尿病 after a long day of work." for number in range(2000)]

    def seconds(terms: int) -> float:
        chosen = glossary(
            tmp_path, "".join(f"drug{number}ol,medicine {number}\n药{number}号,药物{number}\n" for number in range(terms // 2))
        )
        started = time.process_time()
        for text in texts:
            chosen.apply(text)
        return time.process_time() - started

    assert min(seconds(10_000) for _ in range(2)) < 20 * min(seconds(10) for _ in range(2))


@pytest.mark.parametrize("unit", ["a", "MI ", "心梗", "`MI` ", "x@", "www.", "http://", "a-", "İ", "MI@"])
def test_a_hostile_megabyte_takes_seconds(tmp_path: Path, unit: str) -> None:
    """Quadratic work on 10⁶ characters would take hours, so the bound needs no precision. CPU time: the machine may be busy."""
    terms = glossary(tmp_path, MEDICAL)

    started = time.process_time()
    terms.apply(unit * (1_000_000 // len(unit)))

    assert time.process_time() - started < 20
