"""Numbers as American English says them: cardinals, ordinals, years, decimals, digit by digit. Stage: task.

Without hyphens ("twenty one"): the voice was taught numbers so.

num2words would say them in fifty languages, in the British way and one at a time with its own refusals; its only
dependency is not packaged as a wheel. English needs these few lines.
"""

from __future__ import annotations

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
ONES = _ONES.split()
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ("", "thousand", "million", "billion", "trillion", "quadrillion")
LONGEST = 3 * len(SCALES)
"""More digits have no name that people know: they are read one by one."""
IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(number: int) -> str:
    """`1234567` → "one million two hundred thirty four thousand five hundred sixty seven"; below 10^18."""
    if number < 0:
        return f"minus {cardinal(-number)}"
    if number < 1000:
        return _below_thousand(number)
    words: list[str] = []
    for power in reversed(range(len(SCALES))):
        group = number // 1000**power % 1000
        if group:
            words += [_below_thousand(group), SCALES[power]]
    return " ".join(filter(None, words))


def ordinal(number: int) -> str:
    """`21` → "twenty first"."""
    return _last_as_ordinal(cardinal(number))


def ordinal_of(text: str) -> str:
    """An ordinal without its ending, as it is written: `"1,000"` → "one thousandth"; very many digits one by one."""
    number = text.replace(",", "")
    return ordinal(int(number)) if len(number) <= LONGEST else _last_as_ordinal(digits(number))


def year(number: int) -> str:
    """`1984` → "nineteen eighty four", `1905` → "nineteen oh five", `2005` → "two thousand five"."""
    century, rest = divmod(number, 100)
    if not 10 < century < 100 or (century % 10 == 0 and rest < 10):
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {two_digits(rest)}"


def two_digits(number: int) -> str:
    """Minutes and the ends of years: `5` → "oh five", `45` → "forty five"."""
    return f"oh {ONES[number]}" if number < 10 else cardinal(number)


def digits(text: str) -> str:
    """Each digit by its name: `"007"` → "zero zero seven"; other characters are passed over."""
    return " ".join(ONES[int(character)] for character in text if character in "0123456789")


def amount(text: str) -> str:
    """A number as it is written, with commas and a decimal point: `"1,234.50"` → "one thousand … point five zero"."""
    whole, point, fraction = text.replace(",", "").partition(".")
    words = _whole(whole) if whole else "zero"
    return f"{words} point {digits(fraction)}" if point and fraction else words


def _whole(text: str) -> str:
    """Digits; those that begin with a zero or are very many are read one by one."""
    if len(text) > LONGEST or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    return cardinal(int(text))


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [f"{ONES[hundreds]} hundred"] if hundreds else []
    if rest >= 20:
        tens, one = divmod(rest, 10)
        words.append(TENS[tens] + (f" {ONES[one]}" if one else ""))
    elif rest or not hundreds:
        words.append(ONES[rest])
    return " ".join(words)


def _last_as_ordinal(words: str) -> str:
    at = words.rfind(" ") + 1
    return words[:at] + _ordinal_word(words[at:])


def _ordinal_word(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    return f"{word[:-1]}ieth" if word.endswith("y") else f"{word}th"
