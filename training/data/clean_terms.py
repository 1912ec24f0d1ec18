"""Reads a glossary file: which term is written how, and every fault of the file at once, with its line.

CSV and TSV have two columns, YAML is a mapping. A replacement that uses other terms of the glossary is expanded here, so that applying
the glossary to its own output changes nothing; terms that lead back to themselves over others are a fault. Knows nothing of the
texts. Next: `glossary.py`.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.errors import DataError

Case = Literal["auto", "sensitive", "insensitive"]

_HEADERS = frozenset(("term", "from", "source", "abbreviation", "short", "术语", "缩写", "原词", "简称"))
_LISTED_FAULTS = 20
_MOST_BYTES = 64 * 1024 * 1024
_LONGEST = 400  # characters of a term or replacement


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the glossary. `exact`: it is matched in this very case."""

    written: str
    replacement: str
    line: int
    exact: bool

    @property
    def key(self) -> str:
        """What two terms may not share."""
        return self.written if self.exact else self.written.lower()


def read_terms(path: Path, case: Case) -> list[Term]:
    """The terms of a file in its order.

    Raises:
        DataError: the file is missing, not UTF-8, has no terms, or has faults; all faults with their lines.
    """
    faults: list[str] = []
    terms: list[Term] = []
    for line, cells in _rows(path, _body(path), faults):
        if fault := _fault_of(cells):
            faults.append(f"line {line}: {fault}")
        else:
            written, replacement = cells
            terms.append(Term(written, replacement, line, exact=case == "sensitive" or (case == "auto" and written.isupper())))
    faults += _duplicates(terms)
    refuse(path, faults)
    if not terms:
        raise DataError(f"glossary {path} has no terms", do="write one term and its replacement per line, or take it out of the recipe")
    return terms


def refuse(path: Path, faults: list[str]) -> None:
    """Raise one error that lists the faults, if there are any."""
    if faults:
        more = [f"… and {len(faults) - _LISTED_FAULTS} more"] if len(faults) > _LISTED_FAULTS else []
        raise DataError(
            f"glossary {path} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n"
            + "\n".join(f"    {fault}" for fault in [*faults[:_LISTED_FAULTS], *more]),
            why="a term must have exactly one meaning, or the same text would be written differently from run to run",
            do="mend these lines",
        )


def expanded(path: Path, terms: list[Term], matches: Callable[[str], list[tuple[int, int, int]]]) -> list[str]:
    """Every replacement with the other terms in it replaced too; its own term in it stays ('MI' → 'myocardial infarction (MI)').

    Args:
        matches: the terms that stand in a text, as (start, end, number of the term), left to right.
    Raises:
        DataError: terms that lead back to themselves, each circle with its lines.
    """
    inside = [[match for match in matches(term.replacement) if match[2] != number] for number, term in enumerate(terms)]
    waits_for = [{other for _, _, other in found} for found in inside]
    users = defaultdict[int, list[int]](list)
    for number, others in enumerate(waits_for):
        for other in others:
            users[other].append(number)
    done: dict[int, str] = {}
    ready = [number for number, others in enumerate(waits_for) if not others]
    while ready:
        number = ready.pop()
        done[number] = _replaced(terms[number].replacement, inside[number], done)
        if len(done[number]) > _LONGEST * 10:
            refuse(path, [f"line {terms[number].line}: {terms[number].written!r} grows without end through the terms in it"])
        for user in users[number]:
            waits_for[user].discard(number)
            if not waits_for[user]:
                ready.append(user)
    refuse(path, _circles(terms, [number for number in range(len(terms)) if number not in done], waits_for))
    return [done[number] for number in range(len(terms))]


def _replaced(text: str, found: list[tuple[int, int, int]], done: dict[int, str]) -> str:
    parts, position = [], 0
    for start, end, number in found:
        parts += [text[position:start], done[number]]
        position = end
    return "".join([*parts, text[position:]])


def _circles(terms: list[Term], stuck: list[int], waits_for: list[set[int]]) -> list[str]:
    """Each circle once, from the first of its terms that is met."""
    seen, circles = set[int](), []
    for start in stuck:
        path: dict[int, None] = {}
        number = start
        while number not in seen:
            seen.add(number)
            path[number] = None
            number = min(waits_for[number])
        if number in path:
            circle = [*path][[*path].index(number) :]
            names = " → ".join(f"{terms[one].written!r} (line {terms[one].line})" for one in [*circle, number])
            circles.append(f"line {terms[number].line}: a circle: {names}")
    return circles


def _body(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"glossary {path} is larger than 64 MiB", do="keep only the terms that occur in the data")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"glossary {path} is not there", do="correct its path in the recipe, or put the file there") from None
    except OSError as error:
        raise DataError(f"glossary {path} cannot be read: {error.strerror}", do="make it a readable file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"glossary {path} is not UTF-8 at byte {error.start + 1}", do="save it as UTF-8") from None


def _rows(path: Path, body: str, faults: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Line and stripped cells of every entry; empty lines and lines that start with # are comments."""
    if path.suffix.lower() in (".yaml", ".yml"):
        yield from _yaml_rows(path, body, faults)
        return
    reader = csv.reader(io.StringIO(body, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    line = 0
    try:
        for cells in reader:
            line, started = reader.line_num, line + 1
            stripped = [cell.strip() for cell in cells]
            is_header = started == 1 and stripped[:1] and stripped[0].lower() in _HEADERS
            if any(stripped) and not stripped[0].startswith("#") and not is_header:
                yield started, stripped
    except csv.Error as error:
        faults.append(f"line {reader.line_num}: {error}")


def _yaml_rows(path: Path, body: str, faults: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Nodes instead of values, because they know their line, keep duplicates, and leave `NO` a word."""
    import yaml

    try:
        root = yaml.compose(body, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        faults.append(f"line {mark.line + 1 if mark else 1}: not YAML: {getattr(error, 'problem', None) or 'nested too deeply'}")
        return
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        faults.append(f"line {root.start_mark.line + 1}: {path.name} must be a mapping such as `MI: myocardial infarction`")
        return
    for key, value in root.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode):
            yield line, [key.value.strip(), value.value.strip()]
        else:
            faults.append(f"line {line}: a term and its replacement are plain text, not a list or a mapping")


def _fault_of(cells: list[str]) -> str | None:
    if len(cells) != 2:
        return f"{len(cells)} columns instead of 2 (term, replacement); put a text with a comma in double quotes"
    written, replacement = cells
    if not written or not replacement:
        return f"the {'replacement' if written else 'term'} is empty"
    if len(written) > _LONGEST or len(replacement) > _LONGEST:
        return f"longer than {_LONGEST} characters"
    if not any(character.isalnum() for character in written):
        return f"{written!r} has no letter or digit"
    if "\n" in written + replacement or "`" in written + replacement:
        return "terms and replacements have neither line breaks nor backticks"
    return None


def _duplicates(terms: list[Term]) -> list[str]:
    first: dict[str, Term] = {}
    faults = []
    for term in terms:
        earlier = first.setdefault(term.key, term)
        if earlier is not term:
            faults.append(f"line {term.line}: {term.written!r} is already on line {earlier.line}")
    return faults
