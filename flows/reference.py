"""Writes the tables of every recipe key, setting, metric, record field and tuning method into the READMEs, from the code itself.

    python -m flows.reference

Only what stands between a file's two marks is replaced; the rest is written by people. A test proves that the committed files are
what this writes and that no key goes without a description. Next: `recipe.py`, the schema that the tables are made of.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic_settings import BaseSettings

from evaluation.aggregates import METRICS
from evaluation.config import MetricName
from evaluation.parity_records import ParityReport
from evaluation.records import Preferences, Scorecard, SideBySide, Verdict
from flows.recipe import Recipe
from serving.cluster_settings import ClusterSettings
from serving.notify_settings import NotifySettings
from serving.settings import Settings
from training.atomic import write_text
from training.errors import TunegateError
from training.methods import METHODS
from training.preference_methods import PREFERENCES
from training.records import Record

BEGIN, END = "<!-- generated -->", "<!-- end of generated -->"
RECIPES_PAGE, SETTINGS_PAGE = Path("flows/recipes/README.md"), Path("serving/README.md")
METHODS_PAGE, RECORDS_PAGE = Path("training/README.md"), Path("evaluation/README.md")
SETTINGS: tuple[type[BaseSettings], ...] = (Settings, NotifySettings, ClusterSettings)
RECORDS: tuple[type[Record], ...] = (Scorecard, SideBySide, Preferences, Verdict, ParityReport)

_Schema = Mapping[str, Any]
_BOUNDS = (("exclusiveMinimum", "> {}"), ("minimum", "≥ {}"), ("exclusiveMaximum", "< {}"), ("maximum", "≤ {}"))
_SIZES = (("minLength", "≥ {} characters"), ("maxLength", "≤ {} characters"), ("minItems", "≥ {} items"), ("pattern", "matches `{}`"))
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True)
class Key:
    """One line of a table. `default` and `bounds` are written as in the table; empty where there is none."""

    name: str
    type: str
    default: str
    bounds: str
    description: str


def recipe_keys() -> tuple[Key, ...]:
    """Every key of a recipe in the order of the schema, those of sections below their section."""
    return tuple(_keys(Recipe.model_json_schema(), ""))


def setting_keys() -> tuple[Key, ...]:
    """Every environment variable, in the order of `SETTINGS`."""
    return tuple(
        Key(f"{kind.model_config['env_prefix']}{key.name.upper()}", key.type, key.default, key.bounds, key.description)
        for kind in SETTINGS
        for key in _keys(kind.model_json_schema(), "")
    )


def record_fields(record: type[Record]) -> tuple[Key, ...]:
    """Every field of a record as it is written to `record.json`, at any depth."""
    schema = record.model_json_schema()
    return tuple(_keys(_with_enums(schema, schema.get("$defs", {})), ""))


def pages() -> dict[Path, str]:
    """Path below the repository -> what belongs between its marks."""
    return {
        RECIPES_PAGE: _recipe_tables(),
        SETTINGS_PAGE: _table("variable", setting_keys()),
        METHODS_PAGE: _method_table(),
        RECORDS_PAGE: _record_tables(),
    }


def page_with(text: str, generated: str, name: str) -> str:
    """`text` with what stands between its marks replaced.

    Raises:
        TunegateError: the marks are not there once each, in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise TunegateError(f"{name}: needs one line {BEGIN} and, below it, one line {END}", do="put the marks around the generated part")
    return f"{before}{BEGIN}\n{generated}{END}{after}"


def write(root: Path) -> list[Path]:
    """Bring the pages below `root` up to date; returns those that changed."""
    changed = []
    for name, generated in pages().items():
        path = root / name
        old = path.read_text(encoding="utf-8")
        new = page_with(old, generated, str(name))
        if new != old:
            write_text(path, new)
            changed.append(path)
    return changed


def _keys(schema: _Schema, prefix: str, definitions: _Schema | None = None) -> Iterator[Key]:
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        kind = _without_null(field)
        section, inside = _section(kind, f"{prefix}{name}", definitions)
        default = "required" if name in required else _value(field.get("default"))
        description = field.get("description") or (section or {}).get("description", "")
        yield Key(f"{prefix}{name}", _type(field), default, _bounds(kind), " ".join(description.split()))
        if section is not None:
            yield from _keys(section, inside + ".", definitions)


def _method_table() -> str:
    lines = [
        "",
        "| method | what is trained | keys of its own | learning rates | quantised base | merged and served |",
        "| - | - | - | - | - | - |",
    ]
    for name, method in METHODS.items():
        keys = ", ".join(f"`{key}`" for key in sorted(method.keys)) or "–"
        low, high = method.rates
        yes = {True: "yes", False: "no"}
        lines.append(f"| `{name}` | {method.what} | {keys} | {low:g} to {high:g} | {yes[method.quantizable]} | {yes[method.mergeable]} |")
    return "\n".join([*lines, "", *_preference_lines(), "", ""])


