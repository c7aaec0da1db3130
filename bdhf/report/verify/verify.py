"""Compare a page with the page that its records give: every line, number and drawing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

from bdhf.records import InputError, in_brief
from bdhf.records.disk.files import UNREADABLE
from bdhf.report.ablation.build import built_report
from bdhf.report.embedded.encoding import EmbeddedRecords, decode, versions
from bdhf.report.embedded.size_limits import read_page
from bdhf.report.verify.consistency import record_contradictions
from bdhf.report.verify.page_contents import DrawnSvg, Page, count_numbers, take_apart
from bdhf.report.verify.svg_check import unknown_parts

#: The largest number of differing lines that are reported.
_MOST_LISTED = 20

_BEGIN = '<script type="application/octet-stream" id="records">\n'
_END = "\n</script>"

#: The end of the title of the page of a study.
_OF_A_STUDY = " – bdhf study</title>"

#: An id, or a reference to one, that ends with a hash.
_HASHED = re.compile(r'((?:\bid="|\bhref="#|url\(#)[\w.-]*)([0-9a-f]{10})(?=[")])')

#: Beyond this number of lines, differing lines are compared in order and not aligned.
_ALIGNED = 3000


@dataclass(frozen=True)
class Line:
    """A line of the page that differs from the records; None: there is no such line."""

    number: int  # in the file, from 1
    says: str | None
    gives: str | None


@dataclass(frozen=True)
class Verified:
    """What was recomputed, and how the page differs from it.

    `lines`: at most 20 of the `differing` lines. `drawings`: names of figures with another drawing.
    `foreign`: parts of drawings that no version of matplotlib and bdhf draws. `contradictions`:
    those within the records. `made_with` and `here`: versions by package.
    """

    embedded: EmbeddedRecords
    runs: int
    numbers: int
    figures: int
    lines: tuple[Line, ...]
    differing: int
    drawings: tuple[str, ...]
    foreign: tuple[str, ...]
    contradictions: tuple[str, ...]
    made_with: Mapping[str, str]
    here: Mapping[str, str]

    @property
    def same_drawing(self) -> bool:
        """Whether the installed matplotlib drew the figures, so that they must agree."""
        return self.made_with.get("matplotlib") == self.here.get("matplotlib")

    @property
    def agrees(self) -> bool:
        """Whether the page agrees with its records."""
        drawn = not (self.drawings and self.same_drawing)
        return drawn and not (self.differing or self.foreign or self.contradictions)

    @property
    def other_versions(self) -> dict[str, tuple[str, str]]:
        """Package -> its versions there and here, if they differ."""
        names = dict.fromkeys([*self.made_with, *self.here])
        pairs = {name: (self.made_with.get(name, "?"), self.here.get(name, "?")) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def verify(path: str | Path) -> Verified:
    """Make a page again from the records that it carries, and compare.

    Raises InputError for a file that is not readable, carries no records, or whose records are cut,
    changed or of a newer bdhf.
    """
    html = read_page(Path(path))
    block = block_of(html, str(path))
    embedded = decode(block, str(path))
    try:
        expected = built_report(embedded.records, block, anonymous=embedded.anonymous).report.html
        faults = tuple(record_contradictions(embedded.records, embedded.files, embedded.summed))
    except (ArithmeticError, *UNREADABLE) as error:  # any error that changed records cause
        fault = f"its records were changed: they make no page ({in_brief(error)})"
        raise InputError([f"{path}: {fault}"]) from None
    says, gives = take_apart(html), take_apart(_lines(expected))
    lines = tuple(_unlike(says, gives))
    runs = embedded.records.runs
    return Verified(
        embedded=embedded,
        runs=int(runs.loc[runs["status"].notna(), "run_id"].nunique()),
        numbers=count_numbers(expected),
        figures=len(gives.drawings),
        lines=lines[:_MOST_LISTED],
        differing=len(lines),
        drawings=tuple(_drawn_otherwise(says.drawings, gives.drawings)),
        foreign=tuple(_unknown_parts(says.drawings)),
        contradictions=faults,
        made_with=embedded.versions,
        here=versions(),
    )


def block_of(html: str, where: str) -> str:
    """Find the block that a page carries. Raises InputError for a page without one."""
    start = html.rfind(_BEGIN)
    end = html.find(_END, start)
    if start < 0 or end < 0:
        raise InputError([f"{where}: {_no_block(html)}"])
    return html[start + len(_BEGIN) : end]


def _no_block(html: str) -> str:
    if _OF_A_STUDY in html:
        return (
            "the page of a study carries no records and cannot be verified; verify the report of "
            "its comparison on held-out seeds, held_out/report.html in the folder of the study"
        )
    return (
        "carries no complete records: an older bdhf made it, or they were cut or removed; "
        "`bdhf report RESULTS` makes a page with records"
    )


def _lines(text: str) -> str:
    """The text with the line ends that reading a file gives."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unlike(says: Page, gives: Page) -> list[Line]:
    """The lines that differ, aligned if they are not too many."""
    shown, expected = says.lines, gives.lines
    start = 0
    while start < min(len(shown), len(expected)) and shown[start] == expected[start]:
        start += 1
    end = 0
    while end < min(len(shown), len(expected)) - start and shown[-1 - end] == expected[-1 - end]:
        end += 1
    left, right = shown[start : len(shown) - end], expected[start : len(expected) - end]
    unlike: list[Line] = []
    for first, last, begin, stop in _stretches(left, right):
        pairs = zip_longest(left[first:last], right[begin:stop])
        for i, (a, b) in enumerate(pairs, start=start + first):
            if a != b:
                line = min(i, start + max(last - 1, first), len(shown) - 1)
                unlike.append(Line(says.numbers[line], a, b))
    return unlike


def _stretches(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int, int, int]]:
    if max(len(left), len(right)) > _ALIGNED:
        return [(0, len(left), 0, len(right))]
    codes = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return [(a, b, c, d) for tag, a, b, c, d in codes if tag != "equal"]


def _drawn_otherwise(says: Sequence[DrawnSvg], gives: Sequence[DrawnSvg]) -> list[str]:
    """The names of figures whose drawing differs or is missing."""
    pairs = zip_longest(says, gives)
    return [(b or a).name for a, b in pairs if a != b and (a or b) and not _alike(a, b)]


def _alike(shown: DrawnSvg | None, expected: DrawnSvg | None) -> bool:
    """Whether drawings are equal except for the hashes in their ids.

    matplotlib hashes coordinates to the last bit, which another processor may round differently;
    drawn coordinates have two decimals.
    """
    if shown is None or expected is None:
        return False
    bodies = _without_hashes(shown.body), _without_hashes(expected.body)
    return (shown.name, shown.box, bodies[0]) == (expected.name, expected.box, bodies[1])


def _without_hashes(body: str) -> str:
    """Replace every hash by its index in the order of occurrence."""
    numbers: dict[str, int] = {}
    return _HASHED.sub(lambda m: f"{m[1]}{numbers.setdefault(m[2], len(numbers))}", body)


def _unknown_parts(drawings: Sequence[DrawnSvg]) -> list[str]:
    """Unknown parts of drawings, each with the name of its figure."""
    return [
        f"{drawing.name}: {what}"
        for drawing in drawings
        for what in unknown_parts(drawing.box, drawing.body)
    ]
