"""What a chat message must look like: a role, and text. Parts other than text are refused: vLLM would fetch the addresses in them.

Pure. Next: `limits.py`, which looks at each message through it.
"""

from typing import Any

from serving.field_shapes import Json
from serving.openai_errors import ApiError, bad_request

_TEXT_PARTS = ("text", "refusal")


def check_message(message: dict[str, Any], name: str, at: int) -> None:
    """Refuse a message that is none.

    Raises:
        ApiError: 400, naming the message.
    """
    if not isinstance(message.get("role"), str):
        raise bad_request("each message must have a 'role', a text", param=f"{name}[{at}]")
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            _check_part(part, f"{name}[{at}].content")
    elif content is not None and not isinstance(content, str):
        raise bad_request("'content' must be a text, or a list of parts", param=f"{name}[{at}].content")


def message_schema() -> Json:
    """What `check_message` looks for, as JSON schema."""
    parts = [
        {"type": "object", "properties": {"type": {"const": kind}, kind: {"type": "string"}}, "required": ["type", kind]}
        for kind in _TEXT_PARTS
    ]
    content = {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"anyOf": parts}}]}
    return {"type": "object", "properties": {"role": {"type": "string"}, "content": content}, "required": ["role"]}


def _check_part(part: object, param: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _TEXT_PARTS:
        raise _unsupported(kind, param)
    if not isinstance(part, dict) or not isinstance(part.get(kind), str):
        raise bad_request(f"a part of type '{kind}' must have a '{kind}', a text", param=param)


def _unsupported(kind: object, param: str) -> ApiError:
    return bad_request(f"content part {str(kind)[:50]!r} is not supported: these models read text", param=param)
