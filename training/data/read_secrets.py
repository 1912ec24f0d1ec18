"""Keeps passwords out of what is shown: addresses with `${NAME}` filled in from the environment, and texts cleared of them.

Knows nothing of databases or file systems. Next: `read_sql.py`, `read_files.py`.
"""

import os
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from training.errors import DataError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,200})\}")
# To the last @, since SQLAlchemy allows a slash in a password; also where the scheme was forgotten.
_USER_INFO = re.compile(r"(?:(?<=://)|^(?!.*://))[^?#]*(?=@)")
_HIDDEN = "***"
_SHORT = 4  # a shorter secret is blotted out only where it stands alone, or no message could be read
_HARMLESS = frozenset({"sslmode", "charset", "driver", "mode", "uri", "connect_timeout", "timeout", "application_name"})


def filled(address: str, key: str) -> str:
    """`address` with each `${NAME}` replaced by that environment variable.

    Raises:
        DataError: a variable is not set.
    """
    if missing := sorted({name for name in _VARIABLE.findall(address) if name not in os.environ}):
        raise DataError(f"`{key}` needs the environment variable {', '.join(missing)}, which is not set", do="set it, then run again")
    return _VARIABLE.sub(lambda found: os.environ[found[1]], address)


def masked(address: str) -> str:
    """`address` as it may be shown and recorded: without password and without the values after `?`; a `${NAME}` stays."""
    plain = _USER_INFO.sub(lambda found: _masked_user(found[0]), address)
    head, mark, query = plain.partition("?")
    return head + mark + "&".join(_masked_pair(pair) for pair in query.split("&")) if mark else head


def secrets_of(*addresses: str) -> set[str]:
    """What must not be shown of an address: password and query values as written, and with their percent signs undone or made."""
    found: set[str] = set()
    for address in addresses:
        for user_info in _USER_INFO.findall(address):
            found.add(user_info.partition(":")[2])
        pairs = (pair.partition("=") for pair in address.partition("?")[2].split("&"))
        found.update(value for name, _, value in pairs if name not in _HARMLESS)
        found.update(os.environ.get(name, "") for name in _VARIABLE.findall(address))
    spellings = {make(secret) for secret in found for make in (str, unquote, unquote_plus, quote, quote_plus)}
    return {secret for secret in spellings if secret and not _VARIABLE.fullmatch(secret)}


def without(secrets: Iterable[str], text: str) -> str:
    """`text` with every secret in it blotted out, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        edges = ("", "") if len(secret) >= _SHORT else (r"(?<!\w)", r"(?!\w)")
        text = re.sub(edges[0] + re.escape(secret) + edges[1], _HIDDEN, text)
    return text


def _masked_user(user_info: str) -> str:
    user, colon, password = user_info.partition(":")
    return f"{user}:{password if _VARIABLE.fullmatch(password) else _HIDDEN}" if colon else user


def _masked_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return pair if not equals or name in _HARMLESS or _VARIABLE.fullmatch(value) else f"{name}={_HIDDEN}"
