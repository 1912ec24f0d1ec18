"""The records of the line, up to the merged model: what went in, what came out, and the digest of the record before.

A record is a frozen value with a digest; two records with the same digest describe the same thing. Facts that differ
between two identical runs (clock times, durations, folders) are listed in `volatile` and stay out of the digest.
A stage folder is finished when its `record.json` is there, because that file is written last.
Knows nothing of torch, HTTP or SQL. Next: `prepare.py`, the first stage.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.atomic import sha256_of, write_text
from training.errors import RecordError
from training.practice.course import Course

RECORD_NAME = "record.json"
SIGNATURE_NAME = "model.sig"
CHECKPOINTS = "checkpoints"  # deleted after the record is written; a run that is killed in between leaves them to nobody's harm


def digest_of(value: object) -> str:
    """Hex sha256 of a JSON value in its one canonical spelling (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Record(BaseModel):
    """A frozen, versioned, hashed fact. Law: `type(r).read(r.write(folder)) == r`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    volatile: ClassVar[frozenset[str]] = frozenset({"created_at", "wall_s"})

    schema_version: Literal[1] = Field(default=1, description="of the record's form; another is refused, not guessed at")
    created_at: str = Field(description="UTC, ISO 8601; not part of the digest")
    wall_s: float = Field(default=0.0, ge=0, description="how long the stage took; not part of the digest")

    @property
    def digest(self) -> str:
        """Hex sha256 over every field that two identical runs share."""
        return digest_of(self.model_dump(mode="json", exclude=set(self.volatile)))

    def write(self, folder: Path) -> Path:
        """Write `record.json`, the last file of a finished stage, and return the folder."""
        body = {"kind": type(self).__name__, "digest": self.digest, **self.model_dump(mode="json")}
        write_text(folder / RECORD_NAME, json.dumps(body, indent=2, ensure_ascii=False) + "\n")
        return folder

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and verify a finished stage's record.

        Raises:
            RecordError: no record, another kind or version, or content that does not match its own digest.
        """
        path = folder / RECORD_NAME
        redo = "delete that folder; the next run makes it again"
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            kind, digest = body.pop("kind"), body.pop("digest")
            if kind != cls.__name__:
                raise RecordError(f"{path} holds a {kind}, not a {cls.__name__}", do=redo)
            record = cls.model_validate(body)
        except FileNotFoundError:
            raise RecordError(f"{path} is not there", why="the stage that writes it has not finished", do="run the recipe again") from None
        except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
            raise RecordError(f"{path} cannot be read as a {cls.__name__}: {error}", do=redo) from error
        if record.digest != digest:
            raise RecordError(f"{path} was altered: its content hashes to {record.digest[:12]}, it says {digest[:12]}", do=redo)
        return record


class FileDigest(BaseModel):
    """One file of an artefact, by its path inside the artefact's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size_bytes: int = Field(ge=0)
    sha256: str


def digest_files(folder: Path) -> tuple[FileDigest, ...]:
    """Every file below `folder` in path order; not the record, the signature, which covers it, and a stage's own checkpoints."""
    return tuple(
        FileDigest(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_beside(path.relative_to(folder))
    )


def _is_beside(path: Path) -> bool:
    return path.name == RECORD_NAME or path == Path(SIGNATURE_NAME) or path.parts[0] == CHECKPOINTS


def verify_files(folder: Path, expected: tuple[FileDigest, ...]) -> None:
    """Hash every file again: safetensors notices a truncated file, not a flipped bit.

    Raises:
        RecordError: a file is missing, extra, a link, or has other bytes; all of them are named.
    """
    faults = [f"{path.relative_to(folder)} is a symbolic link" for path in sorted(folder.rglob("*")) if path.is_symlink()]
    found = {file.path: file for file in digest_files(folder)}
    wanted = {file.path: file for file in expected}
    faults += [f"{path} is missing" for path in sorted(wanted.keys() - found.keys())]
    faults += [f"{path} does not belong here" for path in sorted(found.keys() - wanted.keys())]
    faults += [f"{path} has other bytes than recorded" for path in sorted(wanted.keys() & found.keys()) if wanted[path] != found[path]]
    if faults:
        raise RecordError(
            f"{folder}: " + "; ".join(faults),
            why="these are not the weights that were judged",
            do="restore the folder, or run the recipe again",
        )


class BaseModelRecord(Record):
    """A base model on this disk, as safetensors with its tokenizer and chat template."""

    volatile: ClassVar[frozenset[str]] = Record.volatile | {"folder"}

    source: str = Field(description="as the recipe names it, e.g. embedded:smollm2-135m-instruct")
    folder: str
    files: tuple[FileDigest, ...]


class SourceCount(BaseModel):
    """How one input file's rows ended. Law: rows_in == kept + sum(dropped.values())."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    format: str
    rows_in: int = Field(ge=0)
    kept: int = Field(ge=0)
    dropped: dict[str, int] = Field(default_factory=dict, description="reason code -> rows")


class DatasetManifest(Record):
    """The rows a model is trained and validated on, tokenised with the base model's own template."""

    base_digest: str
    section_digest: str = Field(description="digest of the recipe's data section")
    sources: tuple[SourceCount, ...]
    train_rows: int
    validation_rows: int
    train_tokens: int
    loss_tokens: int = Field(description="assistant tokens of the training rows: the ones that bear loss")
    preference_rows: int = 0
    repeated_rows: int = Field(default=0, description="of the training rows, those that are a repeat of another")
    files: tuple[FileDigest, ...]


class AdapterArtifact(Record):
    """A trained PEFT adapter (adapter_config.json + adapter_model.safetensors) and how it came to be."""

    stage: Literal["sft", "preference", "online"]
    base_digest: str
    dataset_digest: str
    parent_digest: str | None = Field(default=None, description="the adapter this one was trained on from")
    section_digest: str
    method: str = Field(default="lora", description="how it was tuned, as the recipe names it")
    objective: str | None = Field(default=None, description="what a later stage than fine-tuning strove for, with its numbers")
    config_changes: dict[str, Any] = Field(default_factory=dict, description="values of the base's config.json it was trained with")
    quantization: Literal["none", "nf4", "fp4", "int8"]
    double_quant: bool = Field(default=False, description="the 4-bit constants were quantised too")
    trainable_parameters: int
    steps: int
    first_loss: float
    last_loss: float
    validation_loss: float | None = None
    course: Course = Field(default=Course(), description="what happened on the way")
    processes: int = Field(default=1, description="how many trained it together; the same steps, rounded in another order")
    first_margin: float | None = Field(default=None, description="by how much preferred answers were ahead at first")
    last_margin: float | None = None
    first_reward: float | None = Field(default=None, description="mean reward of the answers to the first logged step's prompts")
    last_reward: float | None = None
    files: tuple[FileDigest, ...]


class RewardArtifact(Record):
    """A trained reward model: an adapter and a head that gives an answer one number."""

    base_digest: str
    dataset_digest: str
    parent_digest: str = Field(description="the adapter it was trained on from")
    section_digest: str
    config_changes: dict[str, Any] = Field(default_factory=dict, description="values of the base's config.json it was trained with")
    quantization: Literal["none", "nf4", "fp4", "int8"]
    double_quant: bool
    trainable_parameters: int
    steps: int
    first_loss: float
    last_loss: float
    course: Course = Field(default=Course(), description="what happened on the way")
    held_out_pairs: int
    held_out_accuracy: float = Field(ge=0, le=1, description="share of the held-back pairs that it puts in order")
    files: tuple[FileDigest, ...]


MergeVariant = Literal["bf16_base", "nf4_base", "fp4_base", "int8_base"]


class MergeMeasurement(BaseModel):
    """One way to merge, measured against the adapter on the weights it was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: MergeVariant | Literal["trained"]
    kl_nats: float = Field(description="mean KL(adapter as trained || merged) per assistant token, nats")
    flip_rate: float = Field(ge=0, le=1, description="share of assistant tokens whose greedy choice differs")
    perplexity: float = Field(description="on the validation rows' assistant tokens")
    rule_passes: int = Field(ge=0, description="validation prompts answered without breaking a critical rule")
    rule_prompts: int = Field(ge=0)


class MergeCertificate(BaseModel):
    """Both merges side by side, the one that was kept, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trained: MergeMeasurement = Field(description="the adapter on the weights it was trained on; its KL and flips are 0")
    measurements: tuple[MergeMeasurement, ...]
    chosen: MergeVariant
    reason: str


class MergedModel(Record):
    """Weights that vLLM can serve: safetensors, tokenizer, chat template, generation defaults."""

    base_digest: str
    adapter_digest: str
    certificate: MergeCertificate
    warnings: tuple[str, ...] = Field(default=(), description="what the training of the adapter warned of")
    files: tuple[FileDigest, ...]
