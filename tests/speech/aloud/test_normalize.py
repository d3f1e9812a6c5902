"""How what is written is read: a person has said each of these aloud and agreed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_speech.aloud.normalize import spoken

CARDINALS = {
    "0": "zero",
    "7 cups": "seven cups",
    "42": "forty two",
    "100 days": "one hundred days",
    "115": "one hundred fifteen",
    "1,234": "one thousand two hundred thirty four",
    "3500": "three thousand five hundred",
    "1,000,000": "one million",
    "1,234,567": "one million two hundred thirty four thousand five hundred sixty seven",
    "-5": "minus five",
    "from -12 to 3": "from minus twelve to three",
    "3.14": "three point one four",
    "0.5": "zero point five",
    ".25": "zero point two five",
    "007": "zero zero seven",
    "12345678901": "one two three, four five six, seven eight nine, zero one",
    "٣ and 三": "three and",
}
ORDINALS = {
    "1st": "first",
    "the 2nd of 3": "the second of three",
    "the 21st": "the twenty first",
    "12th": "twelfth",
    "the 100th": "the one hundredth",
    "1,000th": "one thousandth",
    "the 1,000,000,000,000,000,000th": f"the one {'zero ' * 17}zeroth",
}
YEARS = {
    "in 1984": "in nineteen eighty four",
    "in 2026": "in twenty twenty six",
    "since 1905": "since nineteen oh five",
    "in 1900": "in nineteen hundred",
    "in 2000": "in two thousand",
    "in 2005": "in two thousand five",
    "the 1990s": "the nineteen nineties",
    "the '80s": "the eighties",
    "the 60s": "the sixties",
    "1990-2000": "nineteen ninety to two thousand",
    "©2020": "copyright twenty twenty",
}
FRACTIONS_AND_RANGES = {
    "1/2": "one half",
    "3/4": "three quarters",
    "2/3": "two thirds",
    "2 1/2 cups": "two and a half cups",
    "½ cup": "one half cup",
    "3½ miles": "three and a half miles",
    "5/5 or 4.5/5": "five out of five or four point five out of five",
    "24/7": "twenty four seven",
    "pages 12-15": "pages twelve to fifteen",
    "pages 12–15": "pages twelve to fifteen",
    "a 3-2 win": "a three to two win",
    "16:9": "sixteen to nine",
    "version 1.2.3": "version one point two point three",
    "192.168.0.1": "one hundred ninety two point one hundred sixty eight point zero point one",
    "3x4": "three times four",
    "2.5x faster": "two point five times faster",
}
PHONES = {
    "1-800-555-1234": "one, eight zero zero, five five five, one two three four",
    "555-1234": "five five five, one two three four",
    "Call 555-123-4567.": "Call five five five, one two three, four five six seven.",
    "(555) 123-4567": "five five five, one two three, four five six seven",
    "+49 30 123 4567": "plus four nine, three zero, one two three, four five six seven",
    "020 7946 0958": "zero two zero, seven nine four six, zero nine five eight",
}
MONEY = {
    "$3.50": "three dollars and fifty cents",
    "$1": "one dollar",
    "$1.01": "one dollar and one cent",
    "$0.99": "ninety nine cents",
    "$20.00": "twenty dollars",
    "£1,200": "one thousand two hundred pounds",
    "£2.01": "two pounds and one penny",
    "€2m": "two million euros",
    "$1.2bn": "one point two billion dollars",
    "$5 million": "five million dollars",
    "$5k": "five thousand dollars",
    "$5-10": "five to ten dollars",
    "-$5": "minus five dollars",
    "¥500": "five hundred yen",
    "5 USD": "five dollars",
    "20€": "twenty euros",
    "5¢": "five cents",
}
PERCENT_AND_MEASURES = {
    "12%": "twelve percent",
    "12.5 %": "twelve point five percent",
    "3-5%": "three to five percent",
    "+3%": "plus three percent",
    "5 km": "five kilometers",
    "1 km": "one kilometer",
    "a 5-km run": "a five kilometer run",
    "5-10 km": "five to ten kilometers",
    "3.2 GB": "three point two gigabytes",
    "20 °C": "twenty degrees Celsius",
    "-5°F": "minus five degrees Fahrenheit",
    "90° turn": "ninety degrees turn",
    "60 mph": "sixty miles per hour",
    "10 m²": "ten square meters",
    "5'10\" tall": "five feet ten inches tall",
    "6 ft": "six feet",
    "6 ft. 2 in. tall": "six feet two inches tall",
    "a 5 min. walk": "a five minutes walk",
    "3 lbs": "three pounds",
    "2.4GHz": "two point four gigahertz",
    "100 m": "one hundred meters",
    "10 ms": "ten milliseconds",
    "4K": "four ·K",
}
DATES_AND_TIMES = {
    "2026-11-26": "November twenty sixth, twenty twenty six",
    "26 Nov 2026": "the twenty sixth of November, twenty twenty six",
    "11/26/2026": "November twenty sixth, twenty twenty six",
    "26/11/2026": "November twenty sixth, twenty twenty six",
    "26.11.2026": "November twenty sixth, twenty twenty six",
    "1/2/99": "January second, nineteen ninety nine",
    "Nov. 26, 2026": "November twenty sixth, twenty twenty six",
    "July 4th": "July fourth",
    "the 4th of July": "the fourth of July",
    "The 21st of May. It rained.": "The twenty first of May. It rained.",
    "on 3 Dec.": "on the third of December.",
    "May 1-3": "May first to third",
    "Nov. 2026": "November twenty twenty six",
    "3:45 pm": "three forty five ·PM",
    "3 a.m.": "three ·AM.",
    "3pm today": "three ·PM today",
    "14:05": "fourteen oh five",
    "9:00": "nine o'clock",
    "15:00": "fifteen hundred",
    "12:30:15": "twelve thirty and fifteen seconds",
    "2026-11-26T14:05": "November twenty sixth, twenty twenty six fourteen oh five",
}
ABBREVIATIONS = {
    "Dr. Smith": "Doctor Smith",
    "Mr. and Mrs. Jones": "Mister and Mrs Jones",
    "St. Paul": "Saint Paul",
    "on Main St.": "on Main Street.",
    "5th Ave. is": "fifth Avenue is",
    "No. 5": "number five",
    "apt. 7": "apartment seven",
    "No. I won't": "No. I won't",
    "bread, milk, etc.": "bread, milk, et cetera.",
    "e.g. this": "for example this",
    "i.e. that": "that is that",
    "us vs. them": "us versus them",
    "Apple Inc. said": "Apple Incorporated said",
    "in Jan. it": "in January it",
    "the cat sat.": "the cat sat.",
    "the U.S. and the U.K.": "the ·US and the ·UK.",
    "J.R.R. Tolkien": "·JRR Tolkien",
    "a Ph.D. student": "a ·PHD student",
    "c. 1850, p. 12": "circa eighteen fifty, page twelve",
    "1/2 tsp. salt": "one half teaspoons salt",
    "221B Baker St.": "two two one ·B Baker Street.",
}
LETTERS = {
    "NASA": "NASA",
    "AT&T": "·AT and ·T",
    "R&D": "·R and ·D",
    "MP3": "·MP three",
    "FY2023 and BA2490": "·FY twenty twenty three and ·BA two four nine zero",
    "COVID-19": "COVID nineteen",
    "B-52": "B fifty two",
    "H2O": "·H two ·O",
    "C++ and C#": "C plus plus and ·C sharp",
    "IT people in the US": "·IT people in the ·US",
    "PLEASE CLOSE THE DOOR": "please close the door",
}
ADDRESSES = {
    "john.doe_1@example.co.uk": "john dot doe underscore one at example dot co dot ·UK",
    "https://www.example.com/path?q=1": "example dot com slash path question mark ·Q equals one",
    "See example.org.": "See example dot org.",
    "@user": "at user",
    "#HashTag": "hashtag Hash Tag",
    "#5": "number five",
    "/usr/local/bin": "slash usr slash local slash bin",
}
SIGNS = {
    "you & me": "you and me",
    "2 + 2 = 4": "two plus two equals four",
    "x < y": "x less than y",
    "5 * 3": "five times three",
    "2^8": "two to the power of eight",
    "E = mc^2": "E equals mc squared",
    "x² + 2x - 1": "x squared plus two x minus one",
    "3 + 4 - 5 × 6": "three plus four minus five times six",
    "a*b and a/b": "a times b and a slash b",
    "y!=3, a>=b": "y is not three, a at least b",
    "foo_bar.py": "foo bar dot py",
    "the end.Next": "the end. Next",
    "1,5": "one, five",
    "~5": "about five",
    "and/or": "and or",
    "*bold*": "bold",
    "a — b": "a — b",
    "one - two": "one, two",
    "wait…": "wait…",
    "“quoted”": '"quoted"',
    "[1]": "(one)",
    "## A heading": "A heading",
    "> quoted": "quoted",
    "- an item": "an item",
    "a # b": "a hash b",
    "the `code` is": "the 'code' is",
    "Really?!": "Really?!",
    "no!!!!": "no!",
}
ROMANS = {
    "Henry VIII": "Henry the eighth",
    "Louis XIV": "Louis the fourteenth",
    "Elizabeth I": "Elizabeth the first",
    "World War II": "World War two",
    "Chapter IV": "Chapter four",
    "Part I": "Part one",
    "so I said": "so I said",
    "Chapter IIII": "Chapter IIII",
    "Henry LL": "Henry LL",
    "Level VX.": "Level VX.",
    "Xi is": "Xi is",
}
OTHERS = {
    "I ❤️ it": "I heart it",
    "😀😀 ok": "grinning face ok",
    "🀱 and 👍": "domino tile horizontal and thumbs up",
    "🇩🇪 is": "flag ·DE is",
    "the α-helix": "the alpha helix",
    "Москва is": "is",
    "你好": "",
    "𝐇𝐞𝐥𝐥𝐨 Ｗｏｒｌｄ": "Hello World",
    "naïve café": "naïve café",
    "...": "",
    "": "",
}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        case
        for table in (
            *(CARDINALS, ORDINALS, YEARS, FRACTIONS_AND_RANGES, PHONES, MONEY, PERCENT_AND_MEASURES),
            *(DATES_AND_TIMES, ABBREVIATIONS, LETTERS, ADDRESSES, SIGNS, ROMANS, OTHERS),
        )
        for case in table.items()
    ],
)
def test_it_is_read_as_a_person_would(written: str, read: str) -> None:
    assert spoken(written) == read


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_whatever_is_written_becomes_letters_and_pauses(written: str) -> None:
    assert_readable(spoken(written))


LOOKALIKES = (
    "$ € £ 1 23 4.5 1,000 007 - – / : am p.m. km °C % ' \" ( ) . , ! ? @ # & + = ~ * ^ _ · http:// www. .com x Jan Nov"
    " 26 2026 11/26/2026 St Dr. Henry VIII V A to the it's NaN i.e. é ß ½ ² ٣ İ ŉ ǅ Ⅷ ㎏ ℃ № ① \u0301 \u200b 😀 你 ﷺ"
)
PIECES = [*LOOKALIKES.split(), " ", " ", " ", "\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_what_looks_like_numbers_and_dates_becomes_letters_and_pauses(written: str) -> None:
    assert_readable(spoken(written))


def assert_readable(text: str) -> None:
    strange = re.sub(r"[^\W\d_]|[ .,!?;:—…\"()'·-]", "", text)
    assert strange == ""
    assert text == text.strip()
