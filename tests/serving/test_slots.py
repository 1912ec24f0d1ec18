"""Slots over real processes: ready, stopped, drained, orphaned, unlucky."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from serving.engine import EngineCommand
from serving.errors import SlotError
from serving.lifecycle import State
from serving.slot_folder import read_key
from serving.slot_sockets import make_sockets, remove_sockets, sweep_sockets
from serving.slots import SlotProcess, free_port
from tests.fakes_serving import bare_release, fake_engine

ROOT = Path(__file__).parents[2]
RELEASE = bare_release(3, State.LIVE)


def slot_in(folder: Path, *flags: str, start_timeout_s: float = 30.0, exit_grace_s: float = 5.0) -> SlotProcess:
    command = fake_engine(*flags)
    limits = {"start_timeout_s": start_timeout_s, "exit_grace_s": exit_grace_s}
    return SlotProcess(RELEASE.id, folder / "slot", lambda port: command(RELEASE, port), **limits)


def family(slot: SlotProcess) -> list[psutil.Process]:
    leash = psutil.Process(slot.pid)
    return [leash, *leash.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    _, left = psutil.wait_procs(processes, timeout=5)
    return [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


async def run(slot: SlotProcess, story: Callable[[], Awaitable[None]]) -> None:
    try:
        await slot.start()
        await story()
    finally:
        await slot.stop(0)


async def ask(slot: SlotProcess, folder: Path, words: int) -> str:
    key = read_key(folder / "slot")
    assert key is not None
    question = {"model": RELEASE.id, "prompt": "hi", "max_tokens": words, "stream": True}
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    url = f"{slot.base_url}/v1/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=question, headers=headers) as answer:
        return await answer.text()


def test_a_slot_is_ready_when_it_answers_a_completion(tmp_path: Path) -> None:
    slot = slot_in(tmp_path, "--start-delay-s", "0.5")

    async def story() -> None:
        await slot.ready()
        assert (await ask(slot, tmp_path, 2)).count("word") == 2

    asyncio.run(run(slot, story))


def test_health_alone_does_not_make_a_slot_ready(tmp_path: Path) -> None:
    slot = slot_in(tmp_path, "--dumb", start_timeout_s=0.5)

    async def healthy() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{slot.base_url}/health") as health:
                return health.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def story() -> None:
        async with asyncio.timeout(60):
            while not await healthy():
                await asyncio.sleep(0.05)
        with pytest.raises(SlotError, match=r"did not answer within 0\.5 s"):
            await slot.ready()

    asyncio.run(run(slot, story))


def test_an_engine_that_exits_is_reported_with_status_and_the_end_of_its_log(tmp_path: Path) -> None:
    slot = slot_in(tmp_path, "--exit-at-once", "3")

    async def story() -> None:
        with pytest.raises(SlotError) as failed:
            await slot.ready()
        assert "ended with status 3 before its first answer" in str(failed.value)
        assert "engine of clinic-3 | no memory left" in str(failed.value)

    asyncio.run(run(slot, story))


def test_a_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    slot = SlotProcess(RELEASE.id, tmp_path, lambda port: EngineCommand(("/no/such/engine",), {}), start_timeout_s=10)

    async def story() -> None:
        with pytest.raises(SlotError, match="cannot start /no/such/engine"):
            await slot.ready()

    asyncio.run(run(slot, story))


def test_the_key_is_for_this_user_alone_and_in_no_command_line_or_log(tmp_path: Path) -> None:
    slot = slot_in(tmp_path)

    async def story() -> None:
        await slot.ready()
        key = read_key(tmp_path / "slot")
        assert key is not None
        assert stat.S_IMODE((tmp_path / "slot/key").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "slot").stat().st_mode) == 0o700
        command_lines = " ".join(" ".join(process.cmdline()) for process in family(slot))
        assert key.get_secret_value() not in command_lines + (tmp_path / "slot/vllm.log").read_text() + repr(slot.failure("x"))

    asyncio.run(run(slot, story))


def test_the_engine_gets_no_setting_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_REGISTRY_URL", "secret")
    slot = slot_in(tmp_path)

    async def story() -> None:
        await slot.ready()
        engine = family(slot)[1]
        assert "TUNEGATE_REGISTRY_URL" not in engine.environ()
        assert "PATH" in engine.environ()

    asyncio.run(run(slot, story))


def test_stopping_waits_for_the_answer_in_flight(tmp_path: Path) -> None:
    """20 words at 0.1 s are 2 s; the stop comes after about 0.5 s and must not cut the other 15."""
    slot = slot_in(tmp_path, "--token-s", "0.1")

    async def story() -> None:
        await slot.ready()
        answer = asyncio.create_task(ask(slot, tmp_path, 20))
        await asyncio.sleep(0.5)
        await slot.stop(10)
        assert (await answer).count("word") == 20
        assert "[DONE]" in await answer

    asyncio.run(run(slot, story))


def test_an_engine_deaf_to_sigterm_is_killed_after_the_limit(tmp_path: Path) -> None:
    """The limit is drain_s and 0.5 s for the exit itself."""
    slot = slot_in(tmp_path, "--deaf-to-sigterm", "--spawn-child", exit_grace_s=0.5)

    async def story() -> None:
        await slot.ready()
        processes = family(slot)
        assert len(processes) == 3
        began = time.monotonic()
        await slot.stop(0.5)
        assert 1.0 <= time.monotonic() - began < 8
        assert alive(processes) == []

    asyncio.run(run(slot, story))


def test_children_that_the_engine_left_behind_are_swept(tmp_path: Path) -> None:
    slot = slot_in(tmp_path, "--spawn-child")

    async def story() -> None:
        await slot.ready()
        processes = family(slot)
        assert len(processes) == 3
        processes[1].kill()
        await slot.exited()
        await slot.stop(0)
        assert alive(processes) == []

    asyncio.run(run(slot, story))


def test_an_engine_killed_by_a_signal_ends_with_128_and_its_number(tmp_path: Path) -> None:
    slot = slot_in(tmp_path)

    async def story() -> None:
        await slot.ready()
        family(slot)[1].kill()
        assert await slot.exited() == 128 + signal.SIGKILL

    asyncio.run(run(slot, story))


OWNER = """
import asyncio, sys
from pathlib import Path
from tests.serving.test_slots import slot_in

