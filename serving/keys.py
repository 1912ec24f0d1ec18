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

from pydantic import BaseModel, ConfigDict, Field, SecretStr
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
    expires_at: datetime | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)


class KeyTerms(BaseModel):
    """How long a new key lives and how much it may use; None is without end or limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expires_at: datetime | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)


class KeyRing:
    """The keys that open the gateway right now; swapped whole when the registry changes.

    A key is looked up by a hash of its hash, made with a number that only this process knows: how long a look-up takes
    tells nothing about any key, and ten thousand keys cost no more than one.
    """

    def __init__(self, index: Mapping[str, KeyInfo]) -> None:
        self._blind = secrets.token_bytes(32)
        self.replace(index)

    def replace(self, index: Mapping[str, KeyInfo]) -> None:
        """Let exactly these keys in from now on."""
        self._index = {self._blinded(bytes.fromhex(sha256)): (bytes.fromhex(sha256), key) for sha256, key in index.items()}
        self.key_ids = frozenset(key.id for key in index.values())

    def find(self, secret: bytes) -> KeyInfo | None:
        """The key this secret belongs to, whether or not it has expired."""
        wanted = hashlib.sha256(secret).digest()
        sha256, key = self._index.get(self._blinded(wanted), (b"", None))
        return key if hmac.compare_digest(wanted, sha256) else None

    def _blinded(self, sha256: bytes) -> bytes:
        return hashlib.blake2b(sha256, key=self._blind, digest_size=32).digest()


def hash_secret(secret: str) -> str:
    """Hex sha256 of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(
    connection: Connection, name: str, scopes: Iterable[Scope], at: datetime, terms: KeyTerms | None = None
) -> tuple[KeyInfo, SecretStr]:
    """Make a key. The secret is returned here and never again."""
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    limits = (terms or KeyTerms()).model_dump()
    key = KeyInfo(id=f"key-{secrets.token_hex(4)}", name=name, scopes=frozenset(scopes), created_at=at, revoked_at=None, **limits)
    row = {"id": key.id, "name": name, "sha256": hash_secret(secret), "scopes": sorted(key.scopes), "created_at": at, **limits}
    connection.execute(insert(api_keys).values(row))
    return key, SecretStr(secret)


def rotate(connection: Connection, key_id: str, at: datetime, old_until: datetime) -> tuple[KeyInfo, SecretStr]:
    """Make a key like this one, and let this one end at `old_until`, or when it would have ended anyway.

    Raises:
        UnknownKey: there is no such key, or it opens nothing any more.
    """
    old = next((key for key in every(connection) if key.id == key_id and key.revoked_at is None), None)
    if old is None or (old.expires_at is not None and old.expires_at <= at):
        raise UnknownKey(f"there is no key {key_id!r} that still opens the gateway", do="list them: tunegate keys list")
    terms = KeyTerms(**old.model_dump(include=set(KeyTerms.model_fields)))
    made = create(connection, old.name, old.scopes, at, terms)
    ends = min(old_until, old.expires_at or old_until)
    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(expires_at=ends))
    return made


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
