"""Records and results -> one HTML file that needs no network, and its figures.

`render` is pure: the same records and results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bdhf.records import AXES, Records, write_atomically
from bdhf.report import provenance, svg, tables, wording
from bdhf.report.drawing import Drawing, Evidence
from bdhf.report.figures.table import draw
from bdhf.stats.result import Result
from bdhf.stats.targets import OUTCOMES


@dataclass(frozen=True)
class Report:
    """The page, and the figures of its folder by file name."""

    html: str
    figures: Mapping[str, bytes]


#: Arms beyond which a figure with a line for each can no longer be read.
MOST_ARMS = 24


def render(
    records: Records,
    results: Sequence[Result],
    sentences: Sequence[str],
    survival: pd.DataFrame,
    carried: str = "",
) -> Report:
    """Draw the figures and fill the page.

    `sentences` say each of `results` in words, in the same order. `survival`: the columns `target,
    axis, arm, time, surviving` of `drawing.Evidence`. `carried`: the block of `capsule` that the
    page carries.

    Raises ValueError when sentences and results differ in number.
    """
    drawn = len(records.arms) <= MOST_ARMS
    sections = _sections(draw(Evidence(records, survival))) if drawn else ()
    figures = [figure for section in sections for figure in section.figures]
    return Report(
        html=page(records, results, sentences, sections, carried),
        figures={f"{figure.drawing.name}.svg": figure.svg.on_disk for figure in figures},
    )


def page(
    records: Records,
    results: Sequence[Result],
    sentences: Sequence[str],
    sections: Sequence[Section] = (),
    carried: str = "",
) -> str:
    """Fill the page with what `render` takes, and with figures that are drawn already."""
    template = _environment().get_template("report.html.j2")
    return template.render(
        records=records,
        answers=list(zip(results, sentences, strict=True)),
        facts=_facts(records),
        progress=_progress(records),
        statuses=tables.statuses(records),
        sections=sections,
        too_many=len(records.arms) if len(records.arms) > MOST_ARMS else 0,
        losses=tables.losses(records),
        runs=tables.runs(records),
        fields=provenance.fields(records.environments),
        warnings=provenance.warnings(records.environments),
        axes=AXES,
        carried=Markup(carried),  # no character of it begins an element
    )


def write(folder: Path, report: Report) -> Path:
    """Write report.html and figures/*.svg, each whole or not at all; the path of the page."""
    for name, content in report.figures.items():
        write_atomically(folder / "figures" / name, content)
    path = folder / "report.html"
    write_atomically(path, report.html.encode())
    return path


@dataclass(frozen=True)
class Figure:
    """A drawing in the page."""

    drawing: Drawing
    svg: svg.Svg
    caption: str  # without what the section says once

    @property
    def element(self) -> Markup:
        """The inline SVG; matplotlib and `svg` have escaped every name in it."""
        return Markup(self.svg.inline)


@dataclass(frozen=True)
class Section:
    """The figures under one heading, and what all their captions say."""

    title: str
    figures: tuple[Figure, ...]
    caption: str


def _sections(drawings: Mapping[str, tuple[Drawing, ...]]) -> tuple[Section, ...]:
    """Draw the figures, and say once what all captions of a section say."""
    return tuple(_section(title, group) for title, group in drawings.items())


def _section(title: str, group: tuple[Drawing, ...]) -> Section:
    others = [drawing.caption for drawing in group[1:]]
    shared = [s for s in group[0].caption if others and all(s in c for c in others)]
    figures = tuple(
        Figure(
            drawing,
            svg.draw(drawing.figure, drawing.name, drawing.alt),
            " ".join(s for s in drawing.caption if s not in shared),
        )
        for drawing in group
    )
    return Section(title, figures, " ".join(shared))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bdhf.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": wording.number,
        "count": wording.count,
        "p_value": wording.p_value,
    }
    environment.globals["interval"] = wording.interval
    environment.globals["counted"] = wording.counted
    return environment


def _facts(records: Records) -> tuple[str, ...]:
    """The ablation in short: its size, its budget and its targets."""
    unit = AXES[records.budget.axis][1]
    seeds = records.runs["seed"].nunique()
    targets = [target.label for target in records.targets]
    return (
        wording.counted(len(records.arms), "arm"),
        wording.counted(seeds, "seed"),
        f"budget {wording.budgets(records)} {unit}",
        f"target {wording.listed(targets)}" if targets else "no target",
    )


def _progress(records: Records) -> str:
    """How much of the plan has an outcome, in words; empty when all of it has."""
    planned, known = len(records.runs), int(records.runs["status"].isin(OUTCOMES).sum())
    if known == planned:
        return ""
    rest = [f"{n} {s}" for s, n in tables.statuses(records).items() if s not in OUTCOMES]
    return f"{known} of {wording.counted(planned, 'run')} finished ({wording.listed(rest)})"
