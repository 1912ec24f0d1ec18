"""How the report's page behaves with many rows, in a real browser: made, loaded, filtered, searched, unfolded.

    python tests/benchmarks/report_page.py [--rows 2000] [--chromium chromium]

Needs Chromium; starts it headless on loopback with a profile of its own. Times are of this machine; compare rows of one run.
"""

import argparse
import asyncio
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from evaluation.config import GateSection
from evaluation.evidence import Span
from evaluation.gate import decide
from evaluation.records import AnswerRecord, Scorecard
from evaluation.report import write_report
from evaluation.report_provenance import Evidence
from evaluation.rules import SEVERITIES, RuleResult
from tests.fakes_evaluation import make_answer, make_card

_WORDS = ["the", "child", "has", "fever", "and", "should", "drink", "water", "rest", "at", "home", "call", "doctor", "if", "it", "worsens"]
_FRAMES = "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
_ACTIONS = {
    "search a rare word": "document.getElementById('search').value = 'needle77'; search.dispatchEvent(new Event('input'))",
    "search a common word": "document.getElementById('search').value = 'fever'; search.dispatchEvent(new Event('input'))",
    "clear the search": "document.getElementById('search').value = ''; search.dispatchEvent(new Event('input'))",
    "newly broken only": "document.querySelector('button[data-change=broken]').click()",
    "all again": "document.querySelector('button[data-change=broken]').click()",
    "one topic": "const one = document.querySelector('select[name=topic]'); one.value = 'topic3'; one.dispatchEvent(new Event('change'))",
    "any topic": "const any = document.querySelector('select[name=topic]'); any.value = ''; any.dispatchEvent(new Event('change'))",
    "scroll to the end": "window.scrollTo(0, document.body.scrollHeight)",
    "open all": "document.getElementById('unfold').click()",
}


def synthetic(rows: int, subject: str, broken: float, seed: int) -> Scorecard:
    """A scorecard of answers of 40 to 160 words, some of which break a rule with evidence."""
    draw = random.Random(seed)
    return make_card([_answer(number, broken, draw) for number in range(rows)], subject=subject)


def _answer(number: int, broken: float, draw: random.Random) -> AnswerRecord:
    text = " ".join(draw.choices(_WORDS, k=draw.randint(40, 160)))
    fails = draw.random() < broken
    span = Span(start=4, end=13, text=text[4:13], phrase="child", role="forbidden" if fails else "meant")
    severity = SEVERITIES[number % 3]
    rule = RuleResult(rule_id=f"rule-{number % 40}", severity=severity, passed=not fails, reason="says what it must not", evidence=(span,))
    question = " ".join(draw.choices(_WORDS, k=14)) + f" needle{number}?"
    made = make_answer(number, answer=text, latency_s=draw.lognormvariate(0, 0.5))
    message = made.messages[0].model_copy(update={"content": question})
    return made.model_copy(update={"topic": f"topic{number % 25}", "rules": (rule,), "messages": (message,)})


async def _measure(chromium: str, page: Path) -> list[tuple[str, float]]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        browser = subprocess.Popen([*command, "--window-size=1400,1000", "about:blank"], stderr=subprocess.DEVNULL)
        try:
            return await _drive(await _socket_of(Path(profile) / "DevToolsActivePort"), page)
        finally:
            browser.terminate()
            browser.wait(20)


async def _socket_of(port_file: Path) -> str:
    """The debugging address of the browser's one page, once both are there."""
    deadline = time.monotonic() + 60
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            if port_file.exists() and (lines := port_file.read_text().split()):
                async with session.get(f"http://127.0.0.1:{lines[0]}/json") as reply:
                    pages = [each for each in await reply.json() if each["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
            await asyncio.sleep(0.1)
    raise TimeoutError("the browser did not come up")


async def _drive(address: str, page: Path) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        number = 0

        async def call(method: str, **params: Any) -> Any:
            nonlocal number
            number += 1
            await socket.send_json({"id": number, "method": method, "params": params})
            while True:
                reply = json.loads((await socket.receive()).data)
                if reply.get("id") == number:
                    return reply["result"]

        async def run(script: str) -> Any:
            wrapped = f"(async () => {{ {script} }})()"
            reply = await call("Runtime.evaluate", expression=wrapped, awaitPromise=True, returnByValue=True)
            if "exceptionDetails" in reply:
                raise RuntimeError(json.dumps(reply["exceptionDetails"])[:500])
            return reply["result"].get("value")

        began = time.perf_counter()
        await call("Page.navigate", url=page.as_uri())
        while await run("return document.readyState === 'complete' && !!document.getElementById('count')?.textContent") is not True:
            await asyncio.sleep(0.02)
        await run(_FRAMES)
        found.append(("load, until it can be used", 1000 * (time.perf_counter() - began)))
        rows = await run("return document.querySelectorAll('#answers details').length")
        print(f"{rows} rows, {await run('return document.querySelectorAll(`*`).length')} elements")
        for name, action in _ACTIONS.items():
            took = await run(f"const began = performance.now(); {action}; {_FRAMES}; return performance.now() - began")
            shown = await run("return document.getElementById('count').textContent")
            found.append((f"{name} ({shown})", took))
    return found


def main() -> None:
    """Make a page of synthetic answers and print what each action took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--chromium", default="chromium")
    options = parser.parse_args()
    candidate, champion = synthetic(options.rows, "clinic-2", 0.1, 1), synthetic(options.rows, "clinic-1", 0.2, 2)
    policy = GateSection()
    with tempfile.TemporaryDirectory() as folder:
        page, began = Path(folder) / "report.html", time.perf_counter()
        write_report(page, Evidence(candidate, champion, decide(candidate, champion, policy), policy))
        print(f"written in {time.perf_counter() - began:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
        for name, took_ms in asyncio.run(_measure(options.chromium, page)):
            print(f"{name:<60} {took_ms:8.0f} ms")


if __name__ == "__main__":
    main()
