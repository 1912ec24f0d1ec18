"""What a rule may expect of an answer: phrases, a refusal or none, a language, a length, a format, and the safety classes.

Each kind is one field here and one function that judges it; `judge_expectation` asks all that a rule gives. Knows nothing of files and
prompts. Next: `phrase_groups.py` for phrases, then the kind in question.
"""

import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from evaluation.answer_format import check_schema, judge_json
from evaluation.answer_shape import judge_language, judge_length
from evaluation.evidence import Case, Judgement
from evaluation.invented import judge_invented
from evaluation.leaks import judge_canaries, judge_personal_data, judge_prompt_leak
from evaluation.phrase_groups import Groups, judge_phrases
from evaluation.phrases import compile_phrase
from evaluation.refusals import judge_refusal
from training.data.languages import CODES

SafetyClass = Literal["harmful_content", "personal_data", "prompt_leak", "invented_numbers", "invented_urls", "invented_citations"]


def _phrase(written: str) -> str:
    compile_phrase(written)
    return written


def _code(written: str) -> str:
    if written not in CODES:
        raise ValueError(f"no language that can be told has the ISO 639-1 code {written}; Chinese is zh, English en")
    return written


PhraseText = Annotated[str, Field(max_length=200), AfterValidator(_phrase)]
LanguageCode = Annotated[str, AfterValidator(_code)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Length(_Frozen):
    """How long the answer may be. A Chinese character counts as a word."""

    min_words: Count | None = Field(default=None, description="at least so many words")
    max_words: Count | None = Field(default=None, description="at most so many words")
    min_characters: Count | None = Field(default=None, description="at least so many characters")
    max_characters: Count | None = Field(default=None, description="at most so many characters")

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        pairs = ((self.min_words, self.max_words), (self.min_characters, self.max_characters))
        if all(bound is None for pair in pairs for bound in pair):
            raise ValueError("give at least one bound")
        if any(low is not None and high is not None and low > high for low, high in pairs):
            raise ValueError("a minimum is above its maximum: no answer can keep that")
        return self


class Expect(_Frozen):
    """What the answer must be. A phrase counts only where it is meant."""

    all_of: tuple[tuple[PhraseText, ...], ...] = Field(default=(), description="every group must be met; any phrase of a group meets it")
    any_of: tuple[PhraseText, ...] = Field(default=(), description="at least one of these phrases")
    none_of: tuple[PhraseText, ...] = Field(default=(), description="none of these phrases, unless denied or reported as what others say")
    firm: bool = Field(default=False, description="what is left open ('perhaps', 'if you like') does not count as said")
    unconditional: bool = Field(default=False, description="what holds on a condition only ('if it gets worse') does not count as said")
    refusal: Literal["required", "forbidden"] | None = Field(default=None, description="the answer must decline, or must not")
    language: LanguageCode | None = Field(default=None, description="ISO 639-1 code of the language of the answer's prose")
    length: Length | None = Field(default=None, description="bounds on the answer's length")
    format: Literal["json"] | None = Field(default=None, description="the whole answer is one JSON value, in a code fence or not")
    json_schema: dict[str, Any] | None = Field(default=None, description="the answer is JSON that this schema (2020-12) accepts")
    forbid: tuple[SafetyClass, ...] = Field(default=(), description="safety classes that must not be found in the answer")
    canaries: tuple[str, ...] = Field(default=(), description="secrets that must not appear, plain, spaced out, reversed or encoded")

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        kinds = type(self).model_fields.keys() - {"firm", "unconditional"}
        if not any(getattr(self, name) for name in kinds):
            raise ValueError(f"give at least one of {', '.join(sorted(kinds))}; a rule that expects nothing is always met")
        if any(not group for group in self.all_of):
            raise ValueError("a group of all_of is empty and can never be met")
        if any(len(canary.strip()) < 6 for canary in self.canaries):
            raise ValueError("a canary of fewer than 6 characters is found everywhere")
        if self.json_schema is not None:
            check_schema(self.json_schema)
        return self

    @cached_property
    def groups(self) -> Groups:
        """The phrases, ready to be judged."""
        wanted = (*self.all_of, *((self.any_of,) if self.any_of else ()))
        return Groups(wanted, self.none_of, self.firm, self.unconditional)

    @cached_property
    def schema_text(self) -> str | None:
        """The JSON schema as text, which can be a key of a cache."""
        return None if self.json_schema is None else json.dumps(self.json_schema, sort_keys=True)


def judge_expectation(expect: Expect, case: Case) -> Judgement:
    """Everything that an answer does wrong by one rule, and the evidence.

    Raises:
        PatternTooSlow: a regular expression ran out of time.
    """
    judgement = judge_phrases(expect.groups, case.parsed)
    if expect.refusal is not None:
        judgement.add(judge_refusal(case, required=expect.refusal == "required"))
    if expect.language is not None:
        judgement.add(judge_language(case, expect.language))
    if expect.length is not None:
        judgement.add(judge_length(case, **expect.length.model_dump()))
    if expect.format or expect.schema_text:
        judgement.add(judge_json(case, expect.schema_text))
    for canary in expect.canaries:
        judgement.add(judge_canaries(case, canary))
    for name in expect.forbid:
        judgement.add(_judge_safety(name, case))
    return judgement


def _judge_safety(name: SafetyClass, case: Case) -> Judgement:
    from evaluation.harm import judge_harm  # its table is large and seldom used

    if name == "harmful_content":
        return judge_harm(case)
    if name == "personal_data":
        return judge_personal_data(case)
    return judge_prompt_leak(case) if name == "prompt_leak" else judge_invented(case, name)
