"""What a caller may send to a model: an allow-list of fields, and caps on size, depth, sequences and tokens.

Fields outside the list are dropped, not refused, because clients send more than any engine knows. What steers the engine
rather than the answer (`chat_template`, `priority`, `cache_salt`, `kv_transfer_params`, beam search, …) is outside it:
a chat template in a request is code that vLLM runs. Content parts other than text are refused, because vLLM would
fetch the addresses in them.
Pure functions of bytes. Knows nothing of HTTP, keys or slots. Next: `gateway.py`.
"""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from serving.openai_errors import ApiError, bad_request

# fmt: off
# https://platform.openai.com/docs/api-reference
_OPENAI_BOTH = frozenset({
    "model", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "seed", "stop", "stream",
    "stream_options", "temperature", "top_p", "user",
})
_OPENAI_CHAT = frozenset({
    "messages", "max_completion_tokens", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls",
    "reasoning_effort",
})
_OPENAI_COMPLETIONS = frozenset({"prompt", "echo", "suffix"})
# "Extra parameters" of vLLM's OpenAI-compatible server that shape the sampling and cost no more than the same request without them.
_VLLM_SAMPLING = frozenset({
    "top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "include_stop_str_in_output", "ignore_eos",
    "skip_special_tokens", "spaces_between_special_tokens", "bad_words", "allowed_token_ids", "truncate_prompt_tokens",
})
# fmt: on
CHAT_FIELDS = _OPENAI_BOTH | _OPENAI_CHAT | _VLLM_SAMPLING
COMPLETION_FIELDS = _OPENAI_BOTH | _OPENAI_COMPLETIONS | _VLLM_SAMPLING

_TEXT_PARTS = frozenset({"text", "refusal"})
_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "min_tokens")


@dataclass(frozen=True)
class Caps:
    """The largest request that is passed on."""

    json_depth: int
    sequences: int
    tokens: int


@dataclass(frozen=True)
class ModelRequest:
    """A body that passed: the public name it asks for, and what may go upstream."""

    model: str
    stream: bool
    fields: dict[str, Any]

    def body_for(self, served_name: str) -> bytes:
        """The JSON body with `model` set to the name the slot serves under."""
        return json.dumps({**self.fields, "model": served_name}, separators=(",", ":"), allow_nan=False).encode()


def read_request(body: bytes, allowed: frozenset[str], caps: Caps) -> ModelRequest:
    """Parse, filter and cap a request body.

    Raises:
        ApiError: 400, naming the field.
    """
    given = _parse(body, caps.json_depth)
    fields = {name: value for name, value in given.items() if name in allowed and value is not None}
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("'model' must be the name of a model", param="model", code="missing_model")
    stream = fields.get("stream", False)
    if not isinstance(stream, bool):
        raise bad_request("'stream' must be true or false", param="stream")
    _check_tokens(fields, caps.tokens)
    _check_sequences(fields, caps.sequences)
    _check_messages(fields)
    return ModelRequest(model=model, stream=stream, fields=fields)


def _parse(body: bytes, depth_cap: int) -> dict[str, Any]:
    try:
        given = json.loads(body.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise bad_request(f"the body is not valid JSON: {reason}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    # Every level costs a bracket, so few brackets prove a shallow body without walking it.
    if body.count(b"{") + body.count(b"[") > depth_cap and _deeper_than(given, depth_cap):
        raise bad_request(f"the body is nested more than {depth_cap} levels deep", code="invalid_json")
    return given


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is out of range")
    return number


def _deeper_than(value: dict[str, Any] | list[Any], cap: int) -> bool:
    level = [value]
    for _ in range(cap):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, (dict, list))]
    return bool(level)


def _check_tokens(fields: dict[str, Any], cap: int) -> None:
    for name in _TOKEN_FIELDS:
        if name in fields:
            _whole_number(fields[name], name, low=0, high=cap)


def _check_sequences(fields: dict[str, Any], cap: int) -> None:
    """`n` answers for each of the prompts: both multiply the work."""
    choices = _whole_number(fields.get("n", 1), "n", low=1, high=cap)
    prompt = fields.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt) else 1
    if prompts * choices > cap:
        raise bad_request(f"{prompts} prompts x n {choices} is over the limit of {cap} answers a request", param="prompt")


def _whole_number(value: object, name: str, *, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise bad_request(f"'{name}' must be a whole number from {low} to {high}", param=name, code="invalid_value")
    return value


def _check_messages(fields: dict[str, Any]) -> None:
    messages = fields.get("messages", [])
    if not isinstance(messages, list):
        raise bad_request("'messages' must be a list", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise bad_request("each message must be an object", param=f"messages[{index}]")
        content = message.get("content")
        if isinstance(content, list):
            _check_parts(content, index)


def _check_parts(parts: list[object], index: int) -> None:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _TEXT_PARTS:
            raise _unsupported_part(kind, index)


def _unsupported_part(kind: object, index: int) -> ApiError:
    return bad_request(f"content part {str(kind)[:50]!r} is not supported: these models read text", param=f"messages[{index}].content")
