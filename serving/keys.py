"""API keys: made once, shown once, kept only as a hash.

A secret is `tg-` and 32 random bytes, so one round of sha256 is enough: there is nothing to guess. Knows nothing of HTTP.
Next: `gateway.py`, which asks a `KeyRing` about every request.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, SecretStr
from sqlalchemy import Connection, insert, select, update

from serving.errors import UnknownKey
from serving.tables import api_keys

PREFIX = "tg-"
_SECRET_BYTES = 32


class Scope(StrEnum):
    """What a key may do: ask models, change releases, approve them."""

    INFER = "infer"
    ADMIN = "admin"
    APPROVE = "approve"


class KeyInfo(BaseModel):
    """All that is known of a key. The secret is not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    revoked_at: datetime | None


class KeyRing:
    """The keys that open the gateway right now; swapped whole when the registry changes."""

    def __init__(self, index: Mapping[str, KeyInfo]) -> None:
        self._index = dict(index)

    def replace(self, index: Mapping[str, KeyInfo]) -> None:
        """Let exactly these keys in from now on."""
        self._index = dict(index)

    def find(self, secret: str) -> KeyInfo | None:
        """The key this secret belongs to. Takes the same time whether it is the first key, the last, or none."""
        wanted, found = hash_secret(secret), None
        for sha256, key in self._index.items():
            if hmac.compare_digest(wanted, sha256):
                found = key
        return found


def hash_secret(secret: str) -> str:
    """Hex sha256 of a secret. Bytes that are no text (a caller may send anything) hash too, and match nothing."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def create(connection: Connection, name: str, scopes: Iterable[Scope], at: datetime) -> tuple[KeyInfo, SecretStr]:
    """Make a key. The secret is returned here and never again."""
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    key = KeyInfo(id=f"key-{secrets.token_hex(4)}", name=name, scopes=frozenset(scopes), created_at=at, revoked_at=None)
    row = {"id": key.id, "name": name, "sha256": hash_secret(secret), "scopes": sorted(key.scopes), "created_at": at}
    connection.execute(insert(api_keys).values(row))
    return key, SecretStr(secret)


def every(connection: Connection) -> tuple[KeyInfo, ...]:
    """All keys, revoked ones too, oldest first."""
    rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).mappings()
    return tuple(KeyInfo.model_validate({name: value for name, value in row.items() if name != "sha256"}) for row in rows)


def index(connection: Connection) -> dict[str, KeyInfo]:
    """sha256 of the secret -> key, for the keys that are not revoked."""
    rows = connection.execute(select(api_keys).where(api_keys.c.revoked_at.is_(None))).mappings()
    return {row["sha256"]: KeyInfo.model_validate({name: value for name, value in row.items() if name != "sha256"}) for row in rows}


def revoke(connection: Connection, key_id: str, at: datetime) -> None:
    """Shut a key out for good; a second time changes nothing.

    Raises:
        UnknownKey: there is no such key.
    """
    known = connection.scalars(select(api_keys.c.id)).all()
    if key_id not in known:
        raise UnknownKey(f"there is no key {key_id!r}", do="list them: tunegate keys list")
    connection.execute(update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=at))
