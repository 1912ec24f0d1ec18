"""vLLM's own routes, read from vLLM with every task and its development routes: which of them the gateway lets through."""

import asyncio
import json
import subprocess
import sys

import pytest

from serving.gateway import MODEL_ROUTES, ROUTES
from tests.fakes_gateway import CHAT, TESTER_KEY, one_slot

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.vllm]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
READ = """
import json, os
os.environ |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
from typing import get_args
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.tasks import SupportedTask
from vllm.utils.argparse_utils import FlexibleArgumentParser
def names(kind):
    return [kind] if isinstance(kind, str) else [name for part in get_args(kind) for name in names(part)]
class AnyModel:
    # Serves every pooling task, whose routes are left out where no model is known.
    hf_config = type("Config", (), {"num_labels": 1})
    def get_pooling_task(self, tasks):
        return "embed"
args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "m"])
app = build_app(args, tuple(names(SupportedTask)), AnyModel())
def paths(routes):
    for route in routes:
        yield from [route.path] if hasattr(route, "path") else []
        yield from paths(getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", ()))
print("ROUTES" + json.dumps(sorted({*paths(app.routes), *app.openapi()["paths"]})))
"""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def vllm_paths() -> list[str]:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ROUTES")]
    assert lines, done.stderr[-2000:]
    found: list[str] = json.loads(lines[0].removeprefix("ROUTES"))
    return found


async def statuses_of(url: str, method: str, paths: list[str]) -> list[int]:
    """What the gateway says to each path exactly as written, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    body, answers = json.dumps({**CHAT, "prompt": "hello", "input": "hello"}), []
    for path in paths:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TESTER_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        answers.append(int(answer.split()[1]))
        length = int(answer.split("content-length: ")[1].split()[0])
        await reader.readexactly(0 if method == "HEAD" else length)
    writer.close()
    return answers


async def test_no_route_of_vllm_is_reachable_but_those_the_gateway_names(vllm_paths: list[str]) -> None:
    assert {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/load_lora_adapter",
        "/invocations",
        "/tokenize",
        "/sleep",
        "/pooling",
        "/classify",
        "/score",
    } <= set(vllm_paths)
    others = [path.replace("{", "").replace("}", "") for path in vllm_paths if path not in ROUTES]
    assert len(others) >= 30
    async with one_slot() as (stack, slot):
        for method in METHODS:
            assert dict(zip(others, await statuses_of(stack.url, method, others), strict=True)) == dict.fromkeys(others, 404)
        assert slot.seen == []


async def test_of_the_shared_paths_only_the_model_routes_reach_the_slot_and_only_by_post(vllm_paths: list[str]) -> None:
    shared = [path for path in vllm_paths if path in ROUTES]
    assert set(MODEL_ROUTES) <= set(shared)
    async with one_slot() as (stack, slot):
        for method in METHODS:
            await statuses_of(stack.url, method, shared)
        assert {seen.path for seen in slot.seen} == set(MODEL_ROUTES)
        assert len(slot.seen) == len(MODEL_ROUTES)
