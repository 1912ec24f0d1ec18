"""Turns of a chat in our one spelling, from OpenAI `messages` and from ShareGPT, and the rules on who may follow whom.

A system turn may only stand first; then user and assistant take turns, and a tool's result answers the assistant's call.
Nothing is repaired: a turn that is out of order is a fault by name. Knows nothing of records. Next: `format_shapes.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from training.data.format_fields import Fault, content_text, decoded
from training.data.read_record import kind_of
from training.data.rows import ROLES, Message

_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
_OPENAI_ROLES = {**{role: role for role in ROLES}, "developer": "system", "function": "tool"}
_FOLLOWERS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "assistant with calls": ("tool",),
    "tool": ("tool", "assistant"),
}
_HAS_NO_TEXT = {"assistant": "empty_answer", "user": "empty_content", "system": "empty_content", "tool": "empty_content"}


def turns_of(turns: Iterable[Any], keep_tools: bool) -> tuple[Message, ...]:
    """Every turn, each checked by itself; a turn says `role` and `content`, or `from` and `value`.

    Raises:
        Fault: no_role, unknown_role, no_content, empty_content, empty_answer, image_content, tool_calls.
    """
    return tuple([_turn(number, turn, keep_tools) for number, turn in enumerate(turns, start=1)])


def _turn(number: int, turn: Any, keep_tools: bool) -> Message:
    if not isinstance(turn, dict) or not ("role" in turn or "from" in turn):
        raise Fault("no_role", f"turn {number} has no `role`")
    if "role" in turn:
        said, known, text_key = turn["role"], _OPENAI_ROLES, "content"
    else:
        said, known, text_key = turn["from"], _SHAREGPT_ROLES, "value"
    role = known.get(said) if isinstance(said, str) else None
    if role is None:
        raise Fault("unknown_role", f"turn {number} has the role {str(said)[:60]!r}; known are {', '.join(known)}")
    if role == "tool" or said == "function_call" or "tool_calls" in turn or "function_call" in turn:
        return _tool_turn(number, turn, role, text_key, keep_tools)
    content = turn.get(text_key)
    text = content.strip() if type(content) is str else content_text(content, number)
    if not text:
        raise Fault(_HAS_NO_TEXT[role], f"turn {number} (the {role}'s) is empty")
    if turn.get("weight") == 0:
        raise Fault("turn_weight", f"turn {number} has the weight 0; single turns cannot be left out of the loss")
    return {"role": role, "content": text}


def _tool_turn(number: int, turn: dict[str, Any], role: str, text_key: str, keep_tools: bool) -> Message:
    calls = _calls(number, turn)
    if (calls or role == "tool") and not keep_tools:
        raise Fault("tool_calls", f"turn {number} {'calls a tool' if calls else 'is the result of a tool'}; `tools` is refuse")
    content = None if turn.get("from") == "function_call" else turn.get(text_key)
    text = "" if content is None and calls else content_text(content, number)
    if not text and not calls:
        raise Fault(_HAS_NO_TEXT[role], f"turn {number} (the {role}'s) is empty")
    message: Message = {"role": role, "content": text}
    if calls:
        message["tool_calls"] = calls
    return message | {key: turn[key] for key in ("tool_call_id", "name") if role == "tool" and isinstance(turn.get(key), str)}


def _calls(number: int, turn: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of a turn as OpenAI writes them. ShareGPT writes one or several as JSON text, and old OpenAI rows have one."""
    if turn.get("from") == "function_call":
        found = decoded(turn.get("value"))
        single = found if isinstance(found, list) else [found]
        return [_call(number, call) for call in single]
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    if not isinstance(calls, list):
        raise Fault("no_content", f"turn {number}: `tool_calls` is {kind_of(calls)}, not a list")
    return [_call(number, call) for call in calls]


def _call(number: int, call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Fault("no_content", f"turn {number} calls a tool without saying its name")
    made: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": decoded(function.get("arguments", {}))}}
    return made | ({"id": call["id"]} if isinstance(call.get("id"), str) else {})


def in_order(messages: Sequence[Message]) -> None:
    """Raises: Fault no_question, late_system, roles_repeat, roles_order."""
    before = ""
    for number, message in enumerate(messages, start=1):
        role = message["role"]
        if role not in _FOLLOWERS[before]:
            raise _out_of_order(number, role, before)
        before = "assistant with calls" if "tool_calls" in message else role


def _out_of_order(number: int, role: str, before: str) -> Fault:
    if role == "system":
        return Fault("late_system", f"turn {number} is a system turn; only the first may be one")
    if role == before.partition(" ")[0]:
        return Fault("roles_repeat", f"turns {number - 1} and {number} are both the {role}'s")
    if role == "assistant":
        return Fault("no_question", "the assistant speaks before the user does")
    if before == "assistant with calls":
        return Fault("roles_order", f"turn {number} is the {role}'s, but turn {number - 1} calls a tool whose result is missing")
    return Fault("roles_order", f"turn {number} is the {role}'s and follows {f'the {before}' if before else 'nothing'}")


def ends_with_answer(messages: Sequence[Message]) -> None:
    """Raises: Fault no_assistant, no_final_answer."""
    if not any(message["role"] == "assistant" for message in messages):
        raise Fault("no_assistant", "no turn of the assistant, so there is nothing to learn")
    if messages[-1]["role"] != "assistant":
        raise Fault("no_final_answer", f"the last turn is the {messages[-1]['role']}'s, not the assistant's")


def ends_with_question(messages: Sequence[Message]) -> None:
    """Raises: Fault no_question. A tool's result asks for an answer as a user's turn does."""
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        whose = f"it ends with the {messages[-1]['role']}'s" if messages else "it has no turn"
        raise Fault("no_question", f"the conversation must end with the user's turn, {whose}")
