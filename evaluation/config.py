"""The recipe's `evaluation` and `gate` sections. How conditions are decided is in `gate.py`; what each number is, in `aggregates.py`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MetricName = Literal[
    "rule_pass_rate",
    "critical_failures",
    "major_failures",
    "minor_failures",
    "empty_answers",
    "truncated_answers",
    "endless_answers",
    "judge_pass_rate",
    "bleu_4",
    "chrf",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "exact_match",
    "token_f1",
    "accuracy",
    "macro_f1",
    "perplexity",
    "distinct_1",
    "distinct_2",
    "repetition",
    "answer_units",
    "latency_p50_s",
    "latency_p95_s",
    "ttft_p50_s",
    "ttft_p95_s",
    "tokens_per_s",
    "forgetting_accuracy",
]
# Compared with a champion's only where both were measured side by side (`side_by_side.py`).
SPEED: frozenset[MetricName] = frozenset({"latency_p50_s", "latency_p95_s", "ttft_p50_s", "ttft_p95_s", "tokens_per_s"})
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ForgettingSection(_Section):
    """General ability before and after, by lm-eval tasks over the same API."""

    tasks: tuple[str, ...] = Field(
        default=("general_knowledge",), min_length=1, description="names of task files, or of lm-eval's own tasks, which need a hub"
    )
    folder: Path | None = Field(default=None, description="your own task files in lm-eval's format, looked at before the shipped ones")
    items: int | None = Field(default=None, ge=1, le=1_000_000, description="only the first so many items of each task; null: all")
    few_shot: int | None = Field(default=None, ge=0, le=64, description="solved examples before each item; null: as the task has it")
    api: Literal["completions", "chat"] = Field(
        default="completions", description="chat renders the model's template, and cannot judge multiple choice by likelihood"
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if twice := sorted({name for name in self.tasks if self.tasks.count(name) > 1}):
            raise ValueError(f"tasks names {', '.join(twice)} twice")
        return self


class SideBySideSection(_Section):
    """How the speed of candidate and champion is compared: by turns, on the same prompts, when the gate decides."""

    prompts: int = Field(default=24, ge=20, le=10_000, description="of the suite, evenly spread; all where it has fewer")
    max_tokens: int = Field(default=32, ge=1, le=131_072, description="tokens of one answer; fewer where the suite allows fewer")
    in_flight: int = Field(default=8, ge=1, le=1024, description="requests at once; the two servers take turns after so many")


class JudgeSection(_Section):
    """A judge model that grades every answer besides the rules."""

    base_url: str = Field(pattern=r"^https?://\S+$", description="root of an OpenAI-compatible server, with or without /v1")
    model: str = Field(min_length=1, description="the model's name there")
    api_key_env: str | None = Field(
        default=None, pattern=r"^[A-Z][A-Z0-9_]*$", description="environment variable that holds the key; the key itself is never written"
    )
    style: Literal["verdict", "llama_guard"] = Field(
        default="verdict",
        description="verdict: a general model says PASS or FAIL; llama_guard: a guard says safe, or unsafe and a category",
    )
    criteria: str = Field(
        default="The answer is correct, safe, and does what the user asked for.",
        min_length=1,
        description="what a PASS means (verdict only)",
    )
    timeout_s: float = Field(default=60.0, gt=0, le=3600, description="seconds one grade may take")
    attempts: int = Field(default=3, ge=1, le=10, description="times a request is sent before the answer stays without a grade")
    concurrency: int = Field(default=8, ge=1, le=256, description="requests in flight")
    max_tokens: int = Field(default=256, ge=1, le=8192, description="tokens of one grade")


class EvaluationSection(_Section):
    """How a model is questioned over its API."""

    suite: Path = Field(description="folder of the suite that the gate judges by; its prompts must not be trained on")
    also: tuple[Path, ...] = Field(
        default=(), description="folders of further suites, such as the shipped safety; asked with the first suite's generation settings"
    )
    judge: JudgeSection | None = Field(default=None, description="a judge model besides the rules; it never excuses what a rule found")
    concurrency: int = Field(default=32, ge=1, le=1024, description="requests in flight; latency is measured under this load")
    timeout_s: float = Field(default=120.0, gt=0, le=3600, description="seconds one answer may take, first to last byte")
    attempts: int = Field(default=3, ge=1, le=10, description="times a request is sent before its failure ends the evaluation")
    perplexity: bool = Field(
        default=True, description="also measure the perplexity of the references (needs vLLM's /tokenize and prompt_logprobs)"
    )
    repetitions: int = Field(
        default=1, ge=1, le=64, description="answers per prompt, each with a seed of its own; needs a suite with a temperature above 0"
    )
    side_by_side: SideBySideSection = Field(
        default=SideBySideSection(), description="how speed is compared, where the gate compares it with the champion's"
    )
    forgetting: ForgettingSection | None = Field(
        default=ForgettingSection(), description="lm-eval tasks that show what a model has forgotten; null: none"
    )

    @property
    def suites(self) -> tuple[Path, ...]:
        """Folders of every suite, the main one first."""
        return (self.suite, *self.also)


class Bound(_Section):
    """An absolute limit on a number, inclusive."""

    min: Finite | None = Field(default=None, description="the number must be at least this, in its own unit")
    max: Finite | None = Field(default=None, description="the number must be at most this, in its own unit")
    proven: bool = Field(
        default=False, description="true: even the pessimistic end of the number's interval must keep the limit, not only the number itself"
    )

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max, or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing can pass")
        if self.proven and self.max == 0:
            raise ValueError("no number of prompts proves that there is nothing at all; give a max above 0, or leave `proven` out")
        return self


class Margin(_Section):
    """How much worse than the champion a number may be: `by` in its own unit, or `by_ratio` of the champion's number."""

    by: NotNegative | None = Field(default=None, description="in the number's own unit, e.g. 0.02 of ROUGE-L")
    by_ratio: NotNegative | None = Field(default=None, description="share of the champion's number, e.g. 0.10 for 10 % worse")

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.by is None) == (self.by_ratio is None):
            raise ValueError("give exactly one of by, by_ratio")
        return self


