"""What a caller may send to a model: an allow-list of fields, and caps on size, depth, sequences, tokens and lists.

Fields outside the list are dropped, not refused, because clients send more than any engine knows. What steers the engine
rather than the answer (`chat_template`, `priority`, `cache_salt`, `kv_transfer_params`, `mm_processor_kwargs`, `documents`,
`structured_outputs`, beam search, …) is outside it: a chat template in a request is code that vLLM runs. Content parts other than
text are refused, because vLLM would fetch the addresses in them. Answers can be bound to a JSON schema, within `schema_limits.py`.
Pure functions of bytes. Knows nothing of HTTP, keys or slots. Next: `gateway.py`.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from serving.openai_errors import ApiError, bad_request
from serving.schema_limits import check_grammars

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
LONGEST_LISTS = {
    "stop": 16, "logit_bias": 1024, "stop_token_ids": 128, "bad_words": 128, "allowed_token_ids": 4096, "messages": 2048, "tools": 128,
}
# fmt: on
EMBEDDING_FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})
CHAT_FIELDS = _OPENAI_BOTH | _OPENAI_CHAT | _VLLM_SAMPLING
COMPLETION_FIELDS = _OPENAI_BOTH | _OPENAI_COMPLETIONS | _VLLM_SAMPLING

_TEXT_PARTS = frozenset({"text", "refusal"})
_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "min_tokens")
# What the first checks cover or what needs none; most requests hold nothing else, and are spared the other checks.
_LOOKED_AT = frozenset({"model", "messages", "stream", "stream_options", "temperature", "top_p", "seed", "user", *_TOKEN_FIELDS})
MOST_LOGPROBS = 20
MOST_INPUTS = 256
_UNSAID_TOKENS = 256
"""What an answer is taken to need, for a key's token limit, when its request does not say."""


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
    prompt_bytes: int

    @property
    def user(self) -> str:
        """The caller's own name for its user; empty where there is none."""
        user = self.fields.get("user", "")
        return user if isinstance(user, str) else ""

    @property
    def tokens_at_most(self) -> int:
        """About how many tokens the request may take, prompt included: four bytes are about one token."""
        asked = self.fields.get("max_completion_tokens", self.fields.get("max_tokens", _UNSAID_TOKENS))
        return int(self.prompt_bytes // 4 + asked * self.fields.get("n", 1))

    def body_for(self, served_name: str) -> bytes:
        """The JSON body with `model` set to the name the slot serves under."""
        return orjson.dumps({**self.fields, "model": served_name})


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
    _check_messages(fields)
    if not fields.keys() <= _LOOKED_AT:
        _check_sequences(fields, caps.sequences)
        _check_logprobs(fields)
        _check_lengths(fields)
        check_grammars(fields)
    return ModelRequest(model=model, stream=stream, fields=fields, prompt_bytes=len(body))


def _parse(body: bytes, depth_cap: int) -> dict[str, Any]:
    try:
        given = orjson.loads(body)  # refuses NaN, Infinity, numbers out of range, half surrogates and what is not UTF-8
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not valid JSON: {str(error)[:200]}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    # Every level costs a bracket, so few brackets prove a shallow body without walking it.
    if body.count(b"{") + body.count(b"[") > depth_cap and _deeper_than(given, depth_cap):
        raise bad_request(f"the body is nested more than {depth_cap} levels deep", code="invalid_json")
    return given


def _deeper_than(value: dict[str, Any] | list[Any], cap: int) -> bool:
    level = [value]
    for _ in range(cap):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, (dict, list))]
    return bool(level)


def _check_tokens(fields: dict[str, Any], cap: int) -> None:
    for name in _TOKEN_FIELDS:
        if name in fields:
            fields[name] = _whole_number(fields[name], name, low=0, high=cap)


def _check_sequences(fields: dict[str, Any], cap: int) -> None:
    """`n` answers for each of the prompts: both multiply the work."""
    choices = _whole_number(fields.get("n", 1), "n", low=1, high=cap)
    if "n" in fields:
        fields["n"] = choices
    prompt = fields.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt) else 1
    if prompts * choices > cap:
        raise bad_request(f"{prompts} prompts x n {choices} is over the limit of {cap} answers a request", param="prompt")


def _check_logprobs(fields: dict[str, Any]) -> None:
    if "top_logprobs" in fields:
        fields["top_logprobs"] = _whole_number(fields["top_logprobs"], "top_logprobs", low=0, high=MOST_LOGPROBS)
    if not isinstance(fields.get("logprobs", False), bool):
        fields["logprobs"] = _whole_number(fields["logprobs"], "logprobs", low=0, high=MOST_LOGPROBS)


def _check_lengths(fields: dict[str, Any]) -> None:
    """Lists cost time for each token that is sampled."""
    for name in LONGEST_LISTS.keys() & fields.keys():
        value = fields[name]
        if isinstance(value, (list, dict)) and len(value) > LONGEST_LISTS[name]:
            raise bad_request(f"'{name}' has {len(value)} entries; the limit is {LONGEST_LISTS[name]}", param=name, code="invalid_value")
    texts = fields.get("input")
    if isinstance(texts, list) and len(texts) > MOST_INPUTS and not all(isinstance(token, int) for token in texts):
        raise bad_request(f"'input' has {len(texts)} texts; the limit is {MOST_INPUTS}", param="input", code="invalid_value")


def _whole_number(value: object, name: str, *, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():  # JSON knows one kind of number: 12.0 is 12
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise bad_request(f"'{name}' must be a whole number from {low} to {high}", param=name, code="invalid_value")
    return value


def _check_messages(fields: dict[str, Any]) -> None:
    messages = fields.get("messages", [])
    if not isinstance(messages, list):
        raise bad_request("'messages' must be a list", param="messages")
    if len(messages) > LONGEST_LISTS["messages"]:
        raise bad_request(f"more than {LONGEST_LISTS['messages']} messages", param="messages", code="invalid_value")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise bad_request("each message must be an object", param=f"messages[{index}]")
        content = message.get("content")
        if isinstance(content, list):
            _check_parts(content, index)


def _check_parts(parts: list[object], index: int) -> None:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in _TEXT_PARTS:
            raise _unsupported_part(kind, index)


def _unsupported_part(kind: object, index: int) -> ApiError:
    return bad_request(f"content part {str(kind)[:50]!r} is not supported: these models read text", param=f"messages[{index}].content")
