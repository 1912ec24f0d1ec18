"""Reads rule files, with every fault of a file at once, each as `file:line: rule id key: what`.

Knows nothing of prompts and answers. Next: `suite.py`, which a rule file belongs to.
"""

from pathlib import Path

from pydantic import ValidationError

from evaluation.documents import Document, explain, read_yaml
from evaluation.errors import SuiteError
from evaluation.rules import Rule, RuleBook


def load_rules(path: Path) -> RuleBook:
    """Read a rule file.

    Raises:
        SuiteError: with every problem, each as `file:line: rule id key: what`.
    """
    problems: list[str] = []
    document = read_yaml(path, problems)
    book = _validate(document, problems) if document else None
    if problems or book is None:
        raise SuiteError(problems)
    return book


def _validate(document: Document, problems: list[str]) -> RuleBook | None:
    value = document.value
    if not isinstance(value, dict) or not isinstance(value.get("rules"), list):
        problems.append(f"{document.path}:1: a rule file has the keys `version` and `rules` (a list)")
        return None
    rules = _validate_each(document, value["rules"], problems)
    _same_ids(document, rules, problems)
    try:
        return RuleBook.model_validate({**value, "rules": list(rules.values())})
    except ValidationError as error:
        problems += explain(error, RuleBook, document)
        return None


def _validate_each(document: Document, values: list[object], problems: list[str]) -> dict[int, Rule]:
    """Rule by rule, so that each complaint carries its rule's id; keys are positions in the file."""
    rules = {}
    for position, value in enumerate(values):
        subject = f"rule {value['id']}" if isinstance(value, dict) and "id" in value else f"rule number {position + 1}"
        try:
            rules[position] = Rule.model_validate(value)
        except ValidationError as error:
            problems += explain(error, Rule, document, ("rules", position), subject)
    return rules


def _same_ids(document: Document, rules: dict[int, Rule], problems: list[str]) -> None:
    first: dict[str, int] = {}
    for position, rule in rules.items():
        if rule.id in first:
            here, there = document.where(("rules", position)), document.where(("rules", first[rule.id]))
            problems.append(f"{here}: rule {rule.id} is there twice; the first is in {there}")
        first.setdefault(rule.id, position)
