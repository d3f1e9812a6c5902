"""Patterns: what a text says in a fixed form: addresses of the net, phones, cards, accounts, papers. Stage: task.

A form is a regular expression whose repeats are all bounded, and a failed candidate is left at once, so that the time
is linear in the text's length. Digits and letters are ASCII: in Chinese, what follows an address without a space is
no part of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import phonenumbers
from stdnum import iban, luhn
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.iso7064 import mod_11_2
from stdnum.it import codicefiscale
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.us import ssn

from ortmesh_nlp.spans import Span

CHECKED = 1.0
"""The score of what has check digits, and they are right."""
WELL_FORMED = 0.9
"""The score of what has a form only."""

LATIN = r"0-9A-Za-z_\u00c0-\u024f"
GAP = r"[ \u00a0\u202f-]"
"""Between groups of digits, also as typesetters write it."""
GAPS = re.compile(r"[ \u00a0\u202f./()-]+")
ALONE = rf"(?<![{LATIN}])(?<![0-9][.,-])", rf"(?![{LATIN}])(?![.,-][0-9])"
"""Around a number: it is no part of a longer one or of a word."""
HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}"

CARD_ISSUERS = re.compile(
    r"4(?:.{12}|.{15}|.{18})"  # Visa
    r"|(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720).*(?<=^.{16})"  # Mastercard
    r"|3[47].{13}"  # American Express
    r"|3(?:0[0-5]|[689]).*(?<=^.{14})"  # Diners Club
    r"|(?:6011|64[4-9]|65|62|35(?:2[89]|[3-8])).*(?<=^.{16})"  # Discover, UnionPay, JCB
    r"|(?:50|5[6-8]|6[37]).*(?<=^.{16})"  # Maestro
)
"""First digits and lengths (ISO/IEC 7812): Luhn's sum alone lets one number in ten pass."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Something with a form."""

    type: str
    form: re.Pattern[str]
    is_right: Callable[[str], bool]
    """Whether a candidate of that form is one, e.g. by its check digits."""
    score: float = CHECKED


def find(text: str) -> list[Span]:
    """All that is found, kind by kind; spans of two kinds may overlap."""
    return [span for kind in KINDS for span in _of_kind(text, kind)]


def _of_kind(text: str, kind: Kind) -> Iterator[Span]:
    at = 0
    while (candidate := kind.form.search(text, at)) is not None:
        length = _right_length(candidate[0], kind)
        if length:
            yield Span(kind.type, candidate.start(), candidate.start() + length, kind.score, by_pattern=True)
        at = candidate.start() + (length or 1)


def _right_length(candidate: str, kind: Kind) -> int:
    """The length of the candidate that is right, without groups at its end if need be ("4111 1111 1111 1111 05/27")."""
    ends = [len(candidate), *(gap.start() for gap in reversed(list(GAPS.finditer(candidate))))]
    for end in ends:
        if kind.form.fullmatch(candidate, 0, end) and kind.is_right(candidate[:end]):
            return end
    return 0


def _number(form: str) -> re.Pattern[str]:
    return re.compile(form.join(ALONE))


def _is_card(number: str) -> bool:
    digits = GAPS.sub("", number)
    return CARD_ISSUERS.fullmatch(digits) is not None and luhn.is_valid(digits)


def _is_iban(number: str) -> bool:
    """Without each country's own rules: that of Belgium knows only the banks of its day."""
    return bool(iban.is_valid(GAPS.sub("", number), check_country=False))


