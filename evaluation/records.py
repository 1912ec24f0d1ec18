"""The records of judging: every answer with how it fared (`Scorecard`), and what follows from two of them (`Verdict`).

The chain goes on from `training.records`: a scorecard names the digest of the model it measured, a verdict those of its
scorecards. Numbers that could not be measured are None, never NaN. Next: `gate.py`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from evaluation.config import MetricName
from evaluation.metrics.text_scores import TextScores
from evaluation.outcome import Outcome as Outcome
from evaluation.rules import RuleResult, Severity
from evaluation.suite import Generation, Message
from training.records import Record

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grade(_Fact):
    """What a judge model said of an answer; `passed` is None where it said nothing that can be understood."""

    passed: bool | None = Field(description="None where it said nothing that can be understood")
    reason: str = Field(description="its words, or why there are none")


class AnswerRecord(TextScores):
    """One prompt, one answer, and everything measured about it."""

    prompt_id: str = Field(description="as in the suite")
    repetition: int = Field(default=0, ge=0, description="from 0: which of several answers to the prompt this is, and its seed")
    topic: str = Field(description="as in the suite")
    tags: tuple[str, ...] = Field(default=(), description="as in the suite")
    messages: tuple[Message, ...] = Field(description="as sent, the system prompt included")
    reference: str = Field(description="the suite's good answer; '' where only rules judge")
    answer: str = Field(description="the model's text, as it came")
    finish_reason: str = Field(description="as the server says: stop, or length where it was cut off")
    latency_s: Number = Field(ge=0, description="from sending the request to its last byte")
    ttft_s: Number | None = Field(default=None, ge=0, description="to the first token with text; None for an empty answer")
    completion_tokens: int | None = Field(default=None, description="of the answer, as the server counts; None where it does not")
    rules: tuple[RuleResult, ...] = Field(default=(), description="every rule that holds for the prompt, kept or broken")
    label: str | None = Field(default=None, description="the prompt's true label, in a classification suite")
    predicted_label: str | None = Field(default=None, description="the label that the answer gives; None: none, or several")
    grade: Grade | None = Field(default=None, description="a judge model's, where the recipe has one")
    reference_logprob: Number | None = Field(default=None, le=0, description="natural log, summed over the reference's tokens")
    reference_tokens: int | None = Field(default=None, description="of the reference, as the server cuts it")

    @property
    def truncated(self) -> bool:
        """Whether the answer ended because it reached `max_tokens`."""
        return self.finish_reason == "length"

    @property
    def endless(self) -> bool:
        """Whether it would have gone on in a loop."""
        return self.truncated and self.loops

    @property
    def broken(self) -> tuple[RuleResult, ...]:
        """The rules this answer breaks."""
        return tuple(result for result in self.rules if not result.passed)

    def breaks(self, severity: Severity) -> bool:
        """Whether it breaks a rule of this severity."""
        return any(result.severity == severity for result in self.broken)


class TaskScore(_Fact):
    """One lm-eval task run against the same endpoint. `correct` has one entry per item, in the task's own order."""

    task: str = Field(description="name of the task")
    metric: str = Field(description="lm-eval's metric that says whether an item is correct, e.g. acc or exact_match")
    terms: str = Field(description="digest of items, few-shot examples and API: results of other terms cannot be compared")
    accuracy: Number = Field(ge=0, le=1, description="share of items answered correctly")
    correct: tuple[bool, ...] = Field(description="item by item, in the task's own order")


class Scorecard(Record):
    """One model on one suite, measured over the API of the server that runs it."""

    subject: str = Field(description="for people: a release id or 'candidate'")
    model_digest: str = Field(description="of the record of the model that the server ran")
    suite_name: str = Field(description="as the suite calls itself")
    suite_version: int = Field(description="raised by hand when prompts or references change")
    suite_digest: str = Field(description="of all that can change a score; scores of different digests are never compared")
    language: Literal["en", "zh"] = Field(description="how words are cut for BLEU and ROUGE")
    generation: Generation = Field(description="how answers were generated")
    concurrency: int = Field(description="requests in flight; latency was measured under this load")
    repetitions: int = Field(default=1, description="answers per prompt; those of one prompt stand together")
    bleu_signature: str = Field(description="sacrebleu's signature of how BLEU was computed")
    chrf_signature: str = Field(description="the same for chrF")
    task_terms: tuple[str, ...] = Field(default=(), description="of the tasks in order: two scorecards with other terms are not compared")
    answers: tuple[AnswerRecord, ...] = Field(description="in the suite's order; those of one prompt stand together")
    tasks: tuple[TaskScore, ...] = Field(default=(), description="lm-eval tasks, where the recipe asks for forgetting")
    metrics: dict[MetricName, Number | None] = Field(description="every number the gate can judge; None where it was not measured")


