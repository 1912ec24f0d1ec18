"""Addresses and names of engines that somebody else runs: a pattern in the settings, filled in for one release. Pure.

Next: `outside_engine.py`, which looks at such an engine.
"""

import ipaddress
from string import Formatter
from urllib.parse import urlsplit

_FIELDS = ("release", "name")


def check_pattern(pattern: str) -> str:
    """The pattern as it is.

    Raises:
        ValueError: it asks for something that is not known.
    """
    unknown = [name for _, name, _, _ in Formatter().parse(pattern) if name is not None and name not in _FIELDS]
    if unknown:
        raise ValueError(f"{{{unknown[0]}}} is not known; there are {{release}} and {{name}}")
    return pattern


def check_address(url: str) -> str:
    """The pattern, without a slash at its end.

    Raises:
        ValueError: it is no address of an HTTP server, or holds a password.
    """
    parts = urlsplit(fill(check_pattern(url), "clinic-1", "clinic"))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an address looks like http://host:8000 or https://{release}.models.example")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address holds no user and no password: a key goes into TUNEGATE_OUTSIDE_KEY")
    return url.rstrip("/").removesuffix("/v1")


def keeps_a_secret(url: str) -> bool:
    """Whether nobody on the way to it can read along: HTTPS, or this machine itself."""
    return urlsplit(fill(url, "clinic-1", "clinic")).scheme == "https" or is_loopback(url)


def is_loopback(url: str) -> bool:
    """Whether it is an address that only this machine itself can reach."""
    host = urlsplit(fill(url, "clinic-1", "clinic")).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def fill(pattern: str, release_id: str, public_name: str) -> str:
    """The pattern for one release. Both are lower-case letters, digits, dots, dashes and underscores, and so safe in an address."""
    return pattern.format(release=release_id, name=public_name)
