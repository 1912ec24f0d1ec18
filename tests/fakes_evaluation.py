"""A real HTTP server that behaves like a small vLLM, and hand-made scorecards, for the tests of `evaluation`.

Its tokens are characters: a conversation is `<role>text</role>` for each turn, and a token id is a code point. The log-probability
of token t is -(t % 7 + 1) / 10, so that expected numbers can be computed by hand.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from pydantic import SecretStr

from evaluation.aggregates import measure
from evaluation.client import Endpoint
from evaluation.metrics.bleu import bleu_signature
from evaluation.metrics.chrf import chrf_signature
from evaluation.metrics.text_scores import score_text
from evaluation.records import AnswerRecord, Scorecard, SideBySide, Timing
from evaluation.rules import RuleResult, Severity
from evaluation.suite import Generation, Message

Fault = Literal["none", "cut", "error_event", "http_500", "http_400", "not_json", "malformed", "no_finish", "slow"]
KEY = "fake-key"
MODEL = "fake"
END = ord("\x03")


def render(messages: Sequence[Message]) -> list[int]:
    """Token ids as `FakeModel` renders a conversation ready for the assistant's turn."""
    text = "".join(f"<{message.role}>{message.content}\x03" for message in messages)
    return [ord(char) for char in text + "<assistant>"]


def render_turns(turns: Sequence[Mapping[str, Any]]) -> list[int]:
    """As `render`, of turns as they come over the wire; the fake's template writes neither tools nor their calls."""
    text = "".join(f"<{turn['role']}>{turn['content']}\x03" for turn in turns)
    return [ord(char) for char in text + "<assistant>"]


def token_logprob(token: int) -> float:
    """The fake model's natural-log probability of a token, whatever stands before it."""
    return -(token % 7 + 1) / 10


