"""E-mail addresses, IP addresses and web pages of a person.

An e-mail address is looked for around each @, with bounded reach to both sides, so that a megabyte of `a.a.a.` costs one pass.
Knows nothing of chat accounts, which only their label tells. Next: `privacy_stated.py`.
"""

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address

from training.data.privacy_spans import CHECKED, LIKELY, STATED, Span, words_before

_AT = re.compile(r"(?<=[A-Za-z0-9_%+-])@(?=[A-Za-z0-9])")
_LOCAL_PART = re.compile(r"[A-Za-z0-9_%+](?:[A-Za-z0-9._%+'-]{0,63})$")
_DOMAIN = re.compile(r"@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9-])")
_DIGIT = re.compile("[0-9]")
_IPV4 = re.compile(r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])")
# Addresses inside a house and masks lead to nobody; every manual of a router holds them.
_NOBODYS = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "255.0.0.0/8")))
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{1,4}:|:(?=:)){2}(?:[0-9A-Fa-f]{0,4}:){0,6}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])")
_IP_WORDS = re.compile(r"\bip|address|host|server|client|log|地址|登录|终端|服务器")
_VERSION_WORDS = re.compile(r"version|ver\.|\bv$|firmware|release|section|chapter|guideline|§|版本|固件|章|节|\bcode|table|step")
_PAGE = re.compile(
    r"(?<![A-Za-z0-9.@-])(?:https?://)?(?:www\.|m\.)?(?:facebook|fb|instagram|twitter|x|tiktok|linkedin|weibo|xiaohongshu|zhihu|"
    r"douyin|bilibili|t|vk|github|reddit|medium)"
    r"\.(?:com|me|cn|net)/[A-Za-z0-9_@.~%/?=&-]{2,200}"
)
_PROFILE_PATH = re.compile(r"/(?:in|people|u|n|user|users|profile)/")
_PAGE_OF_SOMEBODY = re.compile(r"\b(?:my|his|her|their|follow me|find me|profile|personal|patient'?s)\b|我|本人|她|他|患者|个人|主页|账号")


def find_network_addresses(text: str) -> Iterator[Span]:
    """E-mail and IP addresses, and pages of a person."""
    if "@" in text:
        yield from _emails(text)
    if ("." in text or ":" in text) and _DIGIT.search(text):
        yield from _ip_addresses(text)
    if "/" in text:
        yield from _pages(text)


def _emails(text: str) -> Iterator[Span]:
    for at in _AT.finditer(text):
        reach = max(0, at.start() - 64)
        local = _LOCAL_PART.search(text[reach : at.start()])
        domain = _DOMAIN.match(text, at.start())
        if local and domain:
            yield Span(reach + local.start(), domain.end(), "email", CHECKED)


def _ip_addresses(text: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text):
        if _is_ipv4_of_somebody(match[0], words_before(text, match.start(), 24)):
            yield Span(*match.span(), "ip", LIKELY)
    for match in _IPV6.finditer(text):
        if _is_ipv6(match[0]):
            yield Span(*match.span(), "ip", STATED)


def _is_ipv4_of_somebody(address: str, before: str) -> bool:
    """Version and section numbers look alike: these have small parts, or say what they are."""
    try:
        parsed = IPv4Address(address)
    except AddressValueError:
        return False
    if parsed.is_loopback or parsed.is_unspecified or any(parsed in network for network in _NOBODYS):
        return False
    if _IP_WORDS.search(before):
        return not _VERSION_WORDS.search(before[-12:])
    return not _VERSION_WORDS.search(before) and sum(len(part) >= 2 for part in address.split(".")) >= 2 and max(parsed.packed) >= 100


def _is_ipv6(address: str) -> bool:
    try:
        parsed = IPv6Address(address)
    except AddressValueError:
        return False
    return not (parsed.is_loopback or parsed.is_unspecified) and any(character.isdigit() for character in address) and len(address) >= 6


def _pages(text: str) -> Iterator[Span]:
    for match in _PAGE.finditer(text):
        around = words_before(text, match.start(), 40) + text[match.end() : match.end() + 24].lower()
        if _PROFILE_PATH.search(match[0]) or _PAGE_OF_SOMEBODY.search(around):
            yield Span(match.start(), match.start() + len(match[0].rstrip(".?&/")), "url", STATED)
