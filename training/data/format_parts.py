"""The parts that rows of every format are made of, as turns: system text, history, question, prompt, answer, tools.

Knows nothing of which format uses which part. Next: `formats.py`.
"""

from typing import Any

from training.data.format_fields import Fault, decoded, list_of, needed_text, optional_text
from training.data.format_turns import turns_of
from training.data.read_record import kind_of
from training.data.rows import Message

Turns = tuple[Message, ...]


def user(text: str) -> Message:
    """The user's turn."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """The assistant's turn."""
    return {"role": "assistant", "content": text}


def system_turn(values: dict[str, Any]) -> Turns:
    """The record's own system text. Raises: Fault no_system."""
    text = optional_text(values, "system") if "system" in values else ""
    return ({"role": "system", "content": text},) if text else ()


def with_system(values: dict[str, Any], messages: Turns) -> Turns:
    """The record's own system text before its turns. Raises: Fault two_systems."""
    system = system_turn(values)
    if not system or not messages or messages[0]["role"] != "system":
        return (*system, *messages)
    if system[0] != messages[0]:
        raise Fault("two_systems", "`system` and the system turn say different things")
    return messages


def history(values: dict[str, Any]) -> Turns:
    """Earlier questions and answers of an Alpaca row. Raises: Fault no_history, empty_content."""
    turns: list[Message] = []
    if not values.get("history") or values["history"] == "[]":
        return ()
    for number, pair in enumerate(list_of(values, "history"), start=1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise Fault("no_history", f"item {number} of `history` is not a list of a question and its answer")
        question, answer = (text.strip() for text in pair)
        if not question or not answer:
            raise Fault("empty_content", f"item {number} of `history` has an empty {'answer' if question else 'question'}")
        turns += [user(question), assistant(answer)]
    return tuple(turns)


def instruction(values: dict[str, Any]) -> Message:
    """`instruction` and below it `input`. Raises: Fault no_instruction, no_input, empty_question."""
    question, more = needed_text(values, "instruction"), optional_text(values, "input")
    if not question and not more:
        raise Fault("empty_question", "`instruction` is empty")
    return user(f"{question}\n{more}" if question and more else question or more)


def question(values: dict[str, Any]) -> Message:
    """`question`, below its `context` where there is one. Raises: Fault no_question, no_context, empty_question."""
    asked, context = needed_text(values, "question"), optional_text(values, "context")
    if not asked:
        raise Fault("empty_question", "`question` is empty")
    return user(f"{context}\n{asked}" if context else asked)


def listed_turns(values: dict[str, Any], keep_tools: bool) -> Turns:
    """`messages`, or else `conversations`. Raises: Fault no_messages, no_conversations, and as `turns_of`."""
    key = "conversations" if "conversations" in values and values.get("messages") is None else "messages"
    return turns_of(list_of(values, key), keep_tools)


def prompt(values: dict[str, Any], keep_tools: bool) -> Turns:
    """`prompt` as text, or as a list of turns. Raises: Fault no_prompt, empty_question, and as `turns_of`."""
    if turns := _turns_in(values.get("prompt")):
        return turns_of(turns, keep_tools)
    text = needed_text(values, "prompt")
    if not text:
        raise Fault("empty_question", "`prompt` is empty")
    return (user(text),)


def answer(values: dict[str, Any], key: str, keep_tools: bool) -> Turns:
    """An answer as text, as one turn, or as turns that end with it. Raises: Fault no_<key>, empty_answer, and as `turns_of`."""
    if turns := _turns_in(values.get(key)):
        messages = turns_of(turns, keep_tools)
        if messages[-1]["role"] != "assistant":
            raise Fault(f"no_{key}", f"`{key}` ends with the {messages[-1]['role']}'s turn, not with an answer")
        return messages
    text = needed_text(values, key)
    if not text:
        raise Fault("empty_answer", f"`{key}` is empty")
    return (assistant(text),)


def _turns_in(value: Any) -> list[Any]:
    """The turns that `value` is, or holds as JSON text. An answer that happens to be JSON is a text like any other."""
    found = decoded(value)
    turns = [found] if isinstance(found, dict) else found if isinstance(found, list) else []
    are_turns = bool(turns) and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns)
    return turns if are_turns or (found is value and isinstance(value, list)) else []


def with_tools(values: dict[str, Any], messages: Turns, keep_tools: bool) -> Turns:
    """The tools that the row offers, on its first turn, where who renders the template finds them. Raises: Fault tool_calls."""
    tools = decoded(values["tools"])
    if not tools or (isinstance(tools, str) and not tools.strip()):
        return messages
    if not keep_tools:
        raise Fault("tool_calls", "the row offers `tools`, and the recipe says `tools: refuse`")
    if not isinstance(tools, list):
        raise Fault("tool_calls", f"`tools` is {kind_of(tools)}, not a list")
    return ({**messages[0], "tools": tools}, *messages[1:])
