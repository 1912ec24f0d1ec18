"""What an answer is worth while a model learns online: by the evaluation's rules, or by a reward model. Here training meets rules.

A rule that is kept counts by its severity, and a broken critical one makes an answer worth less than nothing, so that no number of
other rules makes up for it. Next: `training/online.py`, which learns from these numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from evaluation.errors import PatternTooSlow
from evaluation.rules import RuleResult, Severity, judge_answer, rules_for
from evaluation.suite import Prompt, Suite
from flows.errors import RecipeError
from training.data.leakage import SuitePrompt
from training.data.leakage_keys import TrainKeys, manifest_overlap
from training.records import digest_of
from training.rewarding import Answered, Rewarding

WEIGHTS: Mapping[Severity, float] = MappingProxyType({"critical": 4.0, "major": 2.0, "minor": 1.0})
_LISTED = 10


def reward_by_rules(suite: Suite) -> Rewarding:
    """The reward of an answer under the rules that hold for its prompt, from -1 to 1; None when a rule could not be applied in time."""
    prompts = {prompt.id: prompt for prompt in suite.prompts}

    def rewards(answers: Sequence[Answered]) -> list[float | None]:
        return [_judged(suite, prompts[answer.prompt_id], answer.text) for answer in answers]

    return Rewarding(rewards, digest_of([suite.digest, list(WEIGHTS.items())]))


def reward_by_model(reward_rows: Callable[[Sequence[Sequence[int]]], Sequence[float]], digest: str) -> Rewarding:
    """The numbers that a reward model, of this digest, gives rows of tokens: a prompt and its answer."""

    def rewards(answers: Sequence[Answered]) -> Sequence[float | None]:
        return reward_rows([[*answer.prompt_ids, *answer.answer_ids] for answer in answers])

    return Rewarding(rewards, digest)


def worth(results: Sequence[RuleResult]) -> float:
    """Share of the rules that were kept, each by its weight; with a critical one broken, that share less 1."""
    kept = sum(WEIGHTS[result.severity] for result in results if result.passed)
    share = kept / sum(WEIGHTS[result.severity] for result in results)
    return share - 1 if any(result.severity == "critical" and not result.passed for result in results) else share


def prompt_faults(suite: Suite, judged: Sequence[SuitePrompt], *, by_rules: bool) -> list[str]:
    """Why these prompts are not to be learned from: a prompt that the model will be judged by, or one that no rule holds for."""
    keys = TrainKeys.of([prompt.text for prompt in suite.prompts])
    faults = [f"{each.suite}/{each.id} is the same as a prompt of online.prompts ({suite.name})" for each in manifest_overlap(keys, judged)]
    if by_rules:
        unruled = [prompt.id for prompt in suite.prompts if not rules_for(suite.rules, prompt)]
        faults += [f"no rule holds for prompt {name} of online.prompts: every answer to it would be worth the same" for name in unruled]
    return faults[:_LISTED] + ([f"… and {len(faults) - _LISTED} more"] if len(faults) > _LISTED else [])


def require_prompts(suite: Suite, judged: Sequence[SuitePrompt], *, by_rules: bool) -> None:
    """Raises: RecipeError naming every prompt that is not to be learned from."""
    if faults := prompt_faults(suite, judged, by_rules=by_rules):
        raise RecipeError(faults)


def _judged(suite: Suite, prompt: Prompt, text: str) -> float | None:
    try:
        return worth(judge_answer(suite.rules, prompt, text))
    except PatternTooSlow:
        return None  # the answer is neither better nor worse than another