def _is_phone(number: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _is_resident_id(number: str) -> bool:
    """China's GB 11643; python-stdnum 2.2's own check raises KeyError for places that it does not know."""
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return bool(mod_11_2.is_valid(number))


def _without_gaps(is_valid: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda number: is_valid(GAPS.sub("", number))


def _always(_: str) -> bool:
    return True


KINDS = (
    Kind(
        "EMAIL",
        re.compile(rf"(?<![{LATIN}.+-])[A-Za-z0-9][A-Za-z0-9._+'~-]{{0,63}}@{HOST}(?![{LATIN}-])"),
        _always,
        WELL_FORMED,
    ),
    Kind(
        "URL",
        re.compile(
            rf"(?<![{LATIN}])(?:(?:https?|ftp)://(?:[A-Za-z0-9._~!$&'*+,;=:%-]{{1,128}}@)?"
            rf"(?:{HOST}|localhost|[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}|\[[0-9A-Fa-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?"
            rf"|www\.{HOST})(?![{LATIN}])"
            r"(?:[/?#](?:[A-Za-z0-9._~:/?#\[\]@!$&'*+,;=%|-]|\([A-Za-z0-9._~:/?#@!$&'*+,;=%-]{0,200}\)){0,2000}"
            r"(?<![.,;:!?'*]))?",
            re.IGNORECASE,
        ),
        _always,
        WELL_FORMED,
    ),
    Kind(
        "IP_ADDRESS",
        re.compile(
            rf"(?<![{LATIN}.])(?:[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}(?!\.?[{LATIN}])"
            rf"|(?<!:)(?=[0-9A-Fa-f:]{{0,44}}[0-9])(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}[0-9A-Fa-f]{{0,4}}(?![{LATIN}:]))"
        ),
        _is_ip,
        WELL_FORMED,
    ),
    # Only those with a country's code: the others can't be told from numbers of accounts, and the model finds many.
    Kind(
        "PHONE",
        re.compile(rf"(?<![{LATIN}+])\+(?:[ \u00a0\u202f./()-]{{0,2}}[0-9]){{7,16}}(?![{LATIN}])"),
        _is_phone,
        WELL_FORMED,
    ),
    Kind(
        "CREDIT_CARD",
        _number(
            rf"(?:[0-9]{{13,19}}|[0-9]{{4}}(?:{GAP}[0-9]{{4}}){{3}}(?:{GAP}[0-9]{{3}})?"
            rf"|[0-9]{{4}}{GAP}[0-9]{{6}}{GAP}[0-9]{{4,5}})"
        ),
        _is_card,
    ),
    Kind(
        "IBAN",
        _number(rf"[A-Z]{{2}}[0-9]{{2}}(?:{GAP}?[0-9A-Z]{{4}}){{2,7}}(?:{GAP}?[0-9A-Z]{{1,3}})?"),
        _is_iban,
    ),
    # Numbers of persons whose own rules (check digits, dates, places) let fewer than 1 in 20 wrong ones pass. The one
    # in the United States has no check digits: its form with hyphens stands for them.
    Kind("US_SSN", _number("[0-9]{3}-[0-9]{2}-[0-9]{4}"), ssn.is_valid, WELL_FORMED),
    Kind("BE_NATIONAL_NUMBER", _number(r"[0-9]{2}(?:\.?[0-9]{2}){2}[- ]?[0-9]{3}[. ]?[0-9]{2}"), nn.is_valid),
    Kind("BR_CPF", _number(r"[0-9]{3}(?:\.?[0-9]{3}){2}-?[0-9]{2}"), cpf.is_valid),
    Kind("CN_RESIDENT_ID", _number("[0-9]{17}[0-9X]"), _is_resident_id),
    Kind("DE_TAX_ID", _number("[0-9]{2}(?: ?[0-9]{3}){3}"), idnr.is_valid),
    Kind("ES_DNI", _number("[0-9]{8}-?[A-Z]"), dni.is_valid),
    Kind("ES_NIE", _number("[XYZ]-?[0-9]{7}-?[A-Z]"), nie.is_valid),
    Kind("FI_HETU", _number("[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-Z]"), hetu.is_valid),
    Kind(
        "FR_NIR",
        _number(rf"[12](?:{GAP}?[0-9]{{2}}){{2}}{GAP}?[0-9][0-9AB](?:{GAP}?[0-9]{{3}}){{2}}{GAP}?[0-9]{{2}}"),
        _without_gaps(nir.is_valid),
    ),
    Kind("IT_FISCAL_CODE", _number("[A-Z]{6}[0-9]{2}[A-Z][0-9]{2}[A-Z][0-9]{3}[A-Z]"), codicefiscale.is_valid),
    Kind("PL_PESEL", _number("[0-9]{11}"), pesel.is_valid),
    Kind("SE_PERSONNUMMER", _number("(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}"), personnummer.is_valid),
)

TYPES = tuple(kind.type for kind in KINDS)
