"""A tiny engine in a process of its own: vLLM's routes, one word per token, misbehaviour on demand.

    python fakes_engine.py --port PORT --model NAME [--start-delay-s S] [--exit-at-once STATUS] [--deaf-to-sigterm] [--spawn-child]
                           [--dumb] [--token-s S] [--sick MODEL]

Asks for the key in VLLM_API_KEY. `--dumb` answers /health but no completion. `max_tokens` words are streamed, one every `--token-s`.
The engine of MODEL answers completions, and so seems well, but fails every chat.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time

from aiohttp import web


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--start-delay-s", type=float, default=0.0)
    parser.add_argument("--exit-at-once", type=int)
    parser.add_argument("--deaf-to-sigterm", action="store_true")
    parser.add_argument("--spawn-child", action="store_true")
    parser.add_argument("--dumb", action="store_true")
    parser.add_argument("--token-s", type=float, default=0.0)
    parser.add_argument("--sick", metavar="MODEL")
    return parser.parse_args()


class Engine:
    def __init__(self, model: str, token_s: float, dumb: bool, sick: bool) -> None:
        self.model, self.token_s, self.dumb, self.sick = model, token_s, dumb, sick

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            return web.json_response({"error": {"message": "no"}}, status=401)
        asked = await request.json()
        if self.dumb or asked["model"] != self.model:
            return web.json_response({"error": {"message": "unknown model"}}, status=404)
        if self.sick and request.path == "/v1/chat/completions":
            return web.json_response({"error": {"message": "an engine's fault"}}, status=500)
        words = int(asked.get("max_tokens") or 1)
        if asked.get("stream"):
            return await self.stream(request, words)
        await asyncio.sleep(self.token_s * words)
        return web.json_response(self.body(request.path, " ".join(["word"] * words)))

    async def stream(self, request: web.Request, words: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(words):
            await asyncio.sleep(self.token_s)
            await response.write(f"data: {json.dumps(self.body(request.path, 'word '))}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    def body(self, path: str, text: str) -> dict[str, object]:
        said = {"content": text}
        choice = {"index": 0, "text": text} if path == "/v1/completions" else {"index": 0, "message": said, "delta": said}
        return {"id": "fake", "model": self.model, "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


async def health(request: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    given = arguments()
    print("engine of", given.model, flush=True)
    if given.exit_at_once is not None:
        print("no memory left", file=sys.stderr)
        sys.exit(given.exit_at_once)
    if given.spawn_child:
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    time.sleep(given.start_delay_s)
    engine = Engine(given.model, given.token_s, given.dumb, given.sick == given.model)
    app = web.Application()
    app.router.add_get("/health", health)
    for path in ("/v1/completions", "/v1/chat/completions"):
        app.router.add_post(path, engine.answer)

    async def turn_deaf(_: web.Application) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)

    if given.deaf_to_sigterm:
        app.on_startup.append(turn_deaf)
    web.run_app(app, host="127.0.0.1", port=given.port, print=None, handle_signals=not given.deaf_to_sigterm, shutdown_timeout=30.0)


if __name__ == "__main__":
    main()
