import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.duplicates_characters import normalised
from training.data.shingles import Shingles, keys_of, shingles_of, tokens_of

PINNED_KEYS = ["3fd034e7c714b2ed", "bd7d47da42b2c69a", "0000000000000000", "b301e4339d450067"]


def shingle_sets(*texts: str, words: int = 3, characters: int = 3, short: int = 0) -> list[set[int]]:
    shingles = shingles_of(tokens_of(texts), words, characters, short)
    return [set(shingles.hashes[start:end].tolist()) for start, end in zip(shingles.starts[:-1], shingles.starts[1:], strict=True)]


def same_tokens(one: str, other: str) -> bool:
    first, second = keys_of(tokens_of([one, other]))
    return bool(first == second)


def test_a_token_is_a_word_or_a_character_of_a_script_without_spaces() -> None:
    assert tokens_of(["Take two aspirin", "宝宝发烧", "体温39度 see a doctor", "สวัสดี", "안녕 하세요", ""]).counts.tolist() == [
        3,
        4,
        7,
        6,
        2,
        0,
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hi", "hi!"),
        ("Don’t  wait -- call 911.", "don t wait, call 911"),
        ("ＦＥＶＥＲ　３９", "fever 39"),
        ("发烧，怎么办？", "发烧 怎么办"),
        ("cafe\u0301", "café"),
        ("ｶﾞｽ", "ガス"),
        ("STRASSE", "straße"),
        ("\u1112\u1161\u11ab", "한"),
    ],
)
def test_case_width_punctuation_and_encoding_do_not_count(one: str, other: str) -> None:
    assert same_tokens(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2.5 mg", "25 mg"),
        ("2.5 mg", "2-5 mg"),
        ("x < 3", "x > 3"),
        ("-5 degrees", "5 degrees"),
        ("👍", "👎"),
        ("€ 5", "$ 5"),
        ("a b", "ab"),
    ],
)
def test_a_mark_that_changes_the_meaning_counts(one: str, other: str) -> None:
    assert not same_tokens(one, other)


def test_a_shingle_is_three_tokens_and_a_shorter_text_is_one_shingle() -> None:
    assert [len(found) for found in shingle_sets("a b c d e", "hi", "hi there", "发烧怎么办", "!?", "")] == [3, 1, 1, 3, 0, 0]


def test_the_first_token_decides_how_long_a_shingle_of_mixed_text_is() -> None:
    """Two words and three characters: one pair from `fever` and one from `39`; from 度 on, four characters do not fit any more."""
    assert len(shingle_sets("fever 39 度以上", words=2, characters=4)[0]) == 2


def test_a_shingle_of_a_short_text_is_one_word_or_two_characters() -> None:
    words, characters, long = "one two three", "发烧怎么办", " ".join(f"w{number}" for number in range(20))

    assert [len(found) for found in shingle_sets(words, characters, long, short=20)] == [3, 4, 18]


def test_shingles_never_cross_from_one_text_into_the_next() -> None:
    alone, other = shingle_sets("one two three four"), shingle_sets("five six seven")

    assert shingle_sets("one two three four", "five six seven") == [*alone, *other]


def test_texts_taken_together_give_the_shingles_of_both_and_of_the_seam() -> None:
    together = shingles_of(tokens_of(["one two three", "four five", "six", "seven eight"]).of_each(2))
    joined = shingles_of(tokens_of(["one two three\nfour five", "six\nseven eight"]))

    assert together.hashes.tolist() == joined.hashes.tolist()
    assert together.starts.tolist() == joined.starts.tolist()


def test_hashes_are_the_same_on_every_machine_and_in_every_version() -> None:
    """Keys are kept in files: a change of this number makes every kept file useless, and needs a new version of their format."""
    assert [f"{key:016x}" for key in keys_of(tokens_of(["What is fever?", "发烧怎么办", "...", "-5 °C"])).tolist()] == PINNED_KEYS


def test_a_text_cut_into_passes_loses_nothing_but_the_words_at_the_cuts() -> None:
    """A million characters make four passes: three cuts, of which two fall into a word."""
    tokens = tokens_of(["before", "word " * 200_000, "after"])

    assert tokens.counts.tolist() == [1, 200_002, 1]
    assert (tokens.hashes == tokens_of(["word"]).hashes[0]).sum() == 199_998


def test_a_flood_of_combining_marks_takes_linear_time() -> None:
    """CPython orders combining marks by insertion: these 300,000 would take it over a minute."""
    started = time.process_time()

    tokens_of(["a" + "\u0323\u0301" * 150_000, "é" + "\u0301\u0323" * 150_000])

    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "text",
    [
        "\ud800 lone",
        "\x00\x01",
        "\U0010ffff",
        "\u202eright to left",
        "a" * 1_000_000,
        "!" * 1_000_000,
        "的" * 1_000_000,
        "\ufdfa" * 100_000,
    ],
)
def test_hostile_text_is_only_text(text: str) -> None:
    assert len(tokens_of([text]).starts) == 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=8))
def test_the_tables_fold_as_unicode_does(texts: list[str]) -> None:
    quick, slow = tokens_of(texts), tokens_of([normalised(text) for text in texts])

    assert quick.hashes.tolist() == slow.hashes.tolist()
    assert quick.starts.tolist() == slow.starts.tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab 发烧.1", max_size=30), min_size=1, max_size=6))
def test_a_text_has_the_same_shingles_alone_and_in_a_batch(texts: list[str]) -> None:
    batch = shingles_of(tokens_of(texts), short=0)

    assert [found for text in texts for found in shingle_sets(text)] == [
        set(batch.hashes[start:end].tolist()) for start, end in zip(batch.starts[:-1], batch.starts[1:], strict=True)
    ]


@given(st.text("abcé ü\u0301\u0323", max_size=30))
def test_normalising_keeps_what_unicode_means(text: str) -> None:
    assert normalised(text) == unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def test_owners_name_the_text_of_each_shingle() -> None:
    assert Shingles(np.zeros(3, np.uint64), np.array([0, 2, 2, 3])).owners().tolist() == [0, 0, 2]
