"""The review page as an ASGI application: shows one pair at a time, takes a vote, and knows nothing that could unblind anybody.

    GET  /                       the page; the reviewer's token is in the link behind #, which browsers send to nobody
    GET  /review.css, /review.js
    GET  /api/pairs/{place}      the pair at a place (from 1) of this reviewer's order, with their own vote on it
    POST /api/pairs/{place}      {"choice": "a" | "b" | "tie" | "both_bad", "comment": "…"}

Every /api route needs `Authorization: Bearer TOKEN`. The key is not within reach: the application is given a `Review` and the votes.
Next: `review.js`, the other side.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evaluation.errors import ReviewError
from evaluation.review_records import LONGEST_COMMENT, Choice, Review, Vote
from evaluation.review_votes import VoteBook, as_seen, counted, order_of, reviewer_of, swaps
from training.data.report_text import visible

_FOLDER = Path(__file__).parent
_MAX_BODY_BYTES = 32_768
_LONGEST_TEXT = 40_000
_SEEN: dict[Choice, str] = {"first": "a", "second": "b", "tie": "tie", "both_bad": "both_bad"}
_CHOICES: dict[str, Choice] = {seen: choice for choice, seen in _SEEN.items()}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Ballot(BaseModel):
    """The body of a vote, by what the reviewer saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: Literal["a", "b", "tie", "both_bad"]
    comment: str = Field(default="", max_length=LONGEST_COMMENT)


def create_review_app(review: Review, votes: VoteBook, hosts: Sequence[str]) -> Starlette:
    """The application; it answers to requests for `hosts` only, so that no foreign name can be pointed at it."""
    desk = _Desk(review, votes)
    return Starlette(
        routes=[
            Route("/", _file("review.html", "text/html")),
            Route("/review.css", _file("review.css", "text/css")),
            Route("/review.js", _file("review.js", "text/javascript")),
            Route("/api/pairs/{place:int}", desk.show, methods=["GET"]),
            Route("/api/pairs/{place:int}", desk.vote, methods=["POST"]),
        ],
        middleware=[Middleware(_Guarded), Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
        exception_handlers={HTTPException: _as_json},
    )


class _Desk:
    """What a reviewer can ask for."""

    def __init__(self, review: Review, votes: VoteBook) -> None:
        self._review, self._votes = review, votes

    async def show(self, request: Request) -> Response:
        reviewer = self._reviewer(request)
        return JSONResponse(await run_in_threadpool(self._seen, reviewer, self._place(request)))

    async def vote(self, request: Request) -> Response:
        reviewer, place = self._reviewer(request), self._place(request)
        ballot = await _read_ballot(request)
        vote = Vote(
            reviewer=reviewer,
            pair=order_of(self._review, reviewer)[place - 1],
            choice=as_seen(_CHOICES[ballot.choice], swaps(self._review, reviewer)),
            comment=ballot.comment.strip(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            await run_in_threadpool(self._votes.add, vote)
        except ReviewError as error:
            raise HTTPException(409, error.what) from error
        return JSONResponse(await run_in_threadpool(self._progress, reviewer))

    def _reviewer(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        reviewer = reviewer_of(self._review, token) if scheme.lower() == "bearer" else None
        if reviewer is None:
            raise HTTPException(401, "this link is not known; ask for yours again", {"www-authenticate": "Bearer"})
        return reviewer

    def _place(self, request: Request) -> int:
        place: int = request.path_params["place"]
        if not 1 <= place <= len(self._review.pairs):
            raise HTTPException(404, f"there are {len(self._review.pairs)} pairs, from 1")
        return place

    def _progress(self, reviewer: str) -> dict[str, object]:
        """`next` is the first place without a vote; None when there is none."""
        voted = counted(self._votes.votes())
        order = order_of(self._review, reviewer)
        following = next((place for place, pair in enumerate(order, start=1) if (reviewer, pair) not in voted), None)
        done = sum((reviewer, pair) in voted for pair in order)
        return {"reviewer": reviewer, "total": len(order), "done": done, "next": following, "closed": self._votes.closed}

    def _seen(self, reviewer: str, place: int) -> dict[str, object]:
        number, swapped = order_of(self._review, reviewer)[place - 1], swaps(self._review, reviewer)
        pair, earlier = self._review.pairs[number], counted(self._votes.votes()).get((reviewer, number))
        a, b = (pair.second, pair.first) if swapped else (pair.first, pair.second)
        return self._progress(reviewer) | {
            "place": place,
            "messages": [{"role": message.role, "content": visible(message.content, _LONGEST_TEXT)} for message in pair.messages],
            "a": visible(a, _LONGEST_TEXT),
            "b": visible(b, _LONGEST_TEXT),
            "vote": {"choice": _SEEN[as_seen(earlier.choice, swapped)], "comment": earlier.comment} if earlier else None,
        }


async def _read_ballot(request: Request) -> Ballot:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"a vote has at most {_MAX_BODY_BYTES} bytes")
    try:
        return Ballot.model_validate(json.loads(body))
    except (ValueError, RecursionError, ValidationError) as error:
        raise HTTPException(422, f"a vote is a, b, tie or both_bad, with a comment of at most {LONGEST_COMMENT} characters") from error


def _file(name: str, kind: str) -> "_Static":
    return _Static((_FOLDER / name).read_bytes(), f"{kind}; charset=utf-8")


class _Static:
    """One file, read once."""

    def __init__(self, content: bytes, kind: str) -> None:
        self._content, self._kind = content, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(self._content, headers={"content-type": self._kind})(scope, receive, send)


class _Guarded:
    """Puts the strict headers on every answer, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def _as_json(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