def _preference_lines() -> Iterator[str]:
    yield "| `preference.method` | what is learned | rows | keys and their defaults | `preference.loss` (the first is the usual one) |"
    yield "| - | - | - | - | - |"
    for name, method in PREFERENCES.items():
        keys = ", ".join(f"`{key}` {value if isinstance(value, str) else format(value, 'g')}" for key, value in method.keys.items())
        losses = [f"`{loss}`{_smoothing(keys)}" for loss, keys in method.losses.items()]
        yield f"| `{name}` | {method.what} | {method.rows} | {keys} | {', '.join(losses) or '–'} |"


def _smoothing(keys: Mapping[str, float | str]) -> str:
    return "".join(f" (`{key}` {value:g})" for key, value in keys.items())


def _section(kind: _Schema, name: str, definitions: _Schema) -> tuple[_Schema | None, str]:
    """The schema of the section that a key holds, or holds many of, and how its keys are reached."""
    for part, inside in ((kind, name), (kind.get("items", {}), f"{name}[]"), (kind.get("additionalProperties"), f"{name}.METRIC")):
        if isinstance(part, dict) and "$ref" in part:
            return definitions[part["$ref"].rsplit("/", 1)[-1]], inside
    return None, name


def _without_null(field: _Schema) -> _Schema:
    kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else field


def _type(field: _Schema) -> str:
    if "anyOf" in field:
        return " or ".join(_type(kind) for kind in field["anyOf"])
    if "$ref" in field:
        return "section"
    if "enum" in field or "const" in field:
        values = field.get("enum") or [field["const"]]
        return "metric" if tuple(values) == get_args(MetricName) else " or ".join(f"`{value}`" for value in values)
    if "prefixItems" in field:
        return f"[{', '.join(_type(item) for item in field['prefixItems'])}]"
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if field["type"] == "object":
        return f"{'metric' if '$ref' in field['additionalProperties'] else 'name'} → {_type(field['additionalProperties'])}"
    return {"path": "path", "password": "secret text"}.get(field.get("format", ""), _TYPES[field["type"]])


def _bounds(kind: _Schema) -> str:
    item = kind.get("items", {}) if kind.get("type") == "array" else {}
    own = [words.format(_value(kind[name]).strip("`")) for name, words in _BOUNDS if name in kind]
    own += [words.format(kind[name]) for name, words in _SIZES if name in kind]
    if isinstance(value := kind.get("additionalProperties"), dict):
        own += [f"each {words.format(_value(value[name]).strip('`'))}" for name, words in _BOUNDS if name in value]
    return ", ".join(own + [f"each {words.format(item[name])}" for name, words in _SIZES if name in item])


def _with_enums(schema: Any, definitions: _Schema) -> Any:
    """The schema with the values of an enumeration in place of its name: they are no section."""
    if isinstance(schema, list):
        return [_with_enums(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    named = definitions.get(str(schema.get("$ref", "")).rsplit("/", 1)[-1], {})
    if "enum" in named:
        return {"description": schema.get("description", ""), "enum": named["enum"]}
    return {key: _with_enums(value, definitions) for key, value in schema.items()}


def _value(value: Any) -> str:
    if value == "":
        return "empty"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, dict | list):
        return f"`{json.dumps(_without_nones(value), ensure_ascii=False)}`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _without_nones(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nones(item) for key, item in value.items() if item is not None}
    return value


def _recipe_tables() -> str:
    keys = recipe_keys()
    sections = list(dict.fromkeys(key.name.split(".")[0].removesuffix("[]") for key in keys if "." in key.name))
    top = _table("key", tuple(key for key in keys if "." not in key.name))
    below = [
        f"\n### {section}\n\n{_table('key', tuple(key for key in keys if key.name.startswith(f'{section}.')))}" for section in sections
    ]
    return f"\n### recipe\n\n{top}" + "".join(below) + f"\n### metrics\n\n{_metrics()}\n"


def _record_tables() -> str:
    tables = []
    for record in RECORDS:
        rows = [("field", "type", "what it is"), ("---",) * 3]
        rows += [(f"`{key.name}`", key.type, key.description) for key in record_fields(record)]
        tables.append(f"\n### {record.__name__}\n\n" + _lines(rows))
    return "".join(tables) + "\n"


def _lines(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def _table(first: str, keys: tuple[Key, ...]) -> str:
    rows = [(first, "type", "default", "bounds", "what it is"), ("---",) * 5]
    rows += [(f"`{key.name}`", key.type, key.default, key.bounds, key.description) for key in keys]
    return _lines(rows)


def _metrics() -> str:
    rows = [f"| `{name}` | {metric.unit} | {'higher' if metric.higher_is_better else 'lower'} |" for name, metric in METRICS.items()]
    return "\n".join(["| metric | unit | better |", "| --- | --- | --- |", *rows])


def main() -> None:
    """Write the pages of this checkout and name those that changed."""
    for path in write(Path(__file__).resolve().parent.parent):
        print(path)


if __name__ == "__main__":
    main()
