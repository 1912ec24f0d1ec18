"""Which JSON schemas a caller may bind an answer to. The engine compiles each into an automaton, and some grow without end.

Allowed: `response_format` of type text, json_object or json_schema, and the parameters of tools, as long as they are small, count
no further than a thousand and use short patterns without counted repetition. Other grammars (regex, EBNF, structural tags) are
vLLM's own extensions and are not passed on. Pure functions of values. Next: `limits.py`.
"""

import re
from collections.abc import Iterator
from typing import Any

from serving.openai_errors import ApiError, bad_request

_FORMATS = ("text", "json_object", "json_schema")
_MOST_NODES = 2_000
_MOST_COUNT = 1_000
_LONGEST_PATTERN = 256
_LONGEST_ENUM = 500
_COUNTED = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"})
_REPEATS = re.compile(r"\{\s*\d|\\[1-9]|\(\?[^:]")


def check_grammars(fields: dict[str, Any]) -> None:
    """Refuse a schema that could keep the engine busy.

    Raises:
        ApiError: 400, naming the field.
    """
    wanted = fields.get("response_format")
    if wanted is not None:
        _check_format(wanted)
    tools = fields.get("tools", [])
    if not isinstance(tools, list):
        raise _refused("'tools' must be a list", "tools")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise _refused("each tool must be an object with a 'function'", f"tools[{index}]")
        _check_schema(function.get("parameters"), f"tools[{index}].function.parameters")


def _check_format(wanted: object) -> None:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or kind not in _FORMATS:
        raise _refused(f"'response_format.type' must be one of {', '.join(_FORMATS)}", "response_format")
    if kind == "json_schema":
        holder = wanted.get("json_schema")
        if not isinstance(holder, dict):
            raise _refused("'response_format.json_schema' must be an object", "response_format")
        _check_schema(holder.get("schema"), "response_format.json_schema.schema")


def _check_schema(schema: object, param: str) -> None:
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
    """Every key and value at any depth; the depth itself is bounded with the body's."""
    level = [schema]
    while level:
        node = level.pop()
        if isinstance(node, dict):
            yield from node.items()
            level.extend(node.values())
        elif isinstance(node, list):
            level.extend(node)


def _refused(message: str, param: str) -> ApiError:
    return bad_request(message, param=param, code="invalid_value")
