"""Who gets in, where to, and what they are told when they do not."""

import asyncio
import json
import socket

import aiohttp
import pytest

from tests.fakes_gateway import APPROVER_KEY, CHAT, KEY, PUBLIC_NAME, SLOT_KEY, Stack, backend_of, becomes, gateway_over, one_slot
from tests.fakes_gateway_slot import FakeSlot

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


async def error_of(response: aiohttp.ClientResponse) -> dict[str, object]:
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    error: dict[str, object] = body["error"]
    return error


async def test_an_answer_passes_unchanged_and_names_its_release() -> None:
    async with one_slot() as (stack, _), stack.post() as response:
        assert response.status == 200
        assert response.headers["x-tunegate-release"] == "clinic-1"
        assert (await response.json())["choices"][0]["message"]["content"] == "I am clinic-1"


async def test_the_public_name_becomes_the_release_id_upstream() -> None:
    async with one_slot() as (stack, slot):
        async with stack.post():
            pass
        assert slot.seen[0].body["model"] == "clinic-1"


async def test_the_slots_key_goes_upstream_and_the_callers_does_not() -> None:
    async with one_slot() as (stack, slot):
        hop = {"Connection": "keep-alive, x-secret", "TE": "trailers"}
        headers = {"Authorization": f"Bearer {KEY}", "Cookie": "a=b", "X-Secret": "s", **hop}
        async with stack.post(headers=headers):
            pass
        sent = {name.lower(): value for name, value in slot.seen[0].headers.items()}
        assert sent["authorization"] == f"Bearer {SLOT_KEY}"
        assert set(sent) <= {"authorization", "content-type", "content-length", "x-request-id", "host", "accept"}


async def test_engine_control_fields_are_dropped_and_sampling_fields_kept() -> None:
    async with one_slot() as (stack, slot):
        dropped = {
            "chat_template": "{{ 1 }}",
            "chat_template_kwargs": {"a": 1},
            "priority": 1,
            "kv_transfer_params": {},
            "use_beam_search": True,
        }
        async with stack.post({**CHAT, **dropped, "top_k": 5, "temperature": 0.1}):
            pass
        assert set(slot.seen[0].body) == {"model", "messages", "top_k", "temperature"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic " + KEY},
        {"Authorization": KEY},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer " + "k" * 8000},
        [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")],
    ],
    ids=["none", "wrong", "other scheme", "no scheme", "empty", "huge", "two"],
)
async def test_without_exactly_one_good_key_it_is_401_and_no_slot_is_asked(headers: object) -> None:
    async with one_slot() as (stack, slot):
        async with stack.post(headers=headers) as response:
            assert response.status == 401
            assert (await error_of(response))["code"] == "invalid_api_key"
        assert slot.seen == []


async def test_a_key_in_the_query_does_not_count() -> None:
    async with one_slot() as (stack, _), stack.post(path=f"/v1/chat/completions?api_key={KEY}", headers={}) as response:
        assert response.status == 401


async def test_a_key_without_the_scope_is_403() -> None:
    async with one_slot() as (stack, _), stack.post(headers={"Authorization": f"Bearer {APPROVER_KEY}"}) as response:
        assert response.status == 403
        assert (await error_of(response))["type"] == "permission_error"


async def test_a_revoked_key_stops_working_at_the_next_swap_of_the_ring() -> None:
    async with one_slot() as (stack, _):
        stack.keys.replace({})
        async with stack.post() as response:
            assert response.status == 401


VLLM_ROUTES = [
    "/invocations", "/tokenize", "/detokenize", "/pause", "/resume", "/update_weights", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
    "/v1/responses", "/v1/chat/completions/render", "/v2/rerank", "/ping", "/version", "/docs", "/",
    "/sleep", "/wake_up", "/v1/chat/completions/", "//v1/chat/completions", "/V1/chat/completions", "/v1/../invocations",
    "/v1/%63hat/completions", "/v1/chat%2Fcompletions", "/%2e%2e/v1/chat/completions",
]  # fmt: skip


async def test_any_path_outside_the_list_is_404_and_reaches_nobody() -> None:
    async with one_slot() as (stack, slot):
        for path in VLLM_ROUTES:
            status, head = await raw_request(stack, f"POST {path} HTTP/1.1", json.dumps(CHAT))
            assert (path, status) == (path, 404)
            assert "x-request-id" in head
        assert slot.seen == []
        assert stack.outcomes("none", "other") == {"rejected": len(VLLM_ROUTES)}


