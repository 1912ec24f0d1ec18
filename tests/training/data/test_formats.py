from typing import Any, get_args

import pytest

from training.data.format_shapes import detect
from training.data.formats import FORMAT_REASONS, FormatOptions, Stage, example_of
from training.data.read_record import RAW_CHARS, Record, kind_of
from training.data.rows import Conversation, Labelled, Pair, Place, Rejected

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be kind."}
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "dose", "arguments": '{"kg": 7}'}}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "5 ml"}
HERE = Place("rows.jsonl", 3)


def understood(values: dict[str, Any], **options: Any) -> Any:
    return example_of(Record(HERE, values, 0), FormatOptions(**options))[0]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "alpaca"),
        ({"instruction": "Hi", "output": "Hello", "system": None, "history": []}, "alpaca"),
        ({"instruction": "", "input": "Hi", "output": "Hello"}, "alpaca"),
        ({"conversations": [HUMAN, GPT]}, "sharegpt"),
        ({"conversations": [USER, ANSWER]}, "messages"),
        ({"conversations": '[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]'}, "sharegpt"),
        ({"messages": [USER, ANSWER]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER]}, "messages"),
        ({"prompt": "Hi", "completion": "Hello"}, "prompt_completion"),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt_completion"),
        ({"question": "Hi", "answer": "Hello", "qtype": "greeting"}, "question_answer"),
        ({"instruction": "Hi", "output": "Hello", "label": "greeting"}, "alpaca"),
        ({"question": "Hi", "answer": "Hello", "label": 1}, "question_answer"),
    ],
)
def test_every_way_to_write_a_conversation_gives_the_same_turns(values: dict[str, Any], told: str) -> None:
    example, detected = example_of(Record(HERE, values, 0), FormatOptions())

    assert example == Conversation(HERE, (USER, ANSWER))
    assert detected.format == told


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "No"}},
        {"messages": [USER], "chosen": ANSWER, "rejected": {"role": "assistant", "content": "No"}},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "No"}]},
        {"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No"}]},
        {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No"}]},
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "No"},
        {"question": "Hi", "chosen": "Hello", "rejected": "No"},
    ],
)
def test_every_way_to_write_a_pair_gives_the_same_pair(values: dict[str, Any]) -> None:
    assert understood(values) == Pair(HERE, (USER,), "Hello", "No")
    assert detect(values).format == "preference"


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ({"messages": [USER, ANSWER], "label": False}, {}),
        ({"conversations": [HUMAN, GPT], "kto_tag": False}, {}),
        ({"prompt": "Hi", "completion": "Hello", "label": "False"}, {}),
        ({"instruction": "Hi", "output": "Hello", "label": "undesirable"}, {}),
        ({"instruction": "Hi", "output": "Hello", "label": 0}, {"format": "kto"}),
    ],
)
def test_every_way_to_write_a_label_gives_the_same_labelled_answer(values: dict[str, Any], options: dict[str, Any]) -> None:
    assert understood(values, **options) == Labelled(HERE, (USER, ANSWER), desirable=False)


def test_the_reason_for_a_format_is_in_words() -> None:
    assert detect({"conversations": [HUMAN, GPT]}).why == "has `conversations` with from/value: ShareGPT"
    assert detect({"messages": [USER, ANSWER], "label": True}).why == "has `messages`, and a label that is true or false: KTO"


def test_an_alpaca_row_brings_its_system_text_its_history_and_its_input() -> None:
    row = {"system": "Be kind.", "history": [["a", "b"], ["c", "d"]], "instruction": "Translate", "input": "chat", "output": "cat"}

    messages = understood(row).messages

    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert messages[5]["content"] == "Translate\nchat"


def test_a_context_stands_before_its_question() -> None:
    assert understood({"context": "He is one.", "question": "Dose?", "answer": "5 ml"}).messages[0]["content"] == "He is one.\nDose?"


def test_a_system_column_goes_before_the_turns_and_may_repeat_the_system_turn() -> None:
    expected = (SYSTEM, USER, ANSWER)

    assert understood({"messages": [USER, ANSWER], "system": "Be kind."}).messages == expected
    assert understood({"messages": [SYSTEM, USER, ANSWER], "system": "Be kind."}).messages == expected


def test_an_answer_that_is_json_stays_a_text() -> None:
    row = {"prompt": "List two doses as JSON", "completion": '[{"dose": 5}, {"dose": 7}]'}

    assert understood(row).messages[-1]["content"] == row["completion"]


