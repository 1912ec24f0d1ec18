"""Numbers that prove themselves: Chinese, American and British personal numbers, bank cards and IBANs.

A checksum is believed where it is long enough; where chance could pass it (one NHS number in eleven), the words around
must agree, and where the words are plain a mistyped number is masked too. Every pattern is bounded, so a search is linear.
Knows nothing of numbers that only their label tells. Next: `privacy_stated.py`.
"""

import re
from collections.abc import Iterator

from training.data.privacy_spans import CHECKED, LIKELY, STATED, Span, words_before

_CN_ID = re.compile(
    r"(?<![0-9A-Za-z])[1-8][0-9]{5}[ -]?(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[ -]?[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_CN_ID_OLD = re.compile(r"(?<![0-9A-Za-z])[1-8][0-9]{5}[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}(?![0-9A-Za-z])")
_CN_ID_WORDS = re.compile("身份证|身份号|证件号|公民|id card|identity card|resident id")
_SSN = re.compile(r"(?<![0-9A-Za-z-])([0-9]{3})([- ]?)([0-9]{2})\2([0-9]{4})(?![0-9A-Za-z]|-[0-9])")
_SSN_WORDS = re.compile(r"ssn|ss#|ss #|social security|\bsocial\b")
_NHS = re.compile(r"(?<![0-9A-Za-z+])[0-9]{3}([ -]?)[0-9]{3}\1[0-9]{4}(?![0-9A-Za-z]|-[0-9])")
_CARD = re.compile(r"(?<![0-9A-Za-z.-])[0-9](?:[ -]?[0-9]){11,18}(?![0-9A-Za-z]|[.-][0-9])")
_CARD_GROUPS = re.compile(r"[0-9]{12,19}|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}(?:\1[0-9]{1,3})?|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}")
_CARD_ISSUER = re.compile(
    r"4[0-9]{15}(?:[0-9]{3})?|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}|3[47][0-9]{13}|"
    r"6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12}|35(?:2[89]|[3-8][0-9])[0-9]{12}|3(?:0[0-5]|[68][0-9])[0-9]{11}|62[0-9]{14,17}"
)
_CARD_WORDS = re.compile(
    r"卡号|银行|信用卡|借记卡|储蓄|账号|帐号|账户|card|\bcc\b|visa|mastercard|amex|american express|debit|credit|discover|unionpay|account"
)
_OTHER_WORDS = re.compile("订单|单号|流水|批号|编号|序列|order|track|serial|invoice|isbn|batch|lot |lot:|imei|barcode|条码")
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}")
_IBAN_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 "
    "GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 "
    "MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SD18 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 "
    "XK20"
)
_IBAN_LENGTHS = {country[:2]: int(country[2:]) for country in _IBAN_COUNTRIES.split()}


def find_numbers(text: str) -> Iterator[Span]:
    """Personal, card and account numbers."""
    yield from _cn_ids(text)
    yield from _ssns(text)
    yield from _nhs_numbers(text)
    yield from _cards(text)
    yield from _ibans(text)


def _cn_ids(text: str) -> Iterator[Span]:
    for match in _CN_ID.finditer(text):
        if _cn_check_character(_compact(match[0])):
            yield Span(*match.span(), "cn_id", CHECKED)
        elif _CN_ID_WORDS.search(words_before(text, match.start(), 24)):
            yield Span(*match.span(), "cn_id", STATED)
    for match in _CN_ID_OLD.finditer(text):
        if _CN_ID_WORDS.search(words_before(text, match.start(), 24)):
            yield Span(*match.span(), "cn_id", STATED)


def _cn_check_character(number: str) -> bool:
    """GB 11643-1999: weights 2^(17-i) modulo 11."""
    total = sum(int(digit) << (17 - place) for place, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def _ssns(text: str) -> Iterator[Span]:
    for match in _SSN.finditer(text):
        area, separator, group, serial = match.groups()
        issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
        before = words_before(text, match.start(), 48)
        if _SSN_WORDS.search(before):
            yield Span(*match.span(), "us_ssn", CHECKED)
        elif separator == "-" and issued and not _OTHER_WORDS.search(before):
            yield Span(*match.span(), "us_ssn", LIKELY)


def _nhs_numbers(text: str) -> Iterator[Span]:
    for match in _NHS.finditer(text):
        before = words_before(text, match.start(), 40)
        near = "nhs" in before or "nhs" in text[match.end() : match.end() + 12].lower()
        if near and (_nhs_check_digit(_compact(match[0])) or "nhs" in before[-20:]):
            yield Span(*match.span(), "uk_nhs", CHECKED)


def _nhs_check_digit(number: str) -> bool:
    """Weights 10 to 2, modulo 11; the tenth digit brings the sum to a multiple of 11."""
    return sum(int(digit) * (10 - place) for place, digit in enumerate(number[:9])) % 11 == -int(number[9]) % 11


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = _compact(match[0])
        before = words_before(text, match.start(), 32)
        if not _CARD_GROUPS.fullmatch(match[0]) or len(set(digits)) < 2:
            continue
        stated = _CARD_WORDS.search(before) is not None
        if _luhn(digits) and (stated or (_CARD_ISSUER.fullmatch(digits) and not _OTHER_WORDS.search(before))):
            yield Span(*match.span(), "bank_card", CHECKED if stated else STATED)
        elif stated and len(digits) >= 15 and not _OTHER_WORDS.search(before):
            yield Span(*match.span(), "bank_card", LIKELY)


def _luhn(digits: str) -> bool:
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(int(digit) for digit in digits[-1::-2])) % 10 == 0


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        end = _iban_end(match[0])
        if end and _iban_is_valid(_compact(match[0][:end])):
            yield Span(match.start(), match.start() + end, "iban", CHECKED)
        elif end and "iban" in words_before(text, match.start(), 24):
            yield Span(match.start(), match.start() + end, "iban", STATED)


def _iban_end(candidate: str) -> int | None:
    """Where the account number ends by its country's length; what follows in capitals may be the next word."""
    length = _IBAN_LENGTHS.get(candidate[:2], 99)
    places = [place for place, character in enumerate(candidate) if character not in " -"]
    if len(places) < length:
        return None
    end = places[length - 1] + 1
    return None if candidate[end : end + 1].isalnum() else end


def _iban_is_valid(number: str) -> bool:
    from stdnum import iban  # here, as most files have none and the tables take 30 ms to load

    return bool(iban.is_valid(number, check_country=False))


def _compact(number: str) -> str:
    return number.replace(" ", "").replace("-", "")
