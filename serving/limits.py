"""What a caller may send to a model: an allow-list of fields, and caps on size, depth, sequences, tokens and lists.

Fields outside the list are dropped, not refused, because clients send more than any engine knows. What steers the engine
rather than the answer (`chat_template`, `priority`, `cache_salt`, `kv_transfer_params`, `mm_processor_kwargs`, `documents`,
`structured_outputs`, beam search, …) is outside it: a chat template in a request is code that vLLM runs. Content parts other than
text are refused, because vLLM would fetch the addresses in them. Answers can be bound to a JSON schema, within `schema_limits.py`.
Pure functions of bytes. Knows nothing of HTTP, keys or slots. Next: `gateway.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from serving.field_shapes import Flag, Listed, Prompts, Shape, Table, Tokens, Whole, count_of
from serving.messages import check_message, message_schema
from serving.openai_errors import bad_request
from serving.schema_limits import Format, check_tool, tool_schema

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
EMBEDDING_FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})
CHAT_FIELDS = _OPENAI_BOTH | _OPENAI_CHAT | _VLLM_SAMPLING
COMPLETION_FIELDS = _OPENAI_BOTH | _OPENAI_COMPLETIONS | _VLLM_SAMPLING

# A megabyte of empty lists takes a third of a second to build and to walk, and everybody waits. 2,048 messages with parts have fewer.
_MOST_CONTAINERS = 16_384
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_MOST_LOGPROBS = 20
_MOST_INPUTS = 256
_UNSAID_TOKENS = 256
"""What an answer is taken to need, for a key's token limit, when its request does not say."""


@dataclass(frozen=True)
class Caps:
    """The largest request that is passed on."""

    json_depth: int
    sequences: int
    tokens: int

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The fields whose values are looked at. The others cost no more whatever they hold; the engine judges them."""
        tokens = Whole(0, self.tokens)
        return {
            "stream": Flag(),
            "n": Whole(1, self.sequences),
            "max_tokens": tokens,
            "max_completion_tokens": tokens,
            "min_tokens": tokens,
            "top_logprobs": Whole(0, _MOST_LOGPROBS),
            "logprobs": Whole(0, _MOST_LOGPROBS, or_flag=True),
            "prompt": Prompts(self.sequences),
            "input": Prompts(_MOST_INPUTS),
            # Lists cost time for each token that is sampled.
            "stop": Listed("string", 16, alone=True),
            "logit_bias": Table(1024),
            "stop_token_ids": Tokens(128),
            "bad_words": Listed("string", 128),
            "allowed_token_ids": Tokens(4096),
            "messages": Listed("object", 2048, least=1, entry=check_message, words=message_schema),
            "tools": Listed("object", 128, entry=check_tool, words=tool_schema),
            "response_format": Format(),
        }


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
        if "input" in self.fields:  # vectors are no tokens
            return self.prompt_bytes // 4
        asked = self.fields.get("max_completion_tokens", self.fields.get("max_tokens", _UNSAID_TOKENS))
        return int(self.prompt_bytes // 4 + asked * self.fields.get("n", 1))

    def body_for(self, served_name: str) -> bytes:
        """The JSON body with `model` set to the name the slot serves under."""
        return orjson.dumps({**self.fields, "model": served_name})


def read_request(body: bytes, allowed: frozenset[str], caps: Caps, *, needs: str = "model") -> ModelRequest:
    """Parse, filter and cap a request body; `needs` is the field without which there is nothing to do.

    Raises:
        ApiError: 400, naming the field.
    """
    given = _parse(body, caps.json_depth)
    fields = {name: value for name, value in given.items() if name in allowed and value is not None}
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("'model' must be the name of a model", param="model", code="missing_model")
    if needs not in fields:
        raise bad_request(f"'{needs}' is missing", param=needs, code="missing_field")
    shapes = caps.shapes
    for name, value in fields.items():
        if (shape := shapes.get(name)) is not None:
            fields[name] = shape.read(value, name)
    if "prompt" in fields:
        _check_choices(fields["prompt"], fields.get("n", 1), caps.sequences)
    return ModelRequest(model=model, stream=fields.get("stream", False), fields=fields, prompt_bytes=len(body))


def _parse(body: bytes, depth_cap: int) -> dict[str, Any]:
    brackets = body.count(b"{") + body.count(b"[")
    if brackets > _MOST_CONTAINERS and _containers_in(body) > _MOST_CONTAINERS:
        raise bad_request(f"the body has more than {_MOST_CONTAINERS} lists and objects", code="invalid_json")
    try:
        given = orjson.loads(body)  # refuses NaN, Infinity, numbers out of range, half surrogates and what is not UTF-8
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not valid JSON: {str(error)[:200]}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    # Every level costs a bracket, so few brackets prove a shallow body without walking it.
    if brackets > depth_cap and _deeper_than(given, depth_cap):
        raise bad_request(f"the body is nested more than {depth_cap} levels deep", code="invalid_json")
    return given


def _containers_in(body: bytes) -> int:
    """Brackets outside strings; code in a prompt may have any number of them."""
    outside = _STRING.sub(b"", body)
    return outside.count(b"{") + outside.count(b"[")


def _deeper_than(value: dict[str, Any] | list[Any], cap: int) -> bool:
    level = [value]
    for _ in range(cap):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, (dict, list))]
    return bool(level)


def _check_choices(prompt: Any, choices: int, cap: int) -> None:
    """`n` answers for each of the prompts: both multiply the work."""
    if (prompts := count_of(prompt)) * choices > cap:
        raise bad_request(f"{prompts} prompts x n {choices} is over the limit of {cap} answers a request", param="prompt")
