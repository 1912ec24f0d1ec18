"""The review page over HTTP: real uvicorn, a real client, and every byte that a reviewer gets."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from aiohttp import ClientSession

from evaluation.review_app import create_review_app
from evaluation.review_close import close_review
from evaluation.review_records import Review
from evaluation.review_votes import VoteBook, counted
from tests.fakes_review import OURS, THEIRS, Table, make_table

PAGES = ("/", "/review.css", "/review.js")


@contextmanager
def serving(review: Review, book: VoteBook) -> Iterator[str]:
    """The application on a free port of loopback, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(create_review_app(review, book, ("127.0.0.1",)), log_level="critical", lifespan="off", server_header=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        limit = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < limit
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


class Client:
    """One reviewer, or nobody: sends requests and keeps what came back."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url, self.headers = url, {} if token is None else {"Authorization": f"Bearer {token}"}

    def send(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, str], str]:
        async def go() -> tuple[int, dict[str, str], str]:
            headers = self.headers | more.pop("headers", {})
            async with ClientSession() as session, session.request(method, self.url + path, headers=headers, **more) as reply:
                return reply.status, {name.lower(): value for name, value in reply.headers.items()}, await reply.text()

        return asyncio.run(go())

    def pair(self, place: int) -> dict[str, Any]:
        status, _, text = self.send("GET", f"/api/pairs/{place}")
        assert status == 200, text
        return dict(json.loads(text))

    def vote(self, place: int, choice: str, comment: str = "") -> dict[str, Any]:
        status, _, text = self.send("POST", f"/api/pairs/{place}", json={"choice": choice, "comment": comment})
        assert status == 200, text
        return dict(json.loads(text))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Table, str]]:
    table = make_table(tmp_path_factory.mktemp("review"), ["ann", "bob", "cy", "dee"])
    with serving(table.drawn.review, table.book) as url:
        yield table, url


def client(site: tuple[Table, str], reviewer: str) -> Client:
    return Client(site[1], site[0].drawn.tokens[reviewer])


def test_a_vote_is_on_the_disk_when_it_is_answered_and_shown_again_later(site: tuple[Table, str]) -> None:
    ann = client(site, "ann")
    assert ann.pair(1)["vote"] is None
    assert ann.vote(1, "a", " clearer ") == {"reviewer": "ann", "total": 12, "done": 1, "next": 2, "closed": False}
    lines = (site[0].folder / "votes.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["comment"] == "clearer"
    assert ann.pair(1)["vote"] == {"choice": "a", "comment": "clearer"}
    assert ann.vote(1, "tie")["done"] == 1
    assert ann.pair(1)["vote"]["choice"] == "tie"


@pytest.mark.parametrize("reviewer", ["ann", "bob"])
def test_choosing_the_candidates_answer_on_the_screen_is_a_vote_for_the_candidate(tmp_path: Path, reviewer: str) -> None:
    """Both ways round: bob sees the sides exchanged."""
    table = make_table(tmp_path, ["ann", "bob"])
    with serving(table.drawn.review, table.book) as url:
        for each in ("ann", "bob"):
            person = Client(url, table.drawn.tokens[each])
            for place in range(1, 13):
                pair = person.pair(place)
                assert {pair["a"][: len(OURS)], pair["b"][: len(OURS)]} == {OURS, THEIRS[: len(OURS)]}
                ours, theirs = ("a", "b") if pair["a"].startswith(OURS) else ("b", "a")
                progress = person.vote(place, ours if each == reviewer else theirs)
    assert (progress["done"], progress["next"]) == (12, None)
    result = close_review(table.folder, table.key_path, table.candidate, table.champion, closed_by="x")
    assert {vote.preference for vote in result.votes if vote.reviewer == reviewer} == {"candidate"}
    assert {vote.preference for vote in result.votes if vote.reviewer != reviewer} == {"champion"}


def test_nothing_that_a_reviewer_gets_tells_the_models_apart(tmp_path: Path) -> None:
    """Whichever of two models is the candidate: when the same texts stand on the same sides, every byte of every answer is the same."""
    table = make_table(tmp_path)
    review = table.drawn.review
    exchanged = review.model_copy(
        update={
            "release": review.against,
            "against": review.release,
            "candidate_digest": review.champion_digest,
            "champion_digest": review.candidate_digest,
        }
    )
    token = table.drawn.tokens["ann"]
    seen = []
    for each in (review, exchanged):
        with serving(each, table.book) as url:
            person = Client(url, token)
            replies = [person.send("GET", path) for path in (*PAGES, *(f"/api/pairs/{place}" for place in range(1, 13)))]
            seen.append([(status, {k: v for k, v in headers.items() if k != "date"}, text) for status, headers, text in replies])
    assert seen[0] == seen[1]
    told = json.dumps(seen[0])
    hidden = (review.release, review.against, review.candidate_digest, review.champion_digest, review.key_sha256, "p00", '\\"topic')
    assert [word for word in (*hidden, "candidate", "champion") if word in told] == []


def test_a_pair_holds_these_fields_and_no_other(site: tuple[Table, str]) -> None:
    assert set(client(site, "ann").pair(3)) == {"reviewer", "total", "done", "next", "closed", "place", "messages", "a", "b", "vote"}


def test_both_sides_are_seen_first_equally_often(site: tuple[Table, str]) -> None:
    for reviewer in ("cy", "dee"):
        left = [client(site, reviewer).pair(place)["a"].startswith(OURS) for place in range(1, 13)]
        assert left.count(True) == 6


def test_one_reviewer_does_not_see_the_votes_of_another(site: tuple[Table, str]) -> None:
    client(site, "cy").vote(1, "both_bad", "secret remark")
    told = json.dumps([client(site, "dee").pair(place) for place in range(1, 13)])
    assert "secret remark" not in told
    assert '"done": 0' in told


@pytest.mark.parametrize("token", [None, "", "wrong", "x" * 5000])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_a_reviewers_token_nothing_is_shown_or_taken(site: tuple[Table, str], token: str | None, method: str) -> None:
    before = len(site[0].book.votes())
    status, headers, text = Client(site[1], token).send(method, "/api/pairs/1", data='{"choice": "a"}' if method == "POST" else None)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert OURS not in text
    assert len(site[0].book.votes()) == before


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/pairs/1", '{"choice": "first"}', 422),
        ("/api/pairs/1", '{"choice": "a", "reviewer": "ann"}', 422),
        ("/api/pairs/1", "not json", 422),
        ("/api/pairs/1", "[" * 20_000, 422),
        ("/api/pairs/1", "\ud800".encode("utf-8", "surrogatepass"), 422),
        ("/api/pairs/1", json.dumps({"choice": "a", "comment": "x" * 2001}), 422),
        ("/api/pairs/1", json.dumps({"choice": "a", "comment": "x" * 50_000}), 413),
        ("/api/pairs/0", '{"choice": "a"}', 404),
        ("/api/pairs/13", '{"choice": "a"}', 404),
        ("/api/pairs/-1", '{"choice": "a"}', 404),
        ("/api/pairs/99999999999999999999999", '{"choice": "a"}', 404),
    ],
)
def test_a_vote_that_cannot_be_is_refused_and_not_kept(site: tuple[Table, str], path: str, body: str | bytes, status: int) -> None:
    bob, before = client(site, "bob"), len(site[0].book.votes())
    found, _, text = bob.send("POST", path, data=body)
    assert (found, "error" in text) == (status, True)
    assert len(site[0].book.votes()) == before


@pytest.mark.parametrize("path", [*PAGES, "/api/pairs/1", "/nothing"])
def test_every_answer_carries_the_strict_headers(site: tuple[Table, str], path: str) -> None:
    _, headers, _ = Client(site[1], None).send("GET", path)
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["referrer-policy"], headers["cache-control"], headers["x-content-type-options"]) == (
        "no-referrer",
        "no-store",
        "nosniff",
    )
    assert "server" not in headers
    assert "set-cookie" not in headers


def test_a_foreign_name_pointed_at_the_page_is_refused(site: tuple[Table, str]) -> None:
    status, headers, _ = Client(site[1], None).send("GET", "/", headers={"Host": "evil.example"})
    assert status == 400
    assert "content-security-policy" in headers


def test_the_page_names_no_other_place(site: tuple[Table, str]) -> None:
    texts = [Client(site[1], None).send("GET", path)[2] for path in PAGES]
    assert [re.findall(r"https?://|//\w|url\(|innerHTML|insertAdjacentHTML|document\.write", text) for text in texts] == [[], [], []]
    assert re.findall(r'(?:src|href)="([^"]+)"', texts[0]) == ["/review.css", "/review.js"]


def test_a_closed_review_takes_no_vote(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    table.vote_all("ann", lambda _: "tie")
    close_review(table.folder, table.key_path, table.candidate, table.champion, closed_by="bob")
    with serving(table.drawn.review, table.book) as url:
        person = Client(url, table.drawn.tokens["ann"])
        assert person.pair(1)["closed"] is True
        status, _, text = person.send("POST", "/api/pairs/1", json={"choice": "a"})
    assert (status, json.loads(text)) == (409, {"error": "this review is closed"})
    assert {vote.choice for vote in counted(table.book.votes()).values()} == {"tie"}
