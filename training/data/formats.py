"""A raw record to an example: conversation, preference pair or labelled answer; or the reason why it is none.

The format is told for each row, so formats may be mixed in one file. Nothing is guessed and nothing is repaired.
Knows nothing of files. Next: `format_shapes.py` tells the format, `format_parts.py` makes turns, `format_turns.py` has the rules on them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from training.data.format_fields import Fault, label_of, needed_text
from training.data.format_parts import (
    Turns,
    answer,
    assistant,
    history,
    instruction,
    listed_turns,
    prompt,
    question,
    system_turn,
    with_system,
    with_tools,
)
from training.data.format_shapes import Detected, detect, detect_base, told
from training.data.format_turns import ends_with_answer, ends_with_question, in_order
from training.data.read_record import RAW_CHARS, Record, shown
from training.data.rows import Conversation, Example, Labelled, Pair, Rejected

Stage = Literal["sft", "dpo", "kto", "any"]
FormatName = Literal["auto", "alpaca", "sharegpt", "messages", "prompt_completion", "question_answer", "preference", "kto"]

FORMAT_REASONS = frozenset(
    {"unknown_format", "wrong_stage", "tool_calls", "image_content", "turn_weight", "empty_question", "empty_answer", "empty_content"}
    | {"no_instruction", "no_input", "no_output", "no_system", "no_history", "no_prompt", "no_completion", "no_question", "no_answer"}
    | {"no_context", "no_chosen", "no_rejected", "no_label", "no_messages", "no_conversations", "no_role", "no_content", "no_assistant"}
    | {"no_final_answer", "late_system", "two_systems", "roles_repeat", "roles_order", "unknown_role", "same_answers", "prompts_differ"}
)
_KINDS: dict[Stage, tuple[type, ...]] = {
    "sft": (Conversation,),
    "dpo": (Pair,),
    "kto": (Labelled, Pair),
    "any": (Conversation, Pair, Labelled),
}
_KIND_NAMES = {
    Conversation: "a conversation without a second answer or a label",
    Pair: "a pair of answers, one preferred",
    Labelled: "an answer labelled as wanted or not",
}
_WANTED = {
    "sft": "supervised fine-tuning learns from every answer: list this file under `data.preferences`",
    "dpo": "this stage learns from pairs (prompt, chosen, rejected): list conversations under `data.sft`; "
    "labelled rows need `preference.method: kto`",
    "kto": "this stage learns from labelled answers (messages and a true/false label) and from pairs: list conversations under `data.sft`",
}


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """How the rows of a source are to be understood.

    Args:
        format: how they are written; auto tells it from each row's keys.
        tools: whether rows with tool calls are kept.
        stage: what the rows are for; `any` takes every kind.
    """

    format: FormatName = "auto"
    tools: Literal["keep", "refuse"] = "refuse"
    stage: Stage = "any"


def example_of(record: Record, options: FormatOptions) -> tuple[Example | Rejected, Detected]:
    """The example that a record holds, or why it holds none; and the format it is in, with the reason."""
    values = record.values
    detected = detect(values) if options.format == "auto" else told(options.format)
    try:
        example: Example = _BUILDERS[detected.format](record, options.tools == "keep")
        if values.get("tools"):
            example = replace(example, messages=with_tools(values, example.messages, options.tools == "keep"))
        if options.stage != "any":
            _fits(example, options.stage)
    except Fault as fault:
        return Rejected(record.place, fault.reason, fault.detail, raw_of(values)), detected
    return example, detected


def raw_of(values: dict[str, Any]) -> str:
    """A record's first characters as JSON."""
    try:
        return orjson.dumps(values)[: RAW_CHARS * 4].decode("utf-8", "ignore")[:RAW_CHARS]
    except TypeError:  # an integer beyond 64 bits, or nested deeper than orjson writes
        return shown(repr(values))


