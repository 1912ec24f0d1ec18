"""Answers that are kept: masked, bounded, tied to feedback; and shadow copies, which callers never feel."""

import json
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from serving.keeping import Keeper, Kept
from serving.routing import Route, Target
from tests.fakes_gateway import CHAT, KEY, PUBLIC_NAME, TESTER_KEY, Stack, backend_of, becomes, gateway_over, one_slot
from tests.fakes_gateway_slot import Behaviour, FakeSlot

pytestmark = pytest.mark.anyio
SECRETIVE = {"role": "user", "content": "My name is John Smith, call me at +1 212 555 0182."}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def lines_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]


async def kept(folder: Path, count: int) -> list[dict[str, Any]]:
    assert await becomes(lambda: len(lines_in(folder)) >= count, within_s=10)
    return lines_in(folder)


@asynccontextmanager
async def shadowed(tmp_path: Path, behaviour: Behaviour, **changes: Any) -> AsyncIterator[tuple[Stack, FakeSlot, FakeSlot]]:
    async with FakeSlot("clinic-1").running() as slot, FakeSlot("clinic-2", behaviour).running() as shadow:
        targets = (Target(backend_of(slot), 1.0, "champion"),)
        async with gateway_over({PUBLIC_NAME: Route(PUBLIC_NAME, targets, backend_of(shadow))}, home=tmp_path, **changes) as stack:
            yield stack, slot, shadow


async def test_nothing_is_kept_unless_asked_for(tmp_path: Path) -> None:
    async with one_slot(home=tmp_path) as (stack, _):
        async with stack.post() as response:
            assert response.status == 200
        async with stack.post({"request_id": "r", "rating": "up"}, "/v1/feedback") as response:
            assert response.status == 404
    assert list(tmp_path.iterdir()) == []


async def test_what_was_kept_goes_when_it_is_too_old_although_nothing_is_kept_any_more(tmp_path: Path) -> None:
    """The folder's only segment is 31 days old; one of yesterday stays."""
    (tmp_path / "kept").mkdir()
    for days in (31, 1):
        written_s = time.time() - days * 86_400
        segment = tmp_path / "kept" / f"{int(written_s * 1e9):020d}.jsonl"
        segment.write_text('{"kind": "answer", "request_id": "r", "key_id": "k"}\n', encoding="utf-8")
        os.utime(segment, (written_s, written_s))
    async with one_slot(home=tmp_path, capture_ratio=0.0, capture_days=30.0):
        assert await becomes(lambda: list((tmp_path / "kept").iterdir()) == [segment], within_s=10)


async def test_an_answer_that_grows_too_old_while_nobody_asks_is_deleted_in_time(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "kept", max_bytes=1 << 20, max_age_s=2.0)
    keeper.offer(Kept("answer", "r", "k", {"answer": "hello"}))
    assert len(await kept(tmp_path / "kept", 1)) == 1
    assert await becomes(lambda: list((tmp_path / "kept").iterdir()) == [], within_s=10)
    keeper.offer(Kept("answer", "r2", "k", {"answer": "again"}))
    assert [line["request_id"] for line in await kept(tmp_path / "kept", 1)] == ["r2"]
    keeper.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_answer_has_its_prompt_and_release_and_no_personal_data(tmp_path: Path, stream: bool) -> None:
    async with one_slot(home=tmp_path, capture_ratio=1.0) as (stack, _):
        async with stack.post({**CHAT, "messages": [SECRETIVE], "stream": stream}) as response:
            await response.read()
        (line,) = await kept(tmp_path / "kept", 1)
    assert (line["kind"], line["release"], line["request_id"]) == ("answer", "clinic-1", response.headers["x-request-id"])
    assert line["answer"] == ("word0 word1 word2 word3 " if stream else "I am clinic-1")
    assert line["messages"] == [{"role": "user", "content": "My name is [NAME_1], call me at [PHONE_1]."}]
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]
    assert KEY not in files[0].read_text()


async def test_a_broken_answer_is_not_kept(tmp_path: Path) -> None:
    async with one_slot(Behaviour(omit_done=True), home=tmp_path, capture_ratio=1.0) as (stack, slot):
        for _ in range(2):
            async with stack.stream() as response:
                with suppress(aiohttp.ClientPayloadError):
                    await response.read()
            slot.behaviour.omit_done = False
        assert await becomes(lambda: stack.outcomes("clinic-1").get("ok") == 1)
        assert len(await kept(tmp_path / "kept", 1)) == 1


async def test_feedback_is_kept_masked_and_tied_to_its_answer(tmp_path: Path) -> None:
    async with one_slot(home=tmp_path, capture_ratio=1.0) as (stack, _):
        async with stack.post() as response:
            request_id = response.headers["x-request-id"]
        said = {"request_id": request_id, "rating": "down", "comment": "wrong, mail a@b.org", "correction": "Call 911."}
        async with stack.post(said, "/v1/feedback") as response:
            assert response.status == 202
        answer, feedback = await kept(tmp_path / "kept", 2)
    assert answer["request_id"] == feedback["request_id"] == request_id
    assert (feedback["rating"], feedback["comment"], feedback["correction"]) == ("down", "wrong, mail [EMAIL_1]", "Call 911.")


