"""What parity compares and what it finds: the trainer's side, and the report that an approver signs along with the verdict.

Knows nothing of servers or of torch. Next: `parity.py`.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.records import Record

Number = Annotated[float, Field(allow_inf_nan=False)]
Dtype = Literal["bfloat16", "float16", "float32"]
TokenIds = tuple[int, ...]

# Fewer conversations than this are not parity, whatever they show; half of them at least must be ones that the template takes.
MIN_COMPARED, MIN_RENDERED = 100, 50


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FaultKind(StrEnum):
    """What is most likely wrong, the causes before their consequences: where several show, the first explains the others."""

    BYTES = "other bytes"
    ADAPTER_LOST = "adapter not applied"
    TOKENIZER = "another tokenizer"
    GENERATION_PROMPT = "generation prompt missing"
    END_OF_TURN = "end-of-turn token lost"
    TEMPLATE = "another template"
    STOP_TOKENS = "other stop tokens"
    DEFAULTS = "other generation defaults"
    CONTEXT = "another context length"
    BASE_SERVED = "base weights served"
    DTYPE = "another number type"
    WEIGHTS = "other weights"
    DECODING = "other greedy tokens"
    NOT_MEASURED = "nothing measured"


class Fault(_Fact):
    """One thing in which trainer and server differ."""

    kind: FaultKind = Field(description="what is most likely wrong")
    subject: str = Field(description="conversation, token or setting")
    what: str = Field(description="both sides, in words")


class Rendered(_Fact):
    """A conversation as training writes it, ready for the assistant's turn."""

    name: str
    ids: TokenIds | None = Field(description="None: the template refuses this conversation")


class Sample(_Fact):
    """One prompt, the trainer's greedy continuation, and natural-log probabilities of every token but the first."""

    name: str
    prompt: TokenIds
    greedy: TokenIds = Field(description="the first tokens of the merged model's greedy answer, computed in bfloat16 by transformers")
    exact: tuple[Number, ...] = Field(description="the merged weights computed in float32")
    rounded: tuple[Number, ...] = Field(description="the merged weights computed in bfloat16: its distance from `exact` is honest spread")
    base: tuple[Number, ...] = Field(description="the base model's weights computed in bfloat16: what a forgotten adapter would give")


class TrainerView(Record):
    """Everything about a merged model that its server must reproduce, as the training side computes it from the model's folder."""

    model_digest: str
    base_digest: str
    suite_digest: str
    conversations: tuple[Rendered, ...]
    texts: dict[str, TokenIds] = Field(description="texts outside of any conversation, without special tokens")
    opening: TokenIds = Field(description="tokens that open the assistant's turn: the generation prompt")
    end_of_turn: int = Field(description="id of the token that ends the assistant's turn in training")
    stops: TokenIds = Field(description="tokens at which an answer ends: the tokenizer's end token and those of generation_config.json")
    special: TokenIds = Field(description="special tokens, at each of which the server is probed")
    defaults: dict[str, Number] = Field(description="sampling settings that apply where a request names none")
    samples: tuple[Sample, ...]
    weights_sha256: dict[str, str] = Field(description="weight file -> sha256 of the bytes these numbers were computed from")
    base_weights_sha256: dict[str, str] = Field(description="the base model's weight files")


class LogprobFigures(_Fact):
    """Natural-log probabilities of the merged weights: served against computed in float32 by transformers. Absolute differences, nats."""

    conversations: int = Field(description="conversations measured")
    tokens: int = Field(description="tokens compared, prompts' and greedy ones")
    mean: Number = Field(description="mean absolute difference, nats; so are the next three")
    median: Number = Field(description="half of the tokens differ by less")
    p99: Number = Field(description="1 % of the tokens differ by more")
    max: Number = Field(description="the largest difference")
    own_mean: Number = Field(description="the trainer's own bfloat16 against its float32: what rounding alone does to this model")
    own_max: Number = Field(description="the largest of those")
    mean_limit: Number = Field(description="`mean` must not be above this: a multiple of `own_mean`")
    max_limit: Number = Field(description="`max` must not be above this: a multiple of `own_max`")
    base_mean: Number = Field(description="the base model against float32: what serving the base by mistake would show")
    dtype_expected: Dtype = Field(description="number type that the recipe has served")
    dtype_seen: Dtype | None = Field(description="told by the size of the differences; None: none explains them")
    greedy_tokens: int = Field(description="greedy tokens compared; of each answer those up to and with its first difference")
    greedy_agreed: int = Field(description="of these, the trainer's own")
    agreement_min: Number = Field(description="least share of `greedy_agreed` in `greedy_tokens`")

    @property
    def agreement(self) -> float:
        """Share of the compared greedy tokens that are the trainer's."""
        return self.greedy_agreed / self.greedy_tokens if self.greedy_tokens else 0.0

    @property
    def tells_base_apart(self) -> bool:
        """Whether a server of the base model would have been noticed by its log-probabilities."""
        return self.base_mean > self.mean_limit


class ParityReport(Record):
    """What a live server was compared with, every figure, and every difference. Part of the evidence that an approver signs."""

    subject: str = Field(description="release id")
    model_digest: str = Field(description="of the model that is served")
    suite_digest: str = Field(description="of the suite whose prompts were compared")
    against_trainer: bool = Field(
        description="false for a model in production: no training render exists for it, and only the identity of its weights is checked"
    )
    weights_sha256: dict[str, str] = Field(description="weight file -> sha256, equal to the model's record")
    compared: int = Field(default=0, ge=0, description="conversations rendered on both sides, or refused by both")
    refused: int = Field(default=0, ge=0, description="of these, refused by the model's own template on both sides")
    texts: int = Field(default=0, ge=0, description="plain texts tokenised on both sides")
    stop_tokens: TokenIds = Field(default=(), description="tokens at which the server was seen to end an answer")
    stops_probed: int = Field(default=0, ge=0, description="tokens at which it was tried whether the server stops")
    defaults: dict[str, Number] = Field(default={}, description="sampling settings that apply where a request names none")
    default_draws: int = Field(default=0, ge=0, description="seeded answers drawn without settings and with the expected ones")
    context_tokens: int | None = Field(default=None, description="context length that the server reports")
    figures: LogprobFigures | None = Field(default=None, description="log-probabilities and greedy tokens; none without a trainer's view")
    faults: tuple[Fault, ...] = Field(default=(), description="every difference, the likeliest cause first")

    @property
    def holds(self) -> bool:
        """Whether nothing differs, and enough was looked at."""
        if self.faults or not self.weights_sha256:
            return False
        enough = self.compared >= MIN_COMPARED and self.compared - self.refused >= MIN_RENDERED
        return not self.against_trainer or (enough and self.figures is not None)

    @property
    def likely(self) -> FaultKind | None:
        """The fault that most likely causes the others."""
        return min((fault.kind for fault in self.faults), key=list(FaultKind).index, default=None)
