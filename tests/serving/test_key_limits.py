"""What one key may use: rates, tokens, requests at a time, until when."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.errors import UnknownKey
from serving.key_limits import KeyLimiter
from serving.keys import KeyInfo, KeyRing, KeyTerms, Scope, hash_secret
from serving.limits import EMBEDDING_FIELDS, Caps, read_request
from serving.openai_errors import ApiError
from serving.registry import Registry
from tests.fakes_gateway import CHAT, KEY, PUBLIC_NAME, key_info, one_slot
from tests.fakes_gateway_slot import Behaviour
from tests.fakes_serving import Clock, url_in


class Desk:
    """A limiter and its clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.limiter = KeyLimiter(lambda: self.now_s)

    def refused_for_s(self, key: KeyInfo, tokens: int = 1) -> int | None:
        """Seconds until a request may pass; None if it passed (and its grant is kept)."""
        try:
            self.limiter.admit(key, tokens)
        except ApiError as error:
            return error.retry_after_s if error.status == 429 else -1
        return None


def test_a_minutes_worth_passes_at_once_and_then_one_by_one() -> None:
    """60 a minute is one a second; after 60 the next has to wait for one second."""
    desk, key = Desk(), key_info("k", requests_per_minute=60)
    assert [desk.refused_for_s(key) for _ in range(61)] == [None] * 60 + [1]
    desk.now_s = 1.0
    assert [desk.refused_for_s(key) for _ in range(2)] == [None, 1]


def test_a_bucket_never_holds_more_than_a_minute() -> None:
    desk, key = Desk(), key_info("k", requests_per_minute=2)
    desk.refused_for_s(key)
    desk.now_s = 3600.0
    assert [desk.refused_for_s(key) for _ in range(3)] == [None, None, 30]


def test_tokens_are_reserved_and_put_right_at_the_end() -> None:
    """600 a minute: 500 are reserved, 100 were used, so 500 are left and another 500 pass."""
    desk, key = Desk(), key_info("k", tokens_per_minute=600)
    grant = desk.limiter.admit(key, 500)
    assert desk.refused_for_s(key, 500) == 40
    grant.settle(100)
    assert desk.refused_for_s(key, 500) is None


def test_an_answer_longer_than_was_reserved_leaves_a_debt() -> None:
    """600 a minute is 10 a second: 1,200 used leave -600, so one token has to wait for 60.1 s."""
    desk, key = Desk(), key_info("k", tokens_per_minute=600)
    desk.limiter.admit(key, 100).settle(1200)
    assert desk.refused_for_s(key, 1) == 61


def test_a_request_larger_than_the_limit_passes_when_the_bucket_is_full() -> None:
    desk, key = Desk(), key_info("k", tokens_per_minute=100)
    assert [desk.refused_for_s(key, 1000) for _ in range(2)] == [None, 600]


def test_requests_at_a_time_are_counted_until_they_end() -> None:
    desk, key = Desk(), key_info("k", max_concurrent=2)
    first = desk.limiter.admit(key, 1)
    assert [desk.refused_for_s(key) for _ in range(2)] == [None, 1]
    first.settle(0)
    first.settle(0)
    assert [desk.refused_for_s(key) for _ in range(2)] == [None, 1]


def test_a_refused_request_uses_nothing() -> None:
    desk, key = Desk(), key_info("k", requests_per_minute=1, tokens_per_minute=60)
    desk.refused_for_s(key, 60)
    for _ in range(100):
        assert desk.refused_for_s(key, 60) == 60


def test_one_keys_use_is_not_anothers_and_a_changed_limit_counts_at_once() -> None:
    desk = Desk()
    assert [desk.refused_for_s(key_info(name, requests_per_minute=1)) for name in ("a", "b", "a")] == [None, None, 60]
    assert desk.refused_for_s(key_info("a", requests_per_minute=5)) is None


def test_a_key_without_limits_is_never_refused() -> None:
    desk, key = Desk(), key_info("k")
    assert {desk.refused_for_s(key, 10**9) for _ in range(1000)} == {None}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.mark.anyio