class Timing(_Fact):
    """How fast one answer came."""

    prompt_id: str = Field(description="as in the suite")
    latency_s: Number = Field(ge=0, description="from sending the request to its last byte")
    ttft_s: Number | None = Field(default=None, ge=0, description="to the first token with text; None for an empty answer")
    completion_tokens: int | None = Field(default=None, description="as the server counts; None where it does not")


class SideBySide(Record):
    """How fast two servers answered the same prompts, taking turns: the only figures by which speed is compared."""

    candidate_model: str = Field(description="digest of the record of the model that the candidate's server ran")
    champion_model: str = Field(description="the same of the champion's")
    suite_digest: str = Field(description="of the suite that the prompts are from")
    generation: Generation = Field(description="how answers were generated")
    in_flight: int = Field(description="requests at once")
    candidate: tuple[Timing, ...] = Field(description="in the order in which they were asked")
    champion: tuple[Timing, ...] = Field(description="the same prompts in the same order")


class Choice(_Fact):
    """Which of two answers to a prompt a judge model prefers, asked twice with their places swapped."""

    prompt_id: str = Field(description="as in the suite")
    preferred: Literal["candidate", "champion", "tie"] | None = Field(
        description="None where the judge said nothing that can be understood"
    )
    reason: str = Field(default="", description="why there is no preference, or why nobody was asked")


class Preferences(Record):
    """What a judge model prefers, prompt by prompt, between the answers of two scorecards."""

    candidate_digest: str = Field(description="of the candidate's scorecard")
    champion_digest: str = Field(description="of the champion's scorecard")
    judge: str = Field(description="the judge model's name")
    terms: str = Field(description="digest of the judge's address, name and criteria")
    choices: tuple[Choice, ...] = Field(description="one for each prompt, in the scorecard's order")


class Condition(_Fact):
    """One condition of the policy and how it came out."""

    name: str = Field(description="as in the recipe, e.g. must.rule_pass_rate, or slices.topic=sleep.must.rule_pass_rate")
    metric: MetricName | None = Field(default=None, description="the metric it judges; None for conditions of another kind")
    slice: str | None = Field(default=None, description="where it was judged on a part of the prompts: topic=…, tag=… or language=…")
    prompts: int | None = Field(default=None, description="how many prompts the number is made of")
    measured: Number | None = Field(default=None, description="the candidate's number")
    champion: Number | None = Field(default=None, description="the champion's number")
    difference: Number | None = Field(default=None, description="candidate minus champion, in the unit of `interval`")
    relative: bool = Field(default=False, description="difference, interval, margin and detectable are shares of the champion's number")
    margin: Number | None = Field(default=None, description="how much worse is allowed")
    threshold: str = Field(description="the condition in words, e.g. '≥ 0.9'")
    interval: tuple[Number | None, Number | None] | None = Field(
        default=None, description="of the candidate's number (must) or of candidate minus champion (comparisons); None: open on that side"
    )
    detectable: Number | None = Field(default=None, description="the smallest change that so many prompts show 4 times in 5")
    p_value: Number | None = Field(default=None, description="of the claim; corrected where the policy makes one of several claims do")
    broken: tuple[str, ...] = Field(default=(), description="flip_budget: the prompts that the champion passed and the candidate does not")
    outcome: Outcome = Field(description="how it came out")
    sentence: str = Field(description="plain words")


class Verdict(Record):
    """Whether the candidate may take the champion's place, with every reason."""

    candidate_digest: str = Field(description="of the candidate's scorecard")
    champion_digest: str | None = Field(description="of the champion's scorecard")
    suite_digest: str = Field(description="of the suite that both answered")
    preferences_digest: str | None = Field(default=None, description="of a judge's preferences; None where the policy asks for none")
    speed_digest: str | None = Field(default=None, description="of the side-by-side measurement; None where the policy compares no speed")
    policy_digest: str = Field(description="of the recipe's gate section")
    outcome: Outcome = Field(description="the worst outcome of all conditions; only PASS promotes")
    conditions: tuple[Condition, ...] = Field(description="every condition of the policy")
    notes: tuple[str, ...] = Field(default=(), description="what was not judged, and why")

    @property
    def promotes(self) -> bool:
        """Only PASS does."""
        return self.outcome is Outcome.PASS