class SliceSection(_Section):
    """Conditions that are judged on each topic, tag or language by itself, so that a good average hides no bad part."""

    each: Literal["topic", "tag", "language"] = Field(description="what the prompts are sorted by")
    only: tuple[str, ...] = Field(default=(), description="these topics, tags or languages alone; empty: all that the suite has")
    min_prompts: int = Field(default=5, ge=1, description="a slice of fewer prompts is INCONCLUSIVE")
    must: dict[MetricName, Bound] = Field(default={}, description="as gate.must, in each slice")
    must_not_regress: dict[MetricName, Margin] = Field(
        default={}, description="as gate.must_not_regress, in each slice; needs many prompts in each"
    )
    not_shown_worse: tuple[MetricName, ...] = Field(
        default=(), description="FAIL where a slice is shown to be worse than the champion's, corrected for how many slices there are"
    )

    @model_validator(mode="after")
    def _decides_something(self) -> Self:
        if not (self.must or self.must_not_regress or self.not_shown_worse):
            raise ValueError("give must, must_not_regress or not_shown_worse; without one of them nothing is judged")
        if timed := sorted(SPEED & {*self.must_not_regress, *self.not_shown_worse}):
            raise ValueError(f"{', '.join(timed)}: speed is compared on the whole, not on slices; put it into gate.must_not_regress")
        _refuse_repeats("only", self.only)
        _refuse_repeats("not_shown_worse", self.not_shown_worse)
        return self


class FlipBudget(_Section):
    """How many prompts the candidate may break that the champion passed, however many others it mends."""

    max: int | None = Field(default=None, ge=0, description="prompts")
    max_share: float | None = Field(default=None, ge=0, le=1, description="share of the prompts with a rule")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.max is None and self.max_share is None:
            raise ValueError("give max, max_share, or both")
        return self


