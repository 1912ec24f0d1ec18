import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from training.data.languages import CODES, UNKNOWN, Identifier, Language, LanguageSection, detect

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def texts_of(file: str, *keys: str) -> list[str]:
    path = SHARED / file
    if not path.exists():
        pytest.skip(f"{file} is not here")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return ["\n".join(row[key] for key in keys) for row in rows]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What are the symptoms of a heart attack?", "en"),
        ("The patient has had a fever for three days and should see a doctor.", "en"),
        ("发烧三天了，应该挂哪个科？", "zh"),
        ("發燒三天了，應該掛哪個科？", "zh"),
        ("请问 familial hyperaldosteronism 应该怎么治疗，平时要注意哪些方面？", "zh"),
        ("患者血压BP 160/95 mmHg，HbA1c 8.2%，长期服用metformin治疗", "zh"),
        ("What does 高血压 mean, and how is it treated?", "en"),
        ("熱が三日続いています。病院に行くべきですか。", "ja"),
        ("사흘째 열이 나는데 병원에 가야 하나요?", "ko"),
        ("J'ai de la fièvre depuis trois jours, dois-je consulter un médecin ?", "fr"),
        ("Ich habe seit drei Tagen Fieber. Soll ich zum Arzt gehen?", "de"),
        ("Tengo fiebre desde hace tres días, ¿debo ir al médico?", "es"),
        ("У меня три дня температура, нужно ли идти к врачу?", "ru"),
        ("У мене три дні температура, чи потрібно йти до лікаря?", "uk"),
        ("أعاني من الحمى منذ ثلاثة أيام، هل يجب أن أذهب إلى الطبيب؟", "ar"),
        ("मुझे तीन दिन से बुखार है, क्या मुझे डॉक्टर के पास जाना चाहिए?", "hi"),
        ("ฉันมีไข้มาสามวันแล้ว ควรไปหาหมอไหม", "th"),
        ("Έχω πυρετό εδώ και τρεις μέρες, πρέπει να πάω στον γιατρό;", "el"),
        ("יש לי חום כבר שלושה ימים, האם עליי לפנות לרופא?", "he"),
        ("Tôi bị sốt đã ba ngày, tôi có nên đi khám bác sĩ không?", "vi"),
        ("请看：\n```python\nfor item in the_list_of_all_items_that_were_found:\n    print(item)\n```\n这段代码有什么问题？", "zh"),
        ("见 https://example.org/the-long-address/of-a-page/that-is-written/in-english 这篇文章", "zh"),
    ],
)
def test_a_text_is_told_by_what_most_of_its_prose_says(text: str, code: str) -> None:
    language = detect(text)

    assert language.code == code
    assert 0.5 < language.confidence <= 1


@pytest.mark.parametrize(
    "text", ["", "42", "OK", "120/80", "!!! ??? ...", "👩‍⚕️" * 20, "```\nprint('hello world of code')\n```", "1.5 2.5 3.5 " * 30]
)
def test_what_is_no_language_or_too_short_is_undetermined(text: str) -> None:
    assert detect(text) == Language(UNKNOWN, 0.0)


def test_a_row_in_another_language_is_refused_with_a_sentence() -> None:
    identifier = Identifier(LanguageSection(allow=("zh", "en")))

    french = identifier.identify("J'ai de la fièvre depuis trois jours, dois-je consulter un médecin ?")

    assert identifier.refusal(french) == f"the text is in fr ({french.confidence:.0%} sure), the recipe allows zh, en"
    assert identifier.refusal(identifier.identify("What should I do about the fever?")) is None
    assert identifier.refusal(identifier.identify("OK")) is None


def test_a_language_told_with_doubt_is_undetermined_and_kept() -> None:
    """'Gaucher disease' is Latin to a model of letters; a name alone must not cost a row."""
    doubtful = "Gaucher disease type 1 morbus"
    strict, lax = (
        Identifier(LanguageSection(allow=("zh",), min_confidence=0.9)),
        Identifier(LanguageSection(allow=("zh",), min_confidence=0)),
    )

    assert strict.identify(doubtful).code == UNKNOWN
    assert strict.refusal(strict.identify(doubtful)) is None
    assert lax.identify(doubtful).code != UNKNOWN


def test_an_empty_list_only_counts() -> None:
    identifier = Identifier(LanguageSection())

    assert identifier.refusal(Language("fr", 1.0)) is None


def test_short_texts_are_kept_by_number_of_letters() -> None:
    section = LanguageSection(allow=("en",), min_characters=40)

    assert Identifier(section).identify("发烧三天了，应该挂哪个科？").code == UNKNOWN
    assert Identifier(section).identify("发烧三天了，应该挂哪个科？" * 3).code == "zh"


@pytest.mark.parametrize("code", ["cn", "zh-cn", "english", "xx", ""])
def test_a_code_that_can_never_be_found_is_refused(code: str) -> None:
    with pytest.raises(ValidationError, match="ISO 639-1"):
        LanguageSection(allow=("en", code))


def test_the_codes_that_may_be_allowed_are_those_that_can_be_told() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    labels = LanguageIdentifier.from_model_file(MODEL_FILE).labels

    assert {label for label in labels if len(label) == 2} == CODES
    assert len(CODES) > 100


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_a_language_and_a_confidence_within_bounds(text: str) -> None:
    language = detect(text, 1)

    assert language.code in CODES | {UNKNOWN}
    assert 0 <= language.confidence <= 1


@pytest.mark.parametrize("unit", ["a", "a ", "中", "中a", "https://", "é", "`", "т", "\ud800"])
def test_a_megabyte_is_told_from_its_beginning(unit: str) -> None:
    assert detect(unit * (1_000_000 // len(unit))).confidence <= 1


@pytest.mark.parametrize(
    ("file", "keys", "code"),
    [
        ("med_zh/alpaca.jsonl", ("instruction", "output"), "zh"),
        ("med_zh/alpaca.jsonl", ("instruction",), "zh"),
        ("med_en/medquad.jsonl", ("question", "answer"), "en"),
    ],
)
def test_real_rows_are_told_rightly(file: str, keys: tuple[str, ...], code: str) -> None:
    identifier = Identifier(LanguageSection(allow=(code,)))
    rows = texts_of(file, *keys)

    found = Counter(identifier.identify(text).code for text in rows)

    assert len(rows) >= 5000
    assert found[code] >= 0.995 * len(rows)
    assert found[code] + found[UNKNOWN] >= 0.9995 * len(rows)
