"""YAML and JSONL files read with their line numbers, so that every complaint names `file:line`.

Knows nothing of suites or rules; it turns files into plain values and pydantic errors into sentences. Next: `rules.py`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from evaluation.errors import nearest

Loc = tuple[str | int, ...]
MAX_FILE_BYTES = 64 << 20
MAX_LINES = 200_000


@dataclass(frozen=True)
class Document:
    """A YAML file's value and the line (from 1) of each key path in it."""

    path: Path
    value: Any
    lines: Mapping[Loc, int]

    def where(self, loc: Loc) -> str:
        """`file:line` of the deepest part of `loc` that is in the file."""
        for length in range(len(loc), -1, -1):
            if (line := self.lines.get(loc[:length])) is not None:
                return f"{self.path}:{line}"
        return f"{self.path}:1"


def read_yaml(path: Path, problems: list[str]) -> Document | None:
    """Parse one YAML file; on failure add to `problems` and return None. Duplicate keys are problems too."""
    text = read_text(path, problems)
    if text is None:
        return None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(f"{path}:{line}: not YAML: {error.problem}")
        return None
    except (yaml.YAMLError, ValueError) as error:
        problems.append(f"{path}:1: not YAML: {error}")
        return None
    lines: dict[Loc, int] = {}
    if node is not None:
        _index(node, (), lines, path, problems)
    return Document(path=path, value=value, lines=lines)


def read_jsonl(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each non-empty line; bad lines go to `problems`."""
    text = read_text(path, problems)
    for number, line in enumerate((text or "").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            problems.append(f"{path}:{number}: not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            problems.append(f"{path}:{number}: a JSON object is expected, this is a {type(value).__name__}")


def read_text(path: Path, problems: list[str]) -> str | None:
    """The file as UTF-8 text, or None and a line in `problems`."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            problems.append(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
            return None
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8")
    except FileNotFoundError:
        problems.append(f"{path}: no such file")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    return None


def explain(error: ValidationError, model: type[BaseModel], where: str | Document, prefix: Loc = (), subject: str = "") -> list[str]:
    """Every fault of a pydantic error as `file:line: subject key: what; did you mean …`."""
    found = []
    for fault in error.errors(include_url=False):
        loc = tuple(fault["loc"])
        place = where.where(prefix + loc) if isinstance(where, Document) else where
        key = ".".join(str(part) for part in loc) or "(whole)"
        what = str(fault["msg"]).removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            what = "unknown key" + nearest(str(loc[-1]), keys_at(model, loc[:-1]))
        elif fault["type"] == "missing":
            what = "is missing"
        elif not isinstance(fault["input"], dict | list):
            what = f"{what} (found {fault['input']!r})"
        found.append(f"{place}: {subject + ' ' if subject else ''}{key}: {what}")
    return found


def keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The field names that are valid at `loc` inside `model`; empty when `loc` leads out of it."""
    current: type[BaseModel] | None = model
    for part in loc:
        field = current.model_fields.get(str(part)) if current else None
        if field is not None:
            current = next((kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_model(kind)), None)
    return list(current.model_fields) if current else []


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _index(node: yaml.Node, loc: Loc, lines: dict[Loc, int], path: Path, problems: list[str]) -> None:
    if len(lines) > MAX_LINES:  # aliases of aliases can unfold without end
        return
    lines[loc] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _index(item, (*loc, position), lines, path, problems)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            name = str(key.value)
            if (*loc, name) in lines:
                problems.append(
                    f"{path}:{key.start_mark.line + 1}: the key '{name}' is there twice; the first is in line {lines[*loc, name]}"
                )
            _index(item, (*loc, name), lines, path, problems)
            lines[*loc, name] = key.start_mark.line + 1