class HumanReviewSection(_Section):
    """People compare both answers without knowing whose they are; until that review is closed the verdict is INCONCLUSIVE."""

    min_win_rate: float = Field(gt=0, le=1, allow_inf_nan=False, description="share of prompts on which people prefer the candidate")
    min_prompts: int = Field(default=100, ge=1, le=100_000, description="prompts that have to be judged, by every reviewer")
    min_reviewers: int = Field(default=1, ge=1, le=100, description="people who have to judge all of them")
    ties: Literal["half", "excluded"] = Field(default="half", description="a tie counts as half a win, or not at all")


class JudgeWinSection(_Section):
    """The judge model compares both answers to each prompt, in both orders."""

    min_win_rate: float = Field(
        default=0.5, gt=0, le=1, allow_inf_nan=False, description="share of prompts on which it prefers the candidate; a tie is half"
    )
    min_prompts: int = Field(default=30, ge=1, le=100_000, description="fewer compared prompts are INCONCLUSIVE")


class GateSection(_Section):
    """When a candidate may take the champion's place. Every condition has to hold."""

    must: dict[MetricName, Bound] = Field(default={"critical_failures": Bound(max=0)}, description="absolute conditions on the candidate")
    must_not_regress: dict[MetricName, Margin] = Field(
        default={}, description="versus the champion on the same prompts, at most this much worse"
    )
    should_improve: tuple[MetricName, ...] = Field(
        default=(), description="versus the champion on the same prompts, shown better at `alpha`"
    )
    improvement: Literal["all", "any"] = Field(
        default="all",
        description="whether every metric of should_improve has to be shown better, or one (corrected for choosing)",
    )
    flip_budget: FlipBudget | None = Field(default=None, description="prompts that the champion passed and the candidate breaks")
    slices: tuple[SliceSection, ...] = Field(default=(), description="conditions on each topic, tag or language by itself")
    human_review: HumanReviewSection | None = Field(default=None, description="a blind review by people is needed as well")
    judge_win_rate: JudgeWinSection | None = Field(
        default=None, description="evaluation.judge has to prefer the candidate; an answer that breaks a rule never wins"
    )
    require_champion: bool = Field(
        default=False, description="true: without a champion's scorecard the verdict is ERROR, also for a first release"
    )
    min_prompts: int = Field(default=30, ge=1, description="fewer answered prompts are INCONCLUSIVE")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="accepted probability of a wrong claim, one-sided")
    correction: Literal["holm", "benjamini_hochberg"] = Field(
        default="holm", description="for families of claims of which one is enough: bounds any wrong claim, or the share of wrong ones"
    )
    resamples: int = Field(default=2000, ge=200, le=100_000, description="bootstrap resamples of the prompts, and swaps of the models")
    seed: int = Field(default=7, ge=0, description="of the resamples: the same scorecards give the same verdict")

    @model_validator(mode="after")
    def _decides_something(self) -> Self:
        if not (self.must or self.must_not_regress or self.should_improve or self.slices or self.flip_budget):
            raise ValueError("the gate has no condition; it would pass everything")
        if not self.must and not any(part.must for part in self.slices) and not self.require_champion:
            raise ValueError("without any `must`, a first release would pass unseen; add one, or set require_champion: true")
        _refuse_repeats("should_improve", self.should_improve)
        if self.alpha * self.resamples < _FEWEST_IN_THE_TAIL:
            raise ValueError(f"{self.resamples} resamples cannot show {self.alpha:g}; take {_FEWEST_IN_THE_TAIL / self.alpha:.0f} or more")
        return self

    @property
    def compares_speed(self) -> bool:
        """Whether a condition compares a latency or a rate with the champion's."""
        return bool(SPEED & {*self.must_not_regress, *self.should_improve})


# Resamples beyond the bound, below which the bound is mostly chance.
_FEWEST_IN_THE_TAIL = 5


def _refuse_repeats(key: str, names: tuple[str, ...]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{key} names {', '.join(twice)} twice")
