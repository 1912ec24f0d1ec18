"""What a caller may send to a model."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.limits import CHAT_FIELDS, COMPLETION_FIELDS, EMBEDDING_FIELDS, Caps, ModelRequest, read_request
from serving.openai_errors import ApiError

CAPS = Caps(json_depth=8, sequences=4, tokens=100)
MESSAGES = [{"role": "user", "content": "hello"}]


def read(fields: dict[str, Any], allowed: frozenset[str] = CHAT_FIELDS) -> ModelRequest:
    return read_request(json.dumps({"model": "clinic", **fields}).encode(), allowed, CAPS)


def refusal(body: bytes, allowed: frozenset[str] = CHAT_FIELDS) -> ApiError:
    with pytest.raises(ApiError) as raised:
        read_request(body, allowed, CAPS)
    assert raised.value.status == 400
    return raised.value


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe{}", b'{"model": "m", "temperature": NaN}', b'{"model": "m", "top_p": -Infinity}',
        b'{"model": "m", "temperature": 1e999}', b"[" * 200_000, b'{"a":' * 100_000, b'{"model": "m", "seed": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    assert refusal(body).code == "invalid_json"


@pytest.mark.parametrize(("levels", "passes"), [(8, True), (9, False)])
def test_depth_is_capped_exactly(levels: int, passes: bool) -> None:
    """The body is level 1; `levels - 1` lists inside it make `levels`."""
    body = b'{"model": "m", "seed": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"
    if passes:
        assert read_request(body, CHAT_FIELDS, CAPS).model == "m"
    else:
        assert "nested" in refusal(body).message


def test_a_wide_body_is_not_a_deep_one() -> None:
    assert read({"messages": MESSAGES * 500}).model == "clinic"


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("[]," * 17_000, False),
        ('{"a":0},' * 17_000, False),
        ('"[{",' * 9_000, True),
        ('"\\\\","[[\\"[[",' * 5_000, True),
        ("0," * 100_000, True),
    ],
    ids=["lists", "objects", "brackets in strings", "brackets between quotes in strings", "numbers"],
)
def test_lists_and_objects_are_counted_before_they_are_built_and_brackets_in_texts_are_none(text: str, passes: bool) -> None:
    body = b'{"model": "m", "seed": [%b0]}' % text.encode()
    if passes:
        assert read_request(body, CHAT_FIELDS, CAPS).model == "m"
    else:
        assert "lists and objects" in refusal(body).message


def test_of_two_models_the_one_that_was_checked_is_the_one_that_goes_up() -> None:
    """JSON parsers differ on duplicate keys, so the body is written anew rather than passed on."""
    request = read_request(b'{"model": "other", "model": "clinic", "messages": [{"role": "user"}]}', CHAT_FIELDS, CAPS)
    assert json.loads(request.body_for("clinic-3")) == {"model": "clinic-3", "messages": [{"role": "user"}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 5}, "n"), ({"n": 0}, "n"), ({"n": 10**9}, "n"), ({"n": "2"}, "n"), ({"n": True}, "n"), ({"n": 1.5}, "n"),
        ({"max_tokens": 101}, "max_tokens"), ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens"), ({"min_tokens": 101}, "min_tokens"), ({"stream": "yes"}, "stream"),
        ({"messages": "hi"}, "messages"), ({"messages": ["hi"]}, "messages[0]"), ({"messages": []}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0]"), ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
        ({"stop": 5}, "stop"), ({"stop": ["a", 5]}, "stop[1]"), ({"logit_bias": []}, "logit_bias"),
        ({"stop_token_ids": [2**31]}, "stop_token_ids"), ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"allowed_token_ids": [1.5]}, "allowed_token_ids"), ({"allowed_token_ids": [True]}, "allowed_token_ids"),
        ({"model": ""}, "model"), ({"model": 3}, "model"), ({"model": None}, "model"),
    ],
)  # fmt: skip
def test_a_value_over_its_cap_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(json.dumps({"model": "m", **fields}).encode()).param == param


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video_url", None])
def test_content_the_engine_would_fetch_is_refused(kind: str | None) -> None:
    part = {"type": kind, "image_url": {"url": "http://169.254.169.254/"}}
    assert refusal(json.dumps({"model": "m", "messages": [{"role": "user", "content": [part]}]}).encode()).param == "messages[0].content"


def test_text_parts_pass() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    assert read({"messages": messages}).fields["messages"] == messages


@pytest.mark.parametrize(
    ("prompt", "n", "passes"),
    [(["a"] * 4, 1, True), (["a"] * 5, 1, False), (["a", "b"], 3, False), ([1] * 50, 4, True), ([[1], [2]], 2, True)],
)
def test_prompts_times_n_is_capped(prompt: object, n: int, passes: bool) -> None:
    body = json.dumps({"model": "m", "prompt": prompt, "n": n}).encode()
    if passes:
        assert read_request(body, COMPLETION_FIELDS, CAPS).fields["prompt"] == prompt
    else:
        assert refusal(body, COMPLETION_FIELDS).param == "prompt"


@pytest.mark.parametrize("prompt", [[], 5, {}, ["a", 1], [["a"]], [[1], []], [[1], [1e300]], [[1], 1], [1.5], [-1], [1e300], [None]])
def test_a_prompt_is_text_or_tokens_or_several_of_one_kind(prompt: object) -> None:
    assert refusal(json.dumps({"model": "m", "prompt": prompt}).encode(), COMPLETION_FIELDS).param == "prompt"


@pytest.mark.parametrize(("given", "read_as"), [([1.0, 2], [1, 2]), ([[3.0]], [[3]]), ("text", "text")])
def test_a_token_may_be_written_with_a_point(given: object, read_as: object) -> None:
    body = json.dumps({"model": "m", "prompt": given}).encode()
    assert read_request(body, COMPLETION_FIELDS, CAPS).fields["prompt"] == read_as


def test_a_request_without_what_its_route_needs_is_refused_by_name() -> None:
    with pytest.raises(ApiError) as raised:
        read_request(b'{"model": "m", "messages": null}', CHAT_FIELDS, CAPS, needs="messages")
    assert (raised.value.status, raised.value.param) == (400, "messages")


def test_only_listed_fields_go_up_and_nulls_do_not() -> None:
    request = read({"messages": MESSAGES, "temperature": None, "chat_template": "{{x}}", "cache_salt": "s", "store": True, "top_p": 0.5})
    assert set(request.fields) == {"model", "messages", "top_p"}


@pytest.mark.parametrize(
    "field",
    [
        "chat_template", "chat_template_kwargs", "priority", "request_id", "cache_salt", "kv_transfer_params", "vllm_xargs",
        "ec_transfer_params", "mm_processor_kwargs", "media_io_kwargs", "documents", "add_generation_prompt", "continue_final_message",
        "use_beam_search", "prompt_embeds", "prompt_logprobs", "structured_outputs", "session_id",
    ],
)  # fmt: skip
def test_engine_control_is_on_neither_list(field: str) -> None:
    assert field not in CHAT_FIELDS | COMPLETION_FIELDS


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert read({"max_tokens": 12.0}).fields["max_tokens"] == 12


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 21}, "logprobs"), ({"top_logprobs": 21}, "top_logprobs"), ({"top_logprobs": True}, "top_logprobs"),
        ({"stop": ["x"] * 17}, "stop"), ({"messages": [{}] * 2049}, "messages"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
        ({"tools": 5}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0]"), ({"tools": [{"function": {}}]}, "tools[0]"),
        ({"tools": [{"type": "code", "function": {"name": "f"}}]}, "tools[0]"),
        ({"tools": [{"function": {"name": "f", "parameters": []}}]}, "tools[0].function.parameters"),
        ({"response_format": {"type": "structural_tag"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"), ({"response_format": "json"}, "response_format"),
    ],
)  # fmt: skip
def test_what_costs_the_engine_time_without_bound_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(json.dumps({"model": "m", **fields}).encode()).param == param


@pytest.mark.parametrize(
    ("schema", "passes"),
    [
        ({"type": "object", "properties": {"name": {"type": "string", "maxLength": 100}}}, True),
        ({"type": "string", "pattern": "^[a-z]+$"}, True),
        ({"type": "array", "maxItems": 1001}, False),
        ({"properties": {"a": {"items": {"minLength": 10**9}}}}, False),
        ({"type": "string", "pattern": "(a{1,1000}){1,1000}"}, False),
        ({"type": "string", "pattern": "x" * 257}, False),
        ({"patternProperties": {"(?=a)": {}}}, False),
        ({"enum": list(range(501))}, False),
        ({"required": ["a"] * 2_001}, False),
        ({"anyOf": [{"const": n} for n in range(2001)]}, False),
    ],
)
def test_a_schema_passes_unless_it_could_grow_without_bound(schema: dict[str, Any], passes: bool) -> None:
    as_format = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}
    as_tool = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    for fields in (as_format, as_tool):
        if passes:
            assert read(fields).fields.items() >= fields.items()
        else:
            assert refusal(json.dumps({"model": "m", **fields}).encode()).code == "invalid_value"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "function", "content", "schema", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("allowed", [CHAT_FIELDS, COMPLETION_FIELDS, EMBEDDING_FIELDS], ids=["chat", "completions", "embeddings"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_json_whatever_makes_the_reader_stumble(allowed: frozenset[str], data: st.DataObject) -> None:
    body = {"model": "m", **data.draw(st.dictionaries(st.sampled_from(sorted(allowed)), JSON_VALUES, max_size=4))}
    try:
        request = read_request(json.dumps(body).encode(), allowed, CAPS)
    except ApiError as error:
        assert error.status == 400  # noqa: PT017  # any other exception fails the test
    else:
        assert request.tokens_at_most >= 0
        assert json.loads(request.body_for("r"))["model"] == "r"
