"""A suite: prompts with references, the rules that judge the answers, and how the answers are to be generated. Data, versioned.

A suite is a folder with `suite.yaml`, a JSONL file of prompts and a rule file. Its digest covers everything that can change a
score, and goes into every scorecard: scores of different digests are never compared. Next: `scoring.py`.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluation.documents import explain, read_jsonl, read_yaml
from evaluation.errors import SuiteError, nearest
from evaluation.rule_files import load_rules
from evaluation.rules import RuleBook
from evaluation.text import WORD, fold_text
from training.records import digest_of

SUITE_FILE = "suite.yaml"
Role = Literal["system", "user", "assistant"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Frozen):
    """One turn of a conversation."""

    role: Role = Field(description="who says it")
    content: str = Field(description="what is said")


class Generation(_Frozen):
    """How answers are generated; the same for every model that a suite compares."""

    max_tokens: int = Field(default=128, ge=1, le=8192, description="tokens per answer")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 means greedy: the same model gives the same answers")


class Prompt(_Frozen):
    """One conversation that ends with the user, and a reference answer; `reference` is "" where only rules judge."""

    id: str
    topic: str
    messages: tuple[Message, ...]
    reference: str = ""
    label: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The last user message."""
        return self.messages[-1].content


class Suite(_Frozen):
    """A loaded suite."""

    name: str
    version: int
    language: Literal["en", "zh"]
    system_prompt: str | None
    prompts: tuple[Prompt, ...]
    rules: RuleBook
    generation: Generation
    labels: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Hex sha256 over all that can change a score; file names and formatting cannot."""
        return digest_of(self.model_dump(mode="json"))


class _Header(_Frozen):
    """`suite.yaml`."""

    name: str = Field(min_length=1, description="printed in scorecards and reports")
    version: int = Field(ge=1, description="raised by hand when prompts or references change")
    language: Literal["en", "zh"] = Field(description="decides how BLEU and ROUGE cut words")
    system_prompt: str | None = Field(default=None, description="put first where a prompt has no system message")
    prompts: str = Field(default="prompts.jsonl", description="path from this folder")
    rules: str = Field(default="rules.yaml", description="path from this folder; two suites may share a rule file")
    references: Literal["required", "optional"] = Field(
        default="required", description="optional: a prompt without a reference is judged by rules alone"
    )
    generation: Generation = Generation()
    labels: tuple[str, ...] = Field(default=(), description="of a classification suite: what an answer may choose from")

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        folded = [fold_text(label) for label in self.labels]
        if len(folded) == 1 or len(set(folded)) < len(folded) or not all(WORD.search(label) for label in folded):
            raise ValueError("labels: give none, or at least two that differ in more than case and width, each with a letter or digit")
        return self


class _Line(_Frozen):
    """One line of the prompts file: `prompt` (one user message) or `messages`."""

    id: str = Field(min_length=1)
    topic: str = Field(min_length=1)
    prompt: str | None = Field(default=None, min_length=1)
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)
    reference: str | None = Field(
        default=None, min_length=1, description="a good answer; BLEU, ROUGE and perplexity are measured against it"
    )
    label: str | None = Field(default=None, min_length=1, description="one of the suite's labels: what the answer should choose")
    tags: tuple[str, ...] = ()


def load_suite(folder: Path) -> Suite:
    """Read a suite folder.

    Raises:
        SuiteError: with every problem of all its files, each as `file:line: what`.
    """
    problems: list[str] = []
    header = _read_header(folder / SUITE_FILE, problems)
    if header is None:
        raise SuiteError(problems)
    prompts = _read_prompts(folder / header.prompts, header, problems)
    _check_labels(header.labels, prompts, folder / header.prompts, problems)
    book = _read_rules(folder / header.rules, problems)
    if book and (folder / header.rules).parent.resolve() == folder.resolve():  # who shares another suite's rules may leave topics out
        _check_topics(book, prompts, folder / header.rules, problems)
    if problems or book is None:
        raise SuiteError(problems)
    return Suite(
        name=header.name,
        version=header.version,
        language=header.language,
        system_prompt=header.system_prompt,
        prompts=tuple(prompts),
        rules=book,
        generation=header.generation,
        labels=header.labels,
    )


def _read_header(path: Path, problems: list[str]) -> _Header | None:
    document = read_yaml(path, problems)
    if document is None:
        return None
    try:
        return _Header.model_validate(document.value)
    except ValidationError as error:
        problems += explain(error, _Header, document)
        return None


def _read_rules(path: Path, problems: list[str]) -> RuleBook | None:
    try:
        return load_rules(path)
    except SuiteError as error:
        problems += error.problems
        return None


def _read_prompts(path: Path, header: _Header, problems: list[str]) -> list[Prompt]:
    prompts: list[Prompt] = []
    first_line: dict[str, int] = {}
    before = len(problems)
    for number, value in read_jsonl(path, problems):
        prompt = _read_prompt(value, f"{path}:{number}", header, problems)
        if prompt is None:
            continue
        if prompt.id in first_line:
            problems.append(f"{path}:{number}: prompt {prompt.id} is there twice; the first is in line {first_line[prompt.id]}")
        first_line.setdefault(prompt.id, number)
        prompts.append(prompt)
    if not prompts and len(problems) == before:
        problems.append(f"{path}:1: no prompts")
    return prompts


def _read_prompt(value: dict[str, Any], where: str, header: _Header, problems: list[str]) -> Prompt | None:
    subject = f"prompt {value['id']}" if "id" in value else ""
    try:
        line = _Line.model_validate(value)
    except ValidationError as error:
        problems += explain(error, _Line, where, subject=subject)
        return None
    if (line.prompt is None) == (line.messages is None):
        problems.append(f"{where}: {subject}: give either prompt or messages")
        return None
    messages = line.messages or (Message(role="user", content=line.prompt or ""),)
    faults = list(_turn_faults(messages))
    problems += [f"{where}: {subject}: {fault}" for fault in faults]
    if line.reference is None and header.references == "required":
        problems.append(
            f"{where}: {subject} reference: is missing; without one only rules can judge: say so by references: optional in {SUITE_FILE}"
        )
        return None
    if line.reference is not None and not line.reference.strip():
        problems.append(f"{where}: {subject} reference: is blank")
        return None
    if header.system_prompt and messages[0].role != "system":
        messages = (Message(role="system", content=header.system_prompt), *messages)
    if faults:
        return None
    return Prompt(id=line.id, topic=line.topic, messages=messages, reference=line.reference or "", label=line.label, tags=line.tags)


def _turn_faults(messages: tuple[Message, ...]) -> Iterable[str]:
    if messages[-1].role != "user":
        yield f"the last message must come from the user, it comes from the {messages[-1].role}"
    if any(message.role == "system" for message in messages[1:]):
        yield "a system message can only be the first"
    if any(not message.content.strip() for message in messages):
        yield "a message is blank"
    turns = [message.role for message in messages if message.role != "system"]
    if any(first == second for first, second in itertools.pairwise(turns)):
        yield "user and assistant must take turns"


def _check_labels(labels: tuple[str, ...], prompts: list[Prompt], path: Path, problems: list[str]) -> None:
    for prompt in prompts:
        if prompt.label is not None and prompt.label not in labels:
            problems.append(
                f"{path}: prompt {prompt.id} label: '{prompt.label}' is not among the suite's labels{nearest(prompt.label, labels)}"
            )


def _check_topics(book: RuleBook, prompts: list[Prompt], path: Path, problems: list[str]) -> None:
    topics, tags = {prompt.topic for prompt in prompts}, {tag for prompt in prompts for tag in prompt.tags}
    for rule in book.rules:
        for topic in rule.when.topics if rule.when else ():
            if topic not in topics:
                problems.append(f"{path}: rule {rule.id} when.topics: no prompt has the topic '{topic}'{nearest(topic, topics)}")
        for tag in rule.when.tags if rule.when else ():
            if tag not in tags:
                problems.append(f"{path}: rule {rule.id} when.tags: no prompt has the tag '{tag}'{nearest(tag, tags)}")
