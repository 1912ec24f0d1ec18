"""The OpenAPI document and the gateway agree: schemathesis reads the one and probes the other."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.approval_terms import ApprovalTerms
from serving.approvals import Asked
from serving.gateway import ROUTES
from serving.registry import Registry
from tests.fakes_gateway import PUBLIC_NAME, TESTER_KEY, Stack, backend_of, gateway_over
from tests.fakes_gateway_slot import FakeSlot
from tests.fakes_serving import EVIDENCE, candidate, url_in

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.anyio
ADMIN = {"/admin/releases": "get", "/admin/releases/{release_id}/approve": "post", "/admin/releases/{release_id}/reject": "post"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@asynccontextmanager
async def everything_served(folder: Path) -> AsyncIterator[tuple[Stack, str]]:
    """The gateway with every route it can have, and a release that waits for two signatures."""
    with Registry(url_in(folder)) as registry:
        release = candidate(registry)
        registry.submit(release.id, EVIDENCE, None, "gate", Asked(ApprovalTerms(approvers=2, requester_may_approve=False)))
        async with (
            FakeSlot("clinic-1").running() as slot,
            gateway_over({PUBLIC_NAME: backend_of(slot)}, registry=registry, home=folder, capture_ratio=1.0) as stack,
        ):
            yield stack, release.id


async def schemathesis(stack: Stack, release: str, folder: Path) -> dict[str, Any]:
    """What it reports. The seed makes two runs ask the same."""
    report = folder / "report.json"
    options = ["--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "6", "--seed", "1", "--no-shrink"]
    patient = ["--suppress-health-check", "all", "--request-timeout", "60"]  # a busy machine is no finding
    known = {"PROBED_MODEL": PUBLIC_NAME, "PROBED_RELEASE": release, "PROBED_EVIDENCE": EVIDENCE}
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "schemathesis", "run", f"{stack.url}/openapi.json", *options, *patient, "--no-color",
        "--header", f"Authorization: Bearer {TESTER_KEY}", "--report", "json", "--report-json-path", report,
        cwd=folder, env={**os.environ, **known, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.schemathesis_values"},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
async def test_schemathesis_finds_nothing_on_any_route(tmp_path: Path) -> None:
    """Its check `ignored_auth` asks each operation again without a key and with a wrong one."""
    async with everything_served(tmp_path) as (stack, release):
        found = await schemathesis(stack, release, tmp_path)
    # All of ROUTES but the document itself, and feedback besides.
    assert (found["failures"], found["errors"], found["operations"]["tested"]) == ([], [], len(ROUTES) + len(ADMIN))
    assert found["test_cases"]["generated"] > 500
    answered = {name: sum(phase["accepted"] for phase in phases.values()) for name, phases in found["valid_rates"].items()}
    assert len(answered) == len(ROUTES) + len(ADMIN)
    assert min(answered.values()) >= 1


async def test_the_document_names_each_route_with_its_method_and_no_other(tmp_path: Path) -> None:
    served = {path: methods[0].decode().lower() for path, methods in ROUTES.items()} | {"/v1/feedback": "post"} | ADMIN
    async with everything_served(tmp_path) as (stack, _), stack.client.get(stack.url + "/openapi.json") as response:
        paths = (await response.json())["paths"]
    assert {path: list(operations) for path, operations in paths.items()} == {path: [method] for path, method in served.items()}


async def test_what_is_not_served_is_not_in_the_document(tmp_path: Path) -> None:
    async with gateway_over({}, home=tmp_path) as stack, stack.client.get(stack.url + "/openapi.json") as response:
        assert "/v1/feedback" not in (await response.json())["paths"]