async def main():
    slot = slot_in(Path(sys.argv[1]), "--spawn-child")
    await slot.start()
    await slot.ready()
    print(slot.pid, flush=True)
    await asyncio.sleep(600)

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize(("loop", "victim"), [("asyncio", "owner"), ("uvloop", "owner"), ("uvloop", "leash")])
def test_nothing_of_an_engine_outlives_its_server_or_its_leash(tmp_path: Path, loop: str, victim: str) -> None:
    """When the leash alone is killed, its engine dies with it; the engine's own children are swept by the server."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path), loop], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert owner.stdout is not None
        leash = psutil.Process(int(owner.stdout.readline()))
        processes = [leash, *leash.children(recursive=True)]
        assert len(processes) == 3
        if victim == "owner":
            owner.kill()
            assert alive(processes) == []
        else:
            leash.kill()
            assert alive(processes[:2]) == []
    finally:
        owner.kill()
        owner.wait()
        for process in processes[2:]:
            if victim == "leash" and process.is_running():
                process.kill()


def test_the_sockets_of_an_engine_lie_in_a_short_private_folder_that_ends_with_it(tmp_path: Path) -> None:
    """vLLM adds a slash and a UUID, 37 bytes; a Unix socket's path has at most 107."""
    slot, folders = slot_in(tmp_path), list[Path]()

    async def story() -> None:
        folder = Path(psutil.Process(slot.pid).environ()["VLLM_RPC_BASE_PATH"])
        folders.append(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(os.fsencode(folder)) + 37 <= 107
        (folder / "0f8fad5b-d9cb-469f-a165-70867728950e").touch()

    asyncio.run(run(slot, story))
    assert [folder.exists() for folder in folders] == [False]


def test_sockets_that_a_killed_server_left_are_swept_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    left, precious = make_sockets(tmp_path / "one"), tmp_path / "precious"
    (left / "socket").touch()
    precious.mkdir()
    (tmp_path / "other" / "sockets").symlink_to(precious)
    sweep_sockets(tmp_path)
    assert (left.exists(), precious.exists()) == (False, True)


def test_a_temporary_folder_with_a_long_name_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = make_sockets(tmp_path)
    remove_sockets(tmp_path)
    assert made.parent != long
    assert not made.exists()


def test_free_ports_are_free_and_outside_the_range_of_outgoing_connections() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < free_port() < first_outgoing for _ in range(20))


def test_a_big_log_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "slot").mkdir()
    with (tmp_path / "slot/vllm.log").open("wb") as log:
        log.truncate((16 << 20) + 1)
    slot = slot_in(tmp_path)

    async def story() -> None:
        await slot.ready()
        assert (tmp_path / "slot/vllm.log").stat().st_size < 1000
        assert (tmp_path / "slot/vllm.log.1").exists()

    asyncio.run(run(slot, story))