TOOL_ROWS = (
    {"messages": [USER, CALL, RESULT, ANSWER]},
    {
        "conversations": [
            HUMAN,
            {"from": "function_call", "value": '{"name": "dose", "arguments": {"kg": 7}}'},
            {"from": "observation", "value": "5 ml"},
            GPT,
        ]
    },
    {
        "messages": [
            USER,
            {"role": "assistant", "function_call": {"name": "dose", "arguments": '{"kg": 7}'}},
            {"role": "function", "name": "dose", "content": "5 ml"},
            ANSWER,
        ]
    },
)


@pytest.mark.parametrize("values", TOOL_ROWS)
def test_tool_calls_are_kept_in_one_spelling_where_the_recipe_keeps_them(values: dict[str, Any]) -> None:
    messages = understood(values, tools="keep").messages

    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "dose", "arguments": {"kg": 7}}
    assert messages[2]["content"] == "5 ml"


@pytest.mark.parametrize("values", [*TOOL_ROWS, {"messages": [USER, ANSWER], "tools": '[{"name": "dose"}]'}])
def test_tool_calls_are_refused_by_name_where_the_recipe_refuses_them(values: dict[str, Any]) -> None:
    assert understood(values, tools="refuse").reason == "tool_calls"


def test_the_tools_that_a_row_offers_ride_on_its_first_turn_and_an_empty_list_offers_none() -> None:
    assert understood({"messages": [USER, ANSWER], "tools": [{"name": "dose"}]}, tools="keep").messages[0]["tools"] == [{"name": "dose"}]
    assert understood({"conversations": [HUMAN, GPT], "tools": "[]"}).messages == (USER, ANSWER)


def message_row(*messages: Any) -> dict[str, Any]:
    return {"messages": [*messages]}


FAULTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"instruction": "a", "output": " "}, "empty_answer"),
    ({"instruction": "a"}, "no_output"),
    ({"instruction": " ", "output": "b"}, "empty_question"),
    ({"instruction": 3, "output": "b"}, "no_instruction"),
    ({"instruction": "a", "input": {"x": 1}, "output": "b"}, "no_input"),
    ({"instruction": "a", "output": "b", "system": 3}, "no_system"),
    ({"instruction": "a", "output": "b", "history": [["a"]]}, "no_history"),
    ({"instruction": "a", "output": "b", "history": [["a", ""]]}, "empty_content"),
    ({"text": "a"}, "unknown_format"),
    ({}, "unknown_format"),
    ({"question": "", "answer": "b"}, "empty_question"),
    ({"question": "a", "answer": ""}, "empty_answer"),
    ({"question": "a", "answer": None}, "no_answer"),
    ({"question": None, "answer": "b"}, "no_question"),
    ({"question": "a", "answer": "b", "context": 3}, "no_context"),
    ({"prompt": "", "completion": "b"}, "empty_question"),
    ({"prompt": None, "completion": "b"}, "no_prompt"),
    ({"prompt": "a", "completion": 3}, "no_completion"),
    ({"prompt": "a", "completion": [USER]}, "no_completion"),
    (message_row(), "no_messages"),
    ({"messages": "Hi"}, "no_messages"),
    ({"conversations": []}, "no_conversations"),
    (message_row({"content": "Hi"}, ANSWER), "no_role"),
    (message_row("Hi"), "no_role"),
    (message_row({"role": "human", "content": "Hi"}, ANSWER), "unknown_role"),
    (message_row({"role": ["user"], "content": "Hi"}, ANSWER), "unknown_role"),
    ({"conversations": [{"from": "bing", "value": "Hi"}, GPT]}, "unknown_role"),
    (message_row(USER), "no_assistant"),
    (message_row(SYSTEM), "no_assistant"),
    (message_row(USER, ANSWER, USER), "no_final_answer"),
    ({"conversations": [HUMAN, GPT, HUMAN]}, "no_final_answer"),
    (message_row(USER, USER, ANSWER), "roles_repeat"),
    (message_row(USER, ANSWER, ANSWER), "roles_repeat"),
    (message_row(ANSWER), "no_question"),
    (message_row(SYSTEM, ANSWER), "no_question"),
    ({"conversations": [GPT, HUMAN, GPT]}, "no_question"),
    (message_row(USER, {"role": "assistant", "content": ""}), "empty_answer"),
    (message_row({"role": "user", "content": ""}, ANSWER), "empty_content"),
    (message_row({"role": "user", "content": None}, ANSWER), "no_content"),
    (message_row({"role": "user", "content": 3}, ANSWER), "no_content"),
    (message_row({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER), "image_content"),
    (message_row({"role": "user", "content": [{"type": "text"}]}, ANSWER), "no_content"),
    (message_row({"role": "user", "content": [7]}, ANSWER), "no_content"),
    (message_row(USER, {"role": "system", "content": "x"}, ANSWER), "late_system"),
    (message_row(USER, {**ANSWER, "weight": 0}), "turn_weight"),
    ({"messages": [SYSTEM, USER, ANSWER], "system": "Be quick."}, "two_systems"),
    ({"prompt": "p", "chosen": "same", "rejected": " same "}, "same_answers"),
    ({"prompt": "p", "chosen": "a", "rejected": ""}, "empty_answer"),
    ({"prompt": "p", "chosen": None, "rejected": "b"}, "no_chosen"),
    ({"prompt": "p", "chosen": "a", "rejected": 3}, "no_rejected"),
    ({"chosen": "a", "rejected": "b"}, "no_question"),
    ({"chosen": "a", "rejected": "b", "system": "Be kind."}, "no_question"),
    ({"messages": [USER, ANSWER], "chosen": "a", "rejected": "b"}, "no_question"),
    ({"prompt": "Bye", "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No"}]}, "prompts_differ"),
    ({"chosen": [USER, ANSWER], "rejected": [{"role": "user", "content": "Bye"}, ANSWER]}, "prompts_differ"),
)


