"""What a slot's folder says to gateways: the slot's key, for this user alone, and on whose loopback it is.

Every gateway worker imports this, so it knows nothing of engines and of what looks after them. Next: `slot_keys.py`, which reads it.
"""

from pathlib import Path

from pydantic import SecretStr

from serving.machine import loopback
from training.atomic import write_text

KEY_NAME, _LOOPBACK_NAME = "key", "loopback"


def write_key(folder: Path, key: SecretStr) -> None:
    """Keep a slot's key where gateways look for it, and on whose loopback the slot is."""
    write_text(folder / _LOOPBACK_NAME, loopback())
    write_text(folder / KEY_NAME, key.get_secret_value(), mode=0o600)


def read_loopback(folder: Path) -> str | None:
    """On whose loopback the slot in `folder` was started; None when none ever was."""
    try:
        return (folder / _LOOPBACK_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def read_key(folder: Path) -> SecretStr | None:
    """The key of the slot in `folder`; None when none runs."""
    try:
        return SecretStr((folder / KEY_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