def _fits(example: Example, stage: Stage) -> None:
    if not isinstance(example, _KINDS[stage]):
        raise Fault("wrong_stage", f"this row is {_KIND_NAMES[type(example)]}; {_WANTED[stage]}")


def _conversation(messages: Turns, record: Record) -> Conversation:
    in_order(messages)
    ends_with_answer(messages)
    return Conversation(record.place, messages)


def _from_alpaca(record: Record, keep_tools: bool) -> Conversation:
    values = record.values
    asked, said = instruction(values), needed_text(values, "output")
    if not said:
        raise Fault("empty_answer", "`output` is empty")
    return Conversation(record.place, (*system_turn(values), *history(values), asked, assistant(said)))


def _from_prompt(record: Record, keep_tools: bool) -> Conversation:
    values = record.values
    return _conversation((*with_system(values, prompt(values, keep_tools)), *answer(values, "completion", keep_tools)), record)


def _from_question(record: Record, keep_tools: bool) -> Conversation:
    values = record.values
    asked, said = question(values), needed_text(values, "answer")
    if not said:
        raise Fault("empty_answer", "`answer` is empty")
    return Conversation(record.place, (*system_turn(values), *history(values), asked, assistant(said)))


def _from_turns(record: Record, keep_tools: bool) -> Conversation:
    return _conversation(with_system(record.values, listed_turns(record.values, keep_tools)), record)


def _labelled(record: Record, keep_tools: bool) -> Labelled:
    desirable = label_of(record.values)
    conversation = _BUILDERS[detect_base(record.values).format](record, keep_tools)
    return Labelled(record.place, conversation.messages, desirable)


def _pair(record: Record, keep_tools: bool) -> Pair:
    values = record.values
    chosen, rejected = (answer(values, key, keep_tools) for key in ("chosen", "rejected"))
    if "tool_calls" in chosen[-1] or "tool_calls" in rejected[-1]:
        raise Fault("tool_calls", "one of the answers calls a tool; a pair compares texts")
    messages = with_system(values, _pair_prompt(values, chosen[:-1], rejected[:-1], keep_tools))
    in_order(messages)
    ends_with_question(messages)
    if chosen[-1]["content"] == rejected[-1]["content"]:
        raise Fault("same_answers", "`chosen` and `rejected` are the same text, so nothing is preferred")
    return Pair(record.place, messages, chosen[-1]["content"], rejected[-1]["content"])


def _pair_prompt(values: dict[str, Any], before_chosen: Turns, before_rejected: Turns, keep_tools: bool) -> Turns:
    """The turns that both answers follow: beside them, in front of each of them, or both."""
    if before_chosen != before_rejected:
        raise Fault("prompts_differ", "the turns before the last differ between `chosen` and `rejected`: they answer different prompts")
    beside = _prompt_beside(values, keep_tools)
    if before_chosen[: len(beside)] not in ((), beside):
        raise Fault("prompts_differ", "`chosen` and `rejected` begin otherwise than the prompt")
    return before_chosen or beside


def _prompt_beside(values: dict[str, Any], keep_tools: bool) -> Turns:
    if values.get("messages") is not None or values.get("conversations") is not None:
        return listed_turns(values, keep_tools)
    if values.get("prompt") is not None:
        return prompt(values, keep_tools)
    if values.get("instruction") is not None:
        return (*history(values), instruction(values))
    return (question(values),) if values.get("question") is not None else ()


def _unknown(record: Record, keep_tools: bool) -> Conversation:
    keys = ", ".join(str(key)[:60] for key in list(record.values)[:20]) or "none"
    raise Fault("unknown_format", f"no known format has these keys: {keys}; map them with the source's `columns`")


_BUILDERS: dict[str, Callable[[Record, bool], Any]] = {
    "alpaca": _from_alpaca,
    "sharegpt": _from_turns,
    "messages": _from_turns,
    "prompt_completion": _from_prompt,
    "question_answer": _from_question,
    "preference": _pair,
    "kto": _labelled,
    "unknown": _unknown,
}
