"""What a gateway worker and the server that started it say to each other: lines of JSON over a socket that only these two have.

The server begins with the terms of work, and then answers. A worker says that it takes callers, hands over answers to keep or to look at,
and asks for what is there once. When either end closes, the other process has gone. Pure.
Next: `gateway_worker.py` and `gateway_workers.py`, the two ends.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from serving.keeping import Kept
from serving.settings import Settings

MOST_LINE_BYTES = 8 << 20


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def spelled(self) -> bytes:
        """As it is sent."""
        return self.model_dump_json().encode() + b"\n"


class Terms(_Line):
    """How a worker works. `listener`, `memory` and `bells` are file descriptors that it has inherited; `number` is its row and bell."""

    settings: dict[str, Any]
    number: int
    listener: int
    memory: int
    bells: tuple[int, ...]
    figures: str
    log_level: int


class Said(_Line):
    """What a worker says. `id` is there where an answer is wanted."""

    kind: Literal["open", "keep", "sample", "feedback", "page"]
    id: int = 0
    path: str = ""
    record: Kept | None = None


class Answer(_Line):
    """The server's answer to what was said under this `id`."""

    id: int
    known: bool = False
    page: str = ""


def spelled_out(settings: Settings) -> dict[str, Any]:
    """Every setting as a value that `Settings` takes, secrets too: for the socket, never for a log."""
    return {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in settings}