@pytest.mark.parametrize(
    ("said", "status", "param"),
    [
        ({"rating": "up"}, 400, "request_id"),
        ({"request_id": "ID", "rating": "meh"}, 400, "rating"),
        ({"request_id": "ID"}, 400, None),
        ({"request_id": "ID", "comment": "x" * 4001}, 400, "comment"),
        ({"request_id": "ID", "correction": 5}, 400, "correction"),
        ({"request_id": "ID", "rating": "up", "path": "/etc"}, 400, "path"),
        ({"request_id": "req-unknown", "rating": "up"}, 404, "request_id"),
        ([], 400, None),
    ],
)
async def test_feedback_that_cannot_be_kept_is_refused_by_name(tmp_path: Path, said: Any, status: int, param: str | None) -> None:
    async with one_slot(home=tmp_path, capture_ratio=1.0) as (stack, _):
        async with stack.post() as response:
            known = response.headers["x-request-id"]
        body = {name: known if value == "ID" else value for name, value in said.items()} if isinstance(said, dict) else said
        async with stack.post(body, "/v1/feedback") as response:
            assert (response.status, (await response.json())["error"]["param"]) == (status, param)


async def test_nobody_speaks_of_another_keys_answer(tmp_path: Path) -> None:
    async with one_slot(home=tmp_path, capture_ratio=1.0) as (stack, _):
        async with stack.post() as response:
            said = {"request_id": response.headers["x-request-id"], "rating": "up"}
        async with stack.post(said, "/v1/feedback", headers={"Authorization": f"Bearer {TESTER_KEY}"}) as response:
            assert response.status == 404


def record(number: int, text: str = "hello") -> Kept:
    return Kept("answer", f"req-{number}", "key-1", {"answer": text}, {"release": "clinic-1"})


def write_all(keeper: Keeper, *records: Kept) -> None:
    for one in records:
        keeper.offer(one)
    keeper.close()


def test_what_was_kept_is_known_after_a_restart_torn_lines_aside(tmp_path: Path) -> None:
    write_all(Keeper(tmp_path, max_bytes=1 << 20, max_age_s=60), record(1))
    (segment,) = tmp_path.glob("*.jsonl")
    with segment.open("a", encoding="utf-8") as file:
        file.write('{"kind": "answer", "requ')
    again = Keeper(tmp_path, max_bytes=1 << 20, max_age_s=60)
    write_all(again)
    again.start()
    write_all(again, record(2))
    assert (again.key_of("req-1"), again.key_of("req-2"), again.key_of("req-3")) == ("key-1", "key-1", None)


def test_the_disk_used_is_bounded_and_the_newest_stays(tmp_path: Path) -> None:
    """200 records of 2 kB are 400 kB; 100 kB may stay."""
    keeper = Keeper(tmp_path, max_bytes=100_000, max_age_s=3600)
    for number in range(200):
        keeper.offer(record(number, "w " * 1000))
        while keeper._queue.qsize() > 100:
            time.sleep(0.01)
    keeper.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) <= 100_000
    assert lines_in(tmp_path)[-1]["request_id"] == "req-199"


def test_what_is_too_old_goes_at_the_next_start(tmp_path: Path) -> None:
    old = tmp_path / f"{1:020d}.jsonl"
    old.write_text('{"kind": "answer", "request_id": "r", "key_id": "k"}\n')
    os.utime(old, (1, 1))
    keeper = Keeper(tmp_path, max_bytes=1 << 20, max_age_s=3600)
    write_all(keeper, record(1))
    assert not old.exists()
    assert keeper.key_of("r") is None


def test_a_disk_that_cannot_be_written_loses_records_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("not a folder")
    keeper = Keeper(folder, max_bytes=1 << 20, max_age_s=60)
    write_all(keeper, record(1), record(2))
    assert keeper.dropped == 3


async def test_a_shadow_gets_a_copy_and_both_answers_are_kept(tmp_path: Path) -> None:
    async with shadowed(tmp_path, Behaviour()) as (stack, slot, shadow):
        async with stack.post() as response:
            assert response.headers["x-tunegate-release"] == "clinic-1"
            request_id = response.headers["x-request-id"]
        lines = {line["kind"]: line for line in await kept(tmp_path / "kept", 2)}
        assert {kind: line["release"] for kind, line in lines.items()} == {"answer": "clinic-1", "shadow": "clinic-2"}
        assert {line["request_id"] for line in lines.values()} == {request_id}
        assert lines["shadow"]["answer"] == "I am clinic-2"
        assert slot.seen[0].body | {"model": ""} == shadow.seen[0].body | {"model": ""}
        assert stack.outcomes("clinic-2") == {}


@pytest.mark.parametrize(
    "trouble", [Behaviour(think_s=30), Behaviour(die_before_head=True), Behaviour(status=500), Behaviour(stall_after_chunks=1)]
)
async def test_a_shadow_in_trouble_neither_delays_nor_fails_a_caller(tmp_path: Path, trouble: Behaviour) -> None:
    async with shadowed(tmp_path, trouble, max_shadows=3) as (stack, slot, shadow):
        began = time.perf_counter()
        for number in range(10):
            async with stack.post({**CHAT, "stream": number % 2 == 0}) as response:
                assert response.status == 200
                await response.read()
        assert time.perf_counter() - began < 3
        assert shadow.live <= 3
        assert len(slot.seen) == 10
        assert stack.outcomes("clinic-1") == {"ok": 10}
