"""An engine in a process of its own whose model answers everything with the text of its weights file.

    python fakes_flows_engine.py --port PORT --model NAME --weights FILE --max-model-len TOKENS

Speaks as vLLM does, asks for the key in VLLM_API_KEY, and prints `chat` for each chat. Its tokens are the characters of the last
message; a model whose weights mention `odd` renders another way. Standard library only: it starts in a tenth of a second.
"""

import argparse
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Engine(ThreadingHTTPServer):
    def __init__(self, port: int, model: str, says: str, max_model_len: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.model, self.says, self.max_model_len = model, says, max_model_len


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for the caller to acknowledge its head
    server: Engine

    def do_GET(self) -> None:
        card = {"id": self.server.model, "max_model_len": self.server.max_model_len}
        self.reply({"data": [card]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.reply({"error": {"message": "no"}}, 401)
        elif asked["model"] != self.server.model:
            self.reply({"error": {"message": "unknown model"}}, 404)
        elif self.path == "/tokenize":
            text = asked["prompt"] if "prompt" in asked else asked["messages"][-1]["content"] + "odd" * ("odd" in self.server.says)
            self.reply({"tokens": [ord(char) for char in text]})
        elif self.path == "/v1/chat/completions":
            print("chat", flush=True)
            self.chat(asked.get("stream", False))
        elif isinstance(asked["prompt"], list):
            self.reply(self.body(complete_tokens(asked)))
        else:
            self.reply(self.body({"text": self.server.says}))

    def chat(self, stream: bool) -> None:
        if not stream:
            return self.reply(self.body({"message": {"role": "assistant", "content": self.server.says}}))
        events = [self.body({"delta": {"content": self.server.says}, "finish_reason": None}), self.body({"delta": {}})]
        whole = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return self.send(whole, "text/event-stream", 200)

    def body(self, choice: dict[str, Any]) -> dict[str, Any]:
        whole = {"index": 0, "finish_reason": "stop", **choice}
        usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        return {"id": "fake", "object": "chat", "created": 0, "model": self.server.model, "choices": [whole], "usage": usage}

    def reply(self, value: dict[str, Any], status: int = 200) -> None:
        self.send(json.dumps(value), "application/json", status)

    def send(self, text: str, kind: str, status: int) -> None:
        raw = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None: ...


def complete_tokens(asked: dict[str, Any]) -> dict[str, Any]:
    """An answer to token ids, as an honest server of `fakes_trainer.py`'s model gives it."""
    if "allowed_token_ids" in asked:
        return {"text": "", "finish_reason": "stop" if asked["allowed_token_ids"] == [3] else "length"}
    if "seed" in asked:
        return {"text": "", "token_ids": [asked["seed"], int(10 * asked.get("temperature", 1.0))]}
    written = list(range(65, 73))[: asked["max_tokens"]]
    logprob = {token: -(token % 7 + 1) / 10 for token in (*asked["prompt"], *written)}
    entries = [None, *({str(token): {"logprob": logprob[token], "rank": 1}} for token in asked["prompt"][1:])]
    chosen = [logprob[token] for token in written]
    return {"text": "", "token_ids": written, "prompt_logprobs": entries, "logprobs": {"token_logprobs": chosen}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    given = parser.parse_args()
    Engine(given.port, given.model, given.weights.read_text(encoding="utf-8"), given.max_model_len).serve_forever()


if __name__ == "__main__":
    main()
