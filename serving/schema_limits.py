"""Which JSON schemas a caller may bind an answer to. The engine compiles each into an automaton, and some grow without end.

Allowed: `response_format` of type text, json_object or json_schema, and the parameters of tools, as long as they are small, count
no further than a thousand and use short patterns without counted repetition. Other grammars (regex, EBNF, structural tags) are
vLLM's own extensions and are not passed on. Pure functions of values. Next: `limits.py`.
"""

import re
from collections.abc import Iterator
from typing import Any

from serving.field_shapes import Json
from serving.openai_errors import ApiError, bad_request

_FORMATS = ("text", "json_object", "json_schema")
_MOST_NODES = 2_000
_MOST_COUNT = 1_000
_LONGEST_PATTERN = 256
_LONGEST_ENUM = 500
_COUNTED = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"})
_SCHEMA: Json = {
    "type": ["object", "null"],
    "description": f"a JSON schema of {_MOST_NODES} parts at most, counting to {_MOST_COUNT}, with patterns of {_LONGEST_PATTERN} "
    f"characters without counted repetition and enums of {_LONGEST_ENUM} values",
}
_REPEATS = re.compile(r"\{\s*\d|\\[1-9]|\(\?[^:]")


class Format:
    """What an answer may be bound to: the shape of `response_format`."""

    def read(self, value: Any, name: str) -> Any:
        """See `field_shapes.Shape`."""
        kind = value.get("type") if isinstance(value, dict) else None
        if kind not in _FORMATS:
            raise _refused(f"'{name}.type' must be one of {', '.join(_FORMATS)}", name)
        if kind == "json_schema":
            holder = value.get("json_schema")
            if not isinstance(holder, dict):
                raise _refused(f"'{name}.json_schema' must be an object", name)
            _check_schema(holder.get("schema"), f"{name}.json_schema.schema")
        return value

    def schema(self) -> Json:
        """See `field_shapes.Shape`."""
        plain = [kind for kind in _FORMATS if kind != "json_schema"]
        bound = {"type": {"const": "json_schema"}, "json_schema": {"type": "object", "properties": {"schema": _SCHEMA}}}
        return {
            "anyOf": [
                {"type": "object", "properties": {"type": {"enum": plain}}, "required": ["type"]},
                {"type": "object", "properties": bound, "required": ["type", "json_schema"]},
            ]
        }


def check_tool(tool: Json, name: str, at: int) -> None:
    """Refuse a tool that is not a function, or whose parameters could keep the engine busy.

    Raises:
        ApiError: 400, naming the field.
    """
    function, param = tool.get("function"), f"{name}[{at}]"
    if tool.get("type", "function") != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _refused("each tool must have the type 'function', and a 'function' with a name", param)
    _check_schema(function.get("parameters"), f"{param}.function.parameters")


def tool_schema() -> Json:
    """What `check_tool` looks for, as JSON schema."""
    function = {"type": "object", "properties": {"name": {"type": "string"}, "parameters": _SCHEMA}, "required": ["name"]}
    return {"type": "object", "properties": {"type": {"const": "function"}, "function": function}, "required": ["function"]}


def _check_schema(schema: object, param: str) -> None:
    if not isinstance(schema, dict | None):
        raise _refused("a schema must be an object", param)
    for nodes, (key, value) in enumerate(_walk(schema)):
        if nodes >= _MOST_NODES:
            raise _refused(f"a schema may have {_MOST_NODES} parts", param)
        if key in _COUNTED and isinstance(value, (int, float)) and value > _MOST_COUNT:
            raise _refused(f"'{key}' may be {_MOST_COUNT} at most", param)
        if key == "enum" and isinstance(value, list) and len(value) > _LONGEST_ENUM:
            raise _refused(f"an 'enum' may have {_LONGEST_ENUM} values", param)
        if key in ("pattern", "patternProperties"):
            for pattern in value if isinstance(value, dict) else [value]:
                _check_pattern(pattern, param)


def _check_pattern(pattern: object, param: str) -> None:
    if not isinstance(pattern, str) or len(pattern) > _LONGEST_PATTERN or _REPEATS.search(pattern):
        raise _refused(f"a pattern is text of {_LONGEST_PATTERN} characters at most, without counted repetition or references", param)


def _walk(schema: object) -> Iterator[tuple[str, object]]:
    """Every key and value, and every entry of a list, at any depth; the depth itself is bounded with the body's."""
    level = [schema]
    while level:
        node = level.pop()
        if isinstance(node, dict):
            yield from node.items()
            level.extend(node.values())
        elif isinstance(node, list):
            yield from (("", each) for each in node)
            level.extend(node)


def _refused(message: str, param: str) -> ApiError:
    return bad_request(message, param=param, code="invalid_value")
