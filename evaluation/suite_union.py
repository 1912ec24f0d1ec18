"""Several suites as one: what a recipe is judged by, when it adds the safety suite to its own.

The first suite lends its language and generation settings; ids, topics and tags of the others get their suite's name in front, and
every rule stays with the prompts of its own suite. Next: `scoring.py`.
"""

from collections.abc import Sequence
from pathlib import Path

from evaluation.errors import SuiteError
from evaluation.rules import SUITE_MARK, Rule, RuleBook, When
from evaluation.suite import Prompt, Suite, load_suite


def load_suites(folders: Sequence[Path]) -> Suite:
    """Read suite folders and put them together; one folder is that suite.

    Raises:
        SuiteError: with every problem of all suites, and where they do not go together.
    """
    suites: list[Suite] = []
    problems: list[str] = []
    for folder in folders:
        try:
            suites.append(load_suite(folder))
        except SuiteError as error:
            problems += error.problems
    problems += name_clashes(dict(zip(folders, suites, strict=False))) if not problems else []
    problems += _clashes(suites)
    if problems:
        raise SuiteError(problems)
    return suites[0] if len(suites) == 1 else _unite(suites)


def name_clashes(suites: dict[Path, Suite]) -> list[str]:
    """Two suites of one name: scores could not be told apart by it."""
    problems = []
    first: dict[str, Path] = {}
    for folder, suite in suites.items():
        if suite.name in first:
            same = suites[first[suite.name]].digest == suite.digest
            what = "the same suite is named twice" if same else "two suites of one name and other content; give one of them another name"
            problems.append(f"{folder}/suite.yaml: name '{suite.name}' is also that of {first[suite.name]}: {what}")
        first.setdefault(suite.name, folder)
    return problems


def _clashes(suites: Sequence[Suite]) -> list[str]:
    marked = [
        f"{suite.name}: prompt {prompt.id}: its topic '{prompt.topic}' holds '{SUITE_MARK}', which parts a suite's name from its topics"
        for suite in suites
        for prompt in suite.prompts
        if SUITE_MARK in prompt.topic and len(suites) > 1
    ]
    return marked + [
        f"{suite.name} has references in '{suite.language}', but is added to {suites[0].name}, measured in '{suites[0].language}'"
        for suite in suites[1:]
        if suite.language != suites[0].language and any(prompt.reference for prompt in suite.prompts)
    ]


def _unite(suites: Sequence[Suite]) -> Suite:
    main, *others = suites
    prompts = [*main.prompts, *(_named(prompt, suite.name) for suite in others for prompt in suite.prompts)]
    rules = [_kept_within(rule, "") for rule in main.rules.rules]
    rules += [_kept_within(rule, suite.name) for suite in others for rule in suite.rules.rules]
    return main.model_copy(
        update={
            "name": " + ".join(suite.name for suite in suites),
            "prompts": tuple(prompts),
            "rules": RuleBook.model_construct(version=main.rules.version, rules=tuple(rules)),
        }
    )


def _named(prompt: Prompt, suite: str) -> Prompt:
    named = {"id": _with(suite, prompt.id), "topic": _with(suite, prompt.topic), "tags": tuple(_with(suite, tag) for tag in prompt.tags)}
    return prompt.model_copy(update=named)


def _kept_within(rule: Rule, suite: str) -> Rule:
    when = rule.when or When()
    within = {
        "suite": suite,
        "topics": tuple(_with(suite, topic) for topic in when.topics),
        "tags": tuple(_with(suite, tag) for tag in when.tags),
    }
    return rule.model_copy(update={"id": _with(suite, rule.id), "when": when.model_copy(update=within)})


def _with(suite: str, name: str) -> str:
    return f"{suite}{SUITE_MARK}{name}" if suite else name