async def test_over_its_limit_a_key_gets_429_with_retry_after_and_another_key_does_not() -> None:
    async with one_slot() as (stack, slot):
        limited = key_info("limited", Scope.INFER, requests_per_minute=2)
        stack.keys.replace({hash_secret("tg-limited"): limited, hash_secret(KEY): key_info("free", Scope.INFER)})
        for status in (200, 200, 429):
            async with stack.post(headers={"Authorization": "Bearer tg-limited"}) as response:
                assert response.status == status
                answer = await response.json()
        assert response.headers["retry-after"] == "30"
        assert answer["error"]["code"] == "rate_limit_exceeded"
        async with stack.post() as response:
            assert response.status == 200
        assert len(slot.seen) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answers_own_tokens_are_charged(stream: bool) -> None:
    """A plain answer reports 7 + 53 tokens; a stream without usage has 53 events and [DONE], and a prompt of some 25 tokens."""
    async with one_slot(Behaviour(chunks=53)) as (stack, _):
        stack.keys.replace({hash_secret(KEY): key_info("k", Scope.INFER, tokens_per_minute=120)})
        body = {**CHAT, "max_tokens": 5, "stream": stream}
        statuses = []
        for _ in range(3):
            async with stack.post(body) as response:
                await response.read()
                statuses.append(response.status)
        assert statuses == [200, 200, 429]


@pytest.mark.anyio
async def test_the_tokens_of_embeddings_are_charged_and_no_answer_is_reserved_for_them() -> None:
    """Each is 60 tokens; a text like this reserves 12. An answer's usual 256 would be more than the key has in a minute."""
    async with one_slot(Behaviour(chunks=53)) as (stack, _):
        stack.keys.replace({hash_secret(KEY): key_info("k", Scope.INFER, tokens_per_minute=120)})
        statuses = []
        for _ in range(3):
            async with stack.post({"model": PUBLIC_NAME, "input": "hello, who is there?"}, "/v1/embeddings") as response:
                statuses.append(response.status)
        assert statuses == [200, 200, 429]


def test_nothing_is_reserved_for_the_answer_to_embeddings() -> None:
    body = b'{"model": "m", "input": "hello"}'
    assert read_request(body, EMBEDDING_FIELDS, Caps(8, 4, 100)).tokens_at_most == len(body) // 4


@pytest.mark.anyio
async def test_an_expired_key_is_401() -> None:
    async with one_slot() as (stack, _):
        past = datetime.now(UTC) - timedelta(seconds=1)
        stack.keys.replace({hash_secret(KEY): key_info("k", Scope.INFER, expires_at=past)})
        async with stack.post() as response:
            assert response.status == 401
            assert "expired" in await response.text()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Registry:
    return Registry(url_in(tmp_path), now=clock)


def test_a_rotated_key_has_a_successor_like_it_and_ends_after_the_overlap(registry: Registry, clock: Clock) -> None:
    terms = KeyTerms(requests_per_minute=5, max_concurrent=2)
    old, old_secret = registry.create_key("web", [Scope.INFER, Scope.APPROVE], terms)
    before = clock()
    new, secret = registry.rotate_key(old.id, timedelta(hours=2))
    ring = KeyRing(registry.key_index())
    assert ring.find(secret.get_secret_value().encode()) == new
    assert (new.name, new.scopes, new.requests_per_minute, new.max_concurrent, new.expires_at) == ("web", old.scopes, 5, 2, None)
    found = ring.find(old_secret.get_secret_value().encode())
    assert found is not None
    assert found.expires_at is not None
    assert timedelta(hours=2) <= found.expires_at - before < timedelta(hours=2, minutes=1)
    assert new.id != old.id


def test_rotation_never_lengthens_a_life(registry: Registry, clock: Clock) -> None:
    end = clock() + timedelta(hours=1)
    old, _ = registry.create_key("web", [], KeyTerms(expires_at=end))
    registry.rotate_key(old.id, timedelta(days=9))
    keys = registry.keys()
    assert {key.expires_at for key in keys} == {end}


def test_a_key_that_opens_nothing_is_not_rotated(registry: Registry) -> None:
    old, _ = registry.create_key("web", [])
    registry.revoke_key(old.id)
    for key_id in (old.id, "key-9"):
        with pytest.raises(UnknownKey, match=key_id):
            registry.rotate_key(key_id, timedelta(0))