async def raw_request(stack: Stack, request_line: str, body: str = "") -> tuple[int, str]:
    """A request exactly as written: HTTP clients tidy paths up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(stack.url.rsplit(":", 1)[1]))
    head = f"{request_line}\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write((head + body).encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer.split("\r\n\r\n")[0].lower()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "post"),
        ("OPTIONS", "/v1/completions", "post"),
        ("POST", "/v1/models", "get"),
        ("DELETE", "/health", "get"),
    ],
)
async def test_a_known_path_with_another_method_is_405(method: str, path: str, allowed: str) -> None:
    async with one_slot() as (stack, _):
        status, head = await raw_request(stack, f"{method} {path} HTTP/1.1")
        assert status == 405
        assert f"allow: {allowed}" in head


async def test_a_websocket_is_refused() -> None:
    async with one_slot() as (stack, _):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await stack.client.ws_connect(stack.url + "/v1/chat/completions")


async def test_models_lists_the_public_names() -> None:
    async with one_slot() as (stack, _), stack.client.get(stack.url + "/v1/models", headers={"Authorization": f"Bearer {KEY}"}) as response:
        assert [model["id"] for model in (await response.json())["data"]] == [PUBLIC_NAME]


async def test_an_unknown_model_is_404_in_openais_words() -> None:
    async with one_slot() as (stack, _), stack.post({**CHAT, "model": "clinic-1"}) as response:
        assert response.status == 404
        error = await error_of(response)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_a_name_whose_champion_is_not_ready_is_503_with_retry_after() -> None:
    async with gateway_over({PUBLIC_NAME: None}, queue_timeout_s=0) as stack, stack.post() as response:
        assert response.status == 503
        assert int(response.headers["retry-after"]) >= 1
        assert (await error_of(response))["code"] == "model_not_ready"


@pytest.mark.parametrize(("routes", "status"), [({}, 503), ({PUBLIC_NAME: None}, 503)])
async def test_health_is_503_while_nothing_is_ready(routes: dict[str, None], status: int) -> None:
    async with gateway_over(routes) as stack, stack.client.get(stack.url + "/health") as response:
        assert response.status == status


async def test_health_is_200_when_every_name_has_a_ready_release() -> None:
    async with one_slot() as (stack, _), stack.client.get(stack.url + "/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok", "ready": {PUBLIC_NAME: True}})


async def test_metrics_are_served_to_callers_on_this_machine() -> None:
    async with one_slot() as (stack, _):
        async with stack.post():
            pass
        async with stack.client.get(stack.url + "/metrics") as response:
            assert 'tunegate_requests_total{outcome="ok",release="clinic-1",route="chat_completions"} 1.0' in await response.text()


async def test_metrics_are_not_there_for_callers_from_elsewhere() -> None:
    """A proxy on this machine speaks for callers elsewhere, and says so."""
    async with one_slot() as (stack, _), stack.client.get(stack.url + "/metrics", headers={"X-Forwarded-For": "203.0.113.9"}) as response:
        assert response.status == 404


async def test_a_body_over_the_cap_is_413_whether_declared_or_not() -> None:
    async def pieces() -> object:
        for _ in range(64):
            yield b"x" * 1024

    async with one_slot(max_body_bytes=2048) as (stack, slot):
        async with stack.post(data=b"x" * 4096) as response:
            assert response.status == 413
            assert (await error_of(response))["code"] == "request_too_large"
        async with stack.post(data=pieces()) as response:
            assert response.status == 413
        assert slot.seen == []


async def test_a_body_that_trickles_is_cut_off_while_others_are_served() -> None:
    async with one_slot(body_timeout_s=0.3) as (stack, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(stack.url.rsplit(":", 1)[1]))
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        async with stack.post() as response:
            assert response.status == 200
        assert b" 408 " in await reader.readline()
        writer.close()


async def test_over_the_cap_of_requests_in_flight_it_is_429_with_retry_after_and_then_fine_again() -> None:
    async with one_slot(max_in_flight=2, max_queue=0) as (stack, slot):
        slot.behaviour.think_s = 0.3
        responses = await asyncio.gather(*(stack.post() for _ in range(5)))
        statuses = sorted(response.status for response in responses)
        assert statuses == [200, 200, 429, 429, 429]
        refused = next(response for response in responses if response.status == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert (await error_of(refused))["type"] == "rate_limit_error"
        assert stack.outcomes("none") == {"rejected": 3}
        async with stack.post() as response:
            assert response.status == 200


async def test_the_key_is_never_repeated_in_an_error() -> None:
    async with one_slot() as (stack, _), stack.post(headers={"Authorization": "Bearer very-secret-thing"}) as response:
        assert "very-secret-thing" not in await response.text()


async def test_a_caller_that_hangs_up_before_its_body_is_whole_counts_as_aborted() -> None:
    async with one_slot() as (stack, slot):
        _, writer = await asyncio.open_connection("127.0.0.1", int(stack.url.rsplit(":", 1)[1]))
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.sleep(0.05)
        writer.close()
        assert await becomes(lambda: stack.outcomes("none") == {"aborted": 1})
        assert slot.seen == []


async def test_two_public_names_reach_their_own_releases() -> None:
    async with FakeSlot("clinic-1").running() as one, FakeSlot("zh-4").running() as other:
        routes = {"clinic": backend_of(one), "zh": backend_of(other)}
        async with gateway_over(routes) as stack, stack.post({**CHAT, "model": "zh"}) as response:
            assert response.headers["x-tunegate-release"] == "zh-4"
