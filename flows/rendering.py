"""Parity: the conversations of a suite as training renders them, compared with how the live server renders them.

Rendering needs the model's tokenizer and so runs as a stage of its own, while the server is still starting; the comparison is
`evaluation/parity.py`. A difference blocks: the model that was trained is then not the model that would be served.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from evaluation.client import Endpoint
from evaluation.parity import ParityReport, awkward_conversations, check_parity
from evaluation.suite import Message, Suite
from evaluation.suite_union import load_suites
from flows.errors import ParityBroken
from training.records import Record, digest_of

if TYPE_CHECKING:
    from flows.recipe import Recipe


class Renders(Record):
    """Token ids of conversations, ready for the assistant's turn, as training writes them."""

    model_digest: str
    suite_digest: str
    end_of_turn: int = Field(description="id of the token that ends the assistant's turn in training")
    ids: dict[str, tuple[int, ...]] = Field(description="digest of a conversation -> token ids")


def render_conversations(model_dir: Path, model_digest: str, suite: Suite, out: Path, created_at: str) -> Renders:
    """Render every prompt of the suite, and conversations made to be awkward, with the served model's tokenizer as training does."""
    from training.chat import prompt_ids, render
    from training.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model_dir)
    conversations = [*(prompt.messages for prompt in suite.prompts), *(messages for _, messages in awkward_conversations())]
    one_turn = render(tokenizer, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}])
    answer = [label for label in one_turn.labels if label >= 0]
    renders = Renders(
        created_at=created_at,
        model_digest=model_digest,
        suite_digest=suite.digest,
        end_of_turn=answer[-1],
        ids={conversation_digest(messages): tuple(prompt_ids(tokenizer, _plain(messages))) for messages in conversations},
    )
    renders.write(out)
    return renders


def compare(endpoint: Endpoint, recipe: "Recipe", renders: Renders, subject: str) -> ParityReport:
    """Ask the live server for its rendering of the same conversations.

    Raises:
        ParityBroken: a conversation, the context length or the stop token differs; every difference is named.
    """
    report = check_parity(
        endpoint,
        load_suites(recipe.evaluation.suites),
        recipe.evaluation,
        lambda messages: renders.ids[conversation_digest(messages)],
        max_model_len=recipe.serving.max_model_len,
        end_of_turn=renders.end_of_turn,
    )
    if not report.holds:
        differences = "\n".join(f"  {each.subject}: {each.what}" for each in report.mismatches)
        raise ParityBroken(
            f"{subject} is not served as it was trained; of {report.compared} conversations compared:\n{differences}",
            why="a model asked in another way than it was trained answers worse, and what was judged would not be what was trained",
            do="compare chat_template.jinja and tokenizer.json of the model with those of its base",
        )
    return report


def conversation_digest(messages: Sequence[Message]) -> str:
    """A name for a conversation that depends on nothing but its turns."""
    return digest_of(_plain(messages))


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def in_words(report: ParityReport) -> str:
    """One line for the terminal."""
    stops = ", stops where training's turns end" if report.stop_checked else ""
    return f"{report.compared} conversations rendered alike by trainer and server{stops}"
