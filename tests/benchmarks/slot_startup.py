"""Where the time goes until an engine has answered: vLLM as it comes, and vLLM as a slot starts it, one after the other.

    python -m tests.benchmarks.slot_startup MODEL_FOLDER [--only ours|stock] [--rounds 1]

The stages are told by what vLLM writes to its log, at the moment it comes. "first answer" is a chat of 16 tokens asked as soon as the
server takes it, "second" the same again. Both ways serve the same model in bfloat16 with 1024 tokens, on this machine's processors.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.config import ServingSection
from serving.engine import engine_command
from serving.slots import free_port

NAME, KEY, PATIENCE_S = "startup-1", "benchmark-key", 540.0
# Stage -> what the log says at its end.
MARKS = {
    "program imported": "non-default args",
    "engine configured": "Initializing a V1 LLM engine",
    "model made": "Loading safetensors checkpoint shards:   0%",
    "weights loaded": "Loading weights took",
    "cache and warm-up": "init engine (",
    "server open": "Application startup complete",
}


@dataclass
class Start:
    """One start: seconds from the beginning of the process to the end of each stage."""

    way: str
    at_s: dict[str, float] = field(default_factory=dict)


def start(way: str, argv: tuple[str, ...], env: Mapping[str, str], port: int) -> Start:
    """Run it until it has answered twice, then stop it."""
    found = Start(way)
    began = time.monotonic()
    sockets = tempfile.mkdtemp(prefix="startup-")
    process = subprocess.Popen(
        argv,
        env={**os.environ, **env, "VLLM_API_KEY": KEY, "VLLM_RPC_BASE_PATH": sockets},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    reading = threading.Thread(target=_read, args=(process, found, began), daemon=True)
    reading.start()
    try:
        while not _answered(port):
            assert process.poll() is None, f"{way} ended with status {process.returncode}"
            assert time.monotonic() - began < PATIENCE_S, f"{way} took longer than {PATIENCE_S:g} s"
            time.sleep(0.05)
        found.at_s["first answer"] = time.monotonic() - began
        assert _answered(port)
        found.at_s["second answer"] = time.monotonic() - began
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reading.join()
        shutil.rmtree(sockets)
    return found


def _read(process: subprocess.Popen[str], found: Start, began: float) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        for stage, mark in MARKS.items():
            if mark in line:
                found.at_s.setdefault(stage, time.monotonic() - began)


def _answered(port: int) -> bool:
    body = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16, "ignore_eos": True, "temperature": 0}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return bool(json.load(answer)["choices"])
    except (urllib.error.URLError, ConnectionError):
        return False


def stock(model: Path, port: int) -> tuple[tuple[str, ...], dict[str, str]]:
    """`vllm serve MODEL`, with an address, a name and the same context."""
    program = str(Path(sys.executable).with_name("vllm"))
    name = ("--served-model-name", NAME, "--dtype", "bfloat16", "--max-model-len", "1024")
    return (program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), *name), {"HF_HUB_OFFLINE": "1"}


def ours(model: Path, port: int) -> tuple[tuple[str, ...], dict[str, str]]:
    """What a slot runs."""
    command = engine_command(model, NAME, port, ServingSection(public_name="startup", max_model_len=1024))
    return command.argv, dict(command.env)


def report(starts: list[Start]) -> None:
    """Seconds that each stage took, and in all."""
    stages = [*MARKS, "first answer", "second answer"]
    print(f"{'seconds':20}" + "".join(f"{each.way:>12}" for each in starts))
    rows: dict[str, list[str]] = {stage: [] for stage in stages}
    for each in starts:
        before = 0.0
        for stage in stages:
            at = each.at_s.get(stage)
            rows[stage].append("–" if at is None else f"{max(0.0, at - before):.1f}")
            before = before if at is None else max(before, at)
    for stage, cells in rows.items():
        print(f"{stage:20}" + "".join(f"{cell:>12}" for cell in cells))
    print(f"{'to first answer':20}" + "".join(f"{each.at_s['first answer']:>12.1f}" for each in starts))


def main() -> None:
    """Start each way in turn, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", choices=("ours", "stock"))
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    ways = {"stock": stock, "ours": ours}
    starts = []
    for _ in range(given.rounds):
        for name, make in ways.items():
            if given.only in (None, name):
                port = free_port()
                starts.append(start(name, *make(given.model, port), port))
                print(f"{name}: first answer after {starts[-1].at_s['first answer']:.1f} s", flush=True)
    report(starts)


if __name__ == "__main__":
    main()
