"""API keys: shown once, stored as a hash, found, revoked."""

import re
from pathlib import Path

import pytest

from serving.errors import UnknownKey
from serving.keys import KeyRing, Scope, hash_secret
from serving.registry import Registry
from tests.fakes_serving import url_in


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(url_in(tmp_path))


def test_a_secret_is_tg_and_32_random_bytes(registry: Registry) -> None:
    """32 bytes are 43 characters of unpadded base64."""
    secrets = {registry.create_key("k", [Scope.INFER])[1].get_secret_value() for _ in range(20)}
    assert len(secrets) == 20
    assert all(re.fullmatch(r"tg-[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_a_new_key_opens_and_others_do_not(registry: Registry) -> None:
    key, secret = registry.create_key("web", [Scope.INFER])
    registry.create_key("ops", [Scope.ADMIN, Scope.APPROVE])
    ring = KeyRing(registry.key_index())
    assert ring.find(secret.get_secret_value().encode()) == key
    assert [ring.find(wrong) for wrong in (b"", b"tg-", secret.get_secret_value().encode() + b"x", b"\xff", b"key-1")] == [None] * 5


def test_a_revoked_key_opens_nothing_and_stays_listed(registry: Registry) -> None:
    key, secret = registry.create_key("web", [Scope.INFER])
    registry.revoke_key(key.id)
    ring = KeyRing(registry.key_index())
    assert ring.find(secret.get_secret_value().encode()) is None
    assert [(known.id, known.revoked_at is not None) for known in (*registry.keys(),)] == [(key.id, True)]


def test_a_key_revoked_twice_keeps_its_first_date(registry: Registry) -> None:
    key, _ = registry.create_key("web", [])
    registry.revoke_key(key.id)
    first = registry.keys()
    registry.revoke_key(key.id)
    assert registry.keys() == first


def test_revoking_an_unknown_key_says_so(registry: Registry) -> None:
    with pytest.raises(UnknownKey, match="'key-9'"):
        registry.revoke_key("key-9")


def test_no_secret_is_in_the_file_or_in_what_is_printed(registry: Registry, tmp_path: Path) -> None:
    key, secret = registry.create_key("web", [Scope.INFER])
    registry.close()
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.get_secret_value().encode() not in on_disk
    assert hash_secret(secret.get_secret_value()).encode() in on_disk
    assert secret.get_secret_value() not in f"{key!r} {secret!r} {registry.key_index()!r}"


def test_swapping_the_ring_shuts_out_what_is_not_in_it(registry: Registry) -> None:
    _, secret = registry.create_key("web", [Scope.INFER])
    ring = KeyRing(registry.key_index())
    ring.replace({})
    assert ring.find(secret.get_secret_value().encode()) is None
