"""Asks two releases the same questions through the `openai` client and shows the answers side by side, with the rules they broke."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from evaluation.rules import RuleResult, judge_answer, rules_for
from evaluation.suite import Prompt, Suite
from flows.display import plain

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

QUESTIONS = 3
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class ShownAnswer:
    """One answer as a caller got it. `broken` are the rules it breaks."""

    release_id: str
    text: str
    broken: tuple[RuleResult, ...]


def questions(suite: Suite, count: int = QUESTIONS) -> list[Prompt]:
    """The first prompt of each of the first `count` topics that a critical rule watches over; any prompts if there are too few."""
    watched = [prompt for prompt in suite.prompts if any(rule.severity == "critical" for rule in rules_for(suite.rules, prompt))]
    first_of_topic = {prompt.topic: prompt for prompt in reversed(watched or suite.prompts)}
    return [first_of_topic[topic] for topic in dict.fromkeys(prompt.topic for prompt in watched or suite.prompts)][:count]


def ask(base_url: str, key: SecretStr, model: str, suite: Suite, prompts: Sequence[Prompt]) -> list[ShownAnswer]:
    """Ask the gateway as an application would; one answer per prompt."""
    from openai import OpenAI  # a second of imports that only a question needs

    client = OpenAI(base_url=f"{base_url}/v1", api_key=key.get_secret_value(), timeout=_TIMEOUT_S)
    return [_ask(client, model, suite, prompt) for prompt in prompts]


def side_by_side(console: Console, prompts: Sequence[Prompt], before: Sequence[ShownAnswer], after: Sequence[ShownAnswer]) -> None:
    """Print the answers of two releases to the same prompts."""
    table = Table(show_lines=True, expand=True)
    table.add_column("question", ratio=2)
    table.add_column(f"{before[0].release_id}, before", ratio=3)
    table.add_column(f"{after[0].release_id}, now", ratio=3)
    for prompt, old, new in zip(prompts, before, after, strict=True):
        table.add_row(plain(prompt.text), _cell(old), _cell(new))
    console.print(table)


def _ask(client: "OpenAI", model: str, suite: Suite, prompt: Prompt) -> ShownAnswer:
    messages: list[ChatCompletionMessageParam] = [
        {"role": message.role, "content": message.content}  # type: ignore[misc]  # the roles are the client's
        for message in prompt.messages
    ]
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=messages, max_tokens=suite.generation.max_tokens, temperature=suite.generation.temperature
    )
    text = raw.parse().choices[0].message.content or ""
    broken = tuple(result for result in judge_answer(suite.rules, prompt, text) if not result.passed)
    return ShownAnswer(raw.headers.get("x-tunegate-release", "?"), text, broken)


def _cell(answer: ShownAnswer) -> str:
    verdict = "\n".join(f"[red]✗ {plain(each.rule_id)}[/] ({each.severity})" for each in answer.broken) or "[green]✓ keeps every rule[/]"
    return f"{plain(answer.text.strip())}\n\n{verdict}"