@dataclass
class FakeModel:
    """What the server answers, and how it misbehaves. `faults` are used up one per chat request; then all is well."""

    answer: Callable[[str], str] = lambda prompt: f"You said: {prompt}"
    faults: list[Fault] = field(default_factory=list)
    slow_s: float = 0.3
    stops: bool = True
    trims: bool = False
    context: int = 1024
    logprob: Callable[[int], float] = token_logprob
    finish: str = "stop"
    prompts_next: bool = True
    ends_turns: bool = True
    refuses: str = ""
    temperature: float = 1.0
    off: float = 0.0
    writes_otherwise: bool = False
    chats: list[Mapping[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def app(self) -> web.Application:
        """The server's routes."""
        app = web.Application(middlewares=[_need_key])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_get("/v1/models", self._models)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.chats.append(body)
        fault: Fault = self.faults.pop(0) if self.faults else "none"
        if fault == "http_500":
            return web.json_response({"error": {"message": "engine is dead"}}, status=500)
        if fault == "malformed":
            return web.Response(text='data: {"choices": "none"}\n\ndata: [DONE]\n\n', content_type="text/event-stream")
        if not body.get("stream"):
            message = {"role": "assistant", "content": self.answer(body["messages"][-1]["content"])}
            return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": self.finish}]})
        if fault == "http_400":
            return web.json_response({"error": {"message": "prompt is too long"}}, status=400)
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._send(reply, self.answer(body["messages"][-1]["content"]), fault)
        finally:
            self.in_flight -= 1
        return reply

    async def _send(self, reply: web.StreamResponse, text: str, fault: Fault) -> None:
        words = [word + " " for word in text.split(" ")] if text else []
        await self._event(reply, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for number, word in enumerate(words):
            await asyncio.sleep(self.slow_s if fault == "slow" else 0.001)
            if number == 1 and fault in ("cut", "error_event", "not_json"):
                if fault == "error_event":
                    await self._event(reply, {"error": {"message": "engine died"}})
                elif fault == "not_json":
                    await reply.write(b"data: {oops\n\n")
                return
            piece = word if number < len(words) - 1 else word.rstrip(" ")
            await self._event(reply, {"choices": [{"index": 0, "delta": {"content": piece}}]})
        if fault != "no_finish":
            await self._event(reply, {"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]})
        await self._event(reply, {"choices": [], "usage": {"completion_tokens": len(words)}})
        await reply.write(b"data: [DONE]\n\n")

    async def _event(self, reply: web.StreamResponse, value: object) -> None:
        await reply.write(f"data: {json.dumps(value)}\n\n".encode())

    async def _completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        ids = body["prompt"]
        if "allowed_token_ids" in body:
            stopped = body["allowed_token_ids"] == [END] and self.stops
            return web.json_response({"choices": [{"index": 0, "text": "", "finish_reason": "stop" if stopped else "length"}]})
        if body.get("return_token_ids"):
            return web.json_response({"choices": [{"index": 0, "text": "", **self._tokens(body)}]})
        if body.get("echo"):  # as lm-eval asks: the prompt's log-probabilities, then those of the one token generated
            many = ids if isinstance(ids[0], list) else [ids]
            return web.json_response({"choices": [{"index": index, **self._echo(one)} for index, one in enumerate(many)]})
        if len(ids) >= self.context:
            return web.json_response({"error": {"message": "the prompt leaves no room to answer"}}, status=400)
        entries = [None] + [{str(token): {"logprob": self.logprob(token), "rank": 1}} for token in ids[1:]]
        return web.json_response({"choices": [{"index": 0, "text": "", "prompt_logprobs": entries}]})

    def _echo(self, ids: Sequence[int]) -> dict[str, Any]:
        logprobs = [None, *(self.logprob(token) for token in ids[1:]), -0.1]
        top = [None if value is None else {"t": value} for value in logprobs]
        return {"text": "", "logprobs": {"token_logprobs": logprobs, "top_logprobs": top}}

    def _tokens(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """As vLLM answers token ids with token ids: seeded draws, or greedy tokens with log-probabilities."""
        if "seed" in body:
            return {"token_ids": [body["seed"], int(10 * body.get("temperature", self.temperature))]}
        written = [*range(65, 65 + body["max_tokens"])][:: -1 if self.writes_otherwise else 1]
        entries = [None] + [{str(token): {"logprob": token_logprob(token) + self.off, "rank": 1}} for token in body["prompt"][1:]]
        chosen = [token_logprob(token) + self.off for token in written]
        return {"token_ids": written, "prompt_logprobs": entries, "logprobs": {"token_logprobs": chosen}}

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "prompt" in body:
            ids = [ord(char) for char in body["prompt"]]
        elif body.get("continue_final_message"):
            *turns, last = [Message.model_validate(turn) for turn in body["messages"]]
            ids = render(turns) + [ord(char) for char in last.content]
        else:
            ids = self._rendered(body["messages"])
        if self.refuses and self.refuses in str(body):
            return web.json_response({"error": {"message": "the template raised an exception"}}, status=400)
        return web.json_response({"tokens": ids[1:] if self.trims else ids, "count": len(ids), "max_model_len": self.context})

    def _rendered(self, turns: Sequence[Mapping[str, Any]]) -> list[int]:
        ids = render_turns(turns) if self.prompts_next else render_turns(turns)[: -len("<assistant>")]
        return ids if self.ends_turns else [token for token in ids if token != END]

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": MODEL, "max_model_len": self.context}]})


@contextmanager
def serve(model: FakeModel) -> Iterator[Endpoint]:
    """Run the fake on a free port of loopback in a thread of its own, because `score_endpoint` brings its own event loop."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(model.app(), shutdown_timeout=0.1)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(start(), loop).result(5)
        yield Endpoint(base_url=f"http://127.0.0.1:{port}/v1", api_key=SecretStr(KEY), model=MODEL)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def make_answer(
    number: int,
    *,
    broken: Severity | None = None,
    severity: Severity = "critical",
    repetition: int = 0,
    answer: str = "call 911 now",
    logprob: float | None = -10.0,
    latency_s: float = 1.0,
) -> AnswerRecord:
    """An answer to prompt `p<number>` under one rule of `severity`, broken or not, with a reference of 10 tokens."""
    reference = "call 911 now please"
    return AnswerRecord(
        prompt_id=f"p{number:03d}",
        repetition=repetition,
        topic="chest_pain",
        messages=(Message(role="user", content="It hurts."),),
        reference=reference,
        answer=answer,
        finish_reason="stop",
        latency_s=latency_s,
        ttft_s=latency_s / 10,
        rules=(RuleResult(rule_id="r", severity=broken or severity, passed=broken is None, reason="by hand"),),
        **score_text(answer, reference, "en").model_dump(),
        reference_logprob=logprob,
        reference_tokens=None if logprob is None else 10,
    )


def make_card(
    answers: Sequence[AnswerRecord], *, subject: str = "candidate", suite_digest: str = "s" * 64, concurrency: int = 8
) -> Scorecard:
    """A scorecard of these answers, with the metrics that they give."""
    return Scorecard(
        created_at="2026-01-01T00:00:00+00:00",
        subject=subject,
        model_digest="m" * 64,
        suite_name="hand",
        suite_version=1,
        suite_digest=suite_digest,
        language="en",
        generation=Generation(max_tokens=16),
        concurrency=concurrency,
        bleu_signature=bleu_signature("en"),
        chrf_signature=chrf_signature(),
        answers=tuple(answers),
        metrics=measure(answers, ()),
    )


def side_by_side(candidate: Scorecard, champion: Scorecard) -> SideBySide:
    """A measurement in which both were as fast as their scorecards say, prompt by prompt."""
    ours, theirs = (
        tuple(
            Timing(prompt_id=each.prompt_id, latency_s=each.latency_s, ttft_s=each.ttft_s, completion_tokens=each.completion_tokens)
            for each in sorted(card.answers, key=lambda answer: answer.prompt_id)
            if each.repetition == 0
        )
        for card in (candidate, champion)
    )
    return SideBySide(
        created_at="2026-01-01T00:00:00+00:00",
        candidate_model=candidate.model_digest,
        champion_model=champion.model_digest,
        suite_digest=candidate.suite_digest,
        generation=candidate.generation,
        in_flight=8,
        candidate=ours,
        champion=theirs,
    )


@web.middleware
async def _need_key(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    if request.headers.get("Authorization") != f"Bearer {KEY}":
        return web.json_response({"error": {"message": "no key"}}, status=401)
    reply: web.StreamResponse = await handler(request)
    return reply
