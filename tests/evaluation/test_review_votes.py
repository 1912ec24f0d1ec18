"""Votes that are on the disk when they are said to be, and each reviewer's own order of pairs."""

import threading
from pathlib import Path

import pytest

from evaluation.errors import ReviewError
from evaluation.review_close import close_review
from evaluation.review_export import votes_as_csv
from evaluation.review_votes import as_seen, counted, order_of, reviewer_of, swaps
from tests.fakes_review import make_table, make_vote
from training.errors import RecordError


def test_votes_are_read_back_in_order_and_the_last_on_a_pair_counts(tmp_path: Path) -> None:
    book = make_table(tmp_path).book
    votes = [make_vote("ann", 0, "first"), make_vote("ann", 1, "tie"), make_vote("ann", 0, "second", "变了 \n主意")]
    for vote in votes:
        book.add(vote)
    assert book.votes() == votes
    assert counted(votes)["ann", 0].choice == "second"


def test_a_line_that_a_kill_cut_in_half_is_dropped_and_written_over(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    table.book.add(make_vote("ann", 0, "first"))
    with (table.folder / "votes.jsonl").open("ab") as file:
        file.write(b'{"reviewer": "ann", "pa')
    assert len(table.book.votes()) == 1
    table.book.add(make_vote("ann", 1, "tie"))
    assert [vote.pair for vote in table.book.votes()] == [0, 1]


def test_a_line_that_is_not_a_vote_is_named(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    (table.folder / "votes.jsonl").write_text('{"reviewer": 3}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"votes\.jsonl:1: not a vote"):
        table.book.votes()


def test_votes_of_many_at_once_are_all_kept(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["ann", "bob", "cy"])

    def vote(reviewer: str) -> None:
        for pair in range(12):
            table.book.add(make_vote(reviewer, pair, "tie"))

    threads = [threading.Thread(target=vote, args=(name,)) for name in ("ann", "bob", "cy")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted(table.book.votes())) == 36


def test_a_closed_review_takes_no_vote(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    table.vote_all("ann", lambda _: "tie")
    close_review(table.folder, table.key_path, table.candidate, table.champion, closed_by="bob")
    with pytest.raises(ReviewError, match="closed"):
        table.book.add(make_vote("ann", 0, "first"))


def test_every_reviewer_has_an_order_of_their_own_and_every_other_sees_the_sides_exchanged(tmp_path: Path) -> None:
    review = make_table(tmp_path, ["ann", "bob"]).drawn.review
    ann, bob = order_of(review, "ann"), order_of(review, "bob")
    assert sorted(ann) == sorted(bob) == list(range(12))
    assert ann != bob
    assert (swaps(review, "ann"), swaps(review, "bob")) == (False, True)
    assert order_of(review, "ann") == ann


@pytest.mark.parametrize("choice", ["first", "second", "tie", "both_bad"])
def test_exchanging_sides_twice_is_nothing(choice: str) -> None:
    assert as_seen(as_seen(choice, True), True) == choice  # type: ignore[arg-type]
    assert (as_seen(choice, True) == choice) == (choice in ("tie", "both_bad"))  # type: ignore[arg-type]


def test_a_token_is_its_reviewers_alone(tmp_path: Path) -> None:
    drawn = make_table(tmp_path, ["ann", "bob"]).drawn
    assert [reviewer_of(drawn.review, token) for token in drawn.tokens.values()] == ["ann", "bob"]
    assert [reviewer_of(drawn.review, token) for token in ("", "ann", drawn.review.reviewers[0].token_sha256)] == [None] * 3


@pytest.mark.parametrize("comment", ["=HYPERLINK(1)", "+1", "-1", "@x", "  =1", "\tx", "＝1"])
def test_no_cell_of_the_csv_is_a_formula(tmp_path: Path, comment: str) -> None:
    table = make_table(tmp_path)
    table.book.add(make_vote("ann", 0, "first", comment))
    assert f"'{comment}" in votes_as_csv(table.drawn.review, table.book.votes(), None)


def test_the_csv_names_models_only_after_the_close(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    table.vote_all("ann", lambda _: "candidate")
    before = votes_as_csv(table.drawn.review, table.book.votes(), None)
    result = close_review(table.folder, table.key_path, table.candidate, table.champion, closed_by="bob")
    after = votes_as_csv(table.drawn.review, table.book.votes(), result)
    assert len(before.splitlines()) == len(after.splitlines()) == 13
    assert "candidate" not in before
    assert after.count(",candidate,") == 12
