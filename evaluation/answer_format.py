"""Judges whether an answer is JSON, and JSON of a schema (draft 2020-12).

References are resolved inside the schema only, nothing is fetched; `pattern` runs with the same time bound as every regular expression
of a rule. Knows nothing of phrases. Next: `refusals.py`.
"""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry

from evaluation.evidence import Case, Judgement
from evaluation.patterns import timed

_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL | re.IGNORECASE)
_LONGEST_REASON = 300


def check_schema(schema: dict[str, Any]) -> None:
    """Raises ValueError for what is no JSON schema, or holds what is no regular expression."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"no JSON schema: {error.message[:_LONGEST_REASON]} at {error.json_path}") from error
    for pattern in _patterns(schema):
        timed(pattern, folded=False)


def judge_json(case: Case, schema_text: str | None) -> Judgement:
    """The whole answer must be one JSON value, bare or in one code fence, that the schema accepts."""
    judgement = Judgement()
    fenced = _FENCE.fullmatch(case.answer)
    try:
        value = json.loads(fenced[1] if fenced else case.answer)
    except (ValueError, RecursionError) as error:
        judgement.reasons.append(f"is not JSON: {error}"[:_LONGEST_REASON])
        return judgement
    if schema_text is not None and (fault := _first_fault(schema_text, value)):
        judgement.reasons.append(fault[:_LONGEST_REASON])
    return judgement


def _first_fault(schema_text: str, value: object) -> str | None:
    try:
        error = best_match(_validator(schema_text).iter_errors(value))
    except RecursionError:
        return "is nested too deeply to be checked"
    return f"is not of the schema: {error.message} at {error.json_path}" if error else None


@lru_cache(maxsize=256)
def _validator(schema_text: str) -> Any:
    return _Validator(json.loads(schema_text), registry=Registry())


def _timed_pattern(_: Any, pattern: str, instance: object, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not timed(pattern, folded=False).matches(instance):
        yield ValidationError(f"{instance[:60]!r} does not match {pattern!r}")


def _timed_properties(validator: Any, properties: dict[str, Any], instance: object, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, schema in properties.items():
            for key, value in instance.items():
                if timed(pattern, folded=False).matches(key):
                    yield from validator.descend(value, schema, path=key, schema_path=pattern)


_Validator = extend(Draft202012Validator, {"pattern": _timed_pattern, "patternProperties": _timed_properties})


def _patterns(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), dict):
            yield from schema["patternProperties"]
        for value in schema.values():
            yield from _patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _patterns(value)