@pytest.mark.parametrize(("values", "reason"), FAULTS)
def test_a_row_that_cannot_be_used_says_why(values: dict[str, Any], reason: str) -> None:
    rejected = understood(values)

    assert isinstance(rejected, Rejected)
    assert (rejected.place, rejected.reason) == (HERE, reason)
    assert rejected.detail


TOOL_FAULTS: tuple[tuple[list[Any], str], ...] = (
    ([USER, CALL, ANSWER], "roles_repeat"),
    ([USER, CALL, USER, ANSWER], "roles_order"),
    ([RESULT, ANSWER], "roles_order"),
    ([USER, RESULT, ANSWER], "roles_order"),
    ([USER, CALL, RESULT], "no_final_answer"),
    ([USER, {"role": "assistant", "tool_calls": [{"id": "1"}]}, RESULT, ANSWER], "no_content"),
    ([USER, {"role": "assistant", "tool_calls": 3}, RESULT, ANSWER], "no_content"),
    ([USER, CALL, {**RESULT, "content": ""}, ANSWER], "empty_content"),
)


@pytest.mark.parametrize(("messages", "reason"), TOOL_FAULTS)
def test_tool_turns_out_of_order_say_why(messages: list[Any], reason: str) -> None:
    assert understood({"messages": messages}, tools="keep").reason == reason


EXPLICIT: tuple[tuple[str, str], ...] = (
    ("alpaca", "no_instruction"),
    ("sharegpt", "no_messages"),
    ("messages", "no_messages"),
    ("prompt_completion", "no_prompt"),
    ("question_answer", "no_question"),
    ("preference", "no_chosen"),
    ("kto", "no_label"),
)


@pytest.mark.parametrize(("named", "reason"), EXPLICIT)
def test_a_row_in_another_format_than_the_recipe_says_lacks_that_formats_keys(named: str, reason: str) -> None:
    assert understood({"text": "a"}, format=named).reason == reason


KINDS: dict[str, dict[str, Any]] = {
    "sft": {"instruction": "Hi", "output": "Hello"},
    "dpo": {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    "kto": {"messages": [USER, ANSWER], "label": True},
}


@pytest.mark.parametrize("stage", get_args(Stage))
@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_takes_only_rows_of_its_kind_and_says_where_others_belong(stage: str, kind: str) -> None:
    found = understood(KINDS[kind], stage=stage)

    if stage in ("any", kind) or (stage, kind) == ("kto", "dpo"):  # a pair is two labelled answers
        assert not isinstance(found, Rejected)
    else:
        assert found.reason == "wrong_stage"
        assert "list" in found.detail


def test_every_reason_that_a_format_can_give_is_tested_here_and_listed() -> None:
    tested = {reason for _, reason in (*FAULTS, *TOOL_FAULTS, *EXPLICIT)} | {"tool_calls", "wrong_stage"}

    assert tested == FORMAT_REASONS


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "null"), (True, "true"), (1.5, "a number"), ("x", "a text"), ([], "a list"), ({}, "an object")]
)
def test_a_value_of_the_wrong_kind_is_called_as_json_calls_it(value: object, kind: str) -> None:
    assert kind_of(value) == kind


def test_what_is_shown_of_a_rejected_row_is_its_beginning_as_json() -> None:
    assert understood({"instruction": "发" * 5000}).raw.startswith('{"instruction":"发发')
    assert len(understood({"instruction": "发" * 50_000}).raw) == RAW_CHARS
    assert understood({"instruction": 1 << 70}).raw == f"{{'instruction': {1 << 70}}}"
