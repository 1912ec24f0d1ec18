"""Every error a person may meet: what happened (with the value), why it matters, what to do.

    TunegateError
    ├── InputError            the person can mend it: a recipe, a row, a path, an argument       exit 2
    │   ├── DataError         a data file or a row
    │   └── ModelError        a base model, tokenizer or adapter that cannot be used
    ├── TrainingError         a run that started and must not go on (loss is NaN, disk is full)   exit 1
    ├── HubUnreachable        where models are downloaded from does not answer; it may in a minute  exit 1
    ├── DiskError             a disk that is full, read-only, or somebody else's                  exit 1
    ├── MergeError            an adapter that cannot be folded into these weights                 exit 1
    └── RecordError           a record or artefact on disk is torn, altered or of another version exit 1
        └── SignatureError    a model's signature is missing, another key's, or not that of its files

The other folders derive theirs from `TunegateError` in their own `errors.py`.
"""


class TunegateError(Exception):
    """Base of all errors that are printed without a traceback.

    Args:
        what: what happened, with the offending value, file, line and key.
        why: why it matters; empty when `what` says it all.
        do: the next thing to do.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.do = what, why, do

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why it matters: {self.why}")
        if self.do:
            lines.append(f"  what to do: {self.do}")
        return "\n".join(lines)


class InputError(TunegateError):
    """Something the person gave is wrong; nothing was started."""

    exit_code = 2


class DataError(InputError):
    """A data file or a row cannot be used."""


class ModelError(InputError):
    """A base model, tokenizer or adapter cannot be used."""


class HubUnreachable(TunegateError):
    """The hub does not answer now: the same again may work later."""


class DiskError(TunegateError):
    """Something could not be written: no room, no right, or no disk that takes it."""


class TrainingError(TunegateError):
    """A run that started must not go on."""


class MergeError(TunegateError):
    """An adapter cannot be folded into these weights."""


class RecordError(TunegateError):
    """A record or artefact on disk is torn, altered, or written by another version."""


class SignatureError(RecordError):
    """A model's signature is missing, another key's, or not that of its files."""
