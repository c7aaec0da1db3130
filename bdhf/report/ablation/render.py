"""Records and results -> one HTML file that needs no network, and its figures.

`render` is pure: the same records and results give the same bytes, in any order of arms, seeds and
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from bdhf.records import AXES, Records
from bdhf.report.ablation import costs, provenance, tables, tuning
from bdhf.report.ablation.evidence import gather
from bdhf.report.ablation.figures.table import draw_figures
from bdhf.report.ablation.pair_rows import PairRow, linked, pair_rows
from bdhf.report.embedded.anonymous import LEFT_OUT
from bdhf.report.page.formatting import budgets, listed
from bdhf.report.page.output import RenderedReport
from bdhf.report.page.sections import Section, sections
from bdhf.report.page.style import MOST_LINES
from bdhf.report.page.templating import template_environment
from bdhf.stats.caveats.twins import not_compared
from bdhf.stats.inference.equivalence import LEAST_HITS
from bdhf.stats.inference.power import ENOUGH
from bdhf.stats.multiverse import Universe
from bdhf.stats.observations.targets import OUTCOMES
from bdhf.stats.result import Result
from bdhf.text.formatting import counted


def render(
    records: Records,
    results: Sequence[Result],
    sentences: Sequence[str],
    survival: pd.DataFrame,
    universes: Sequence[Universe] = (),
    carried: str = "",
    *,
    anonymous: bool = False,
) -> RenderedReport:
    """Draw the figures and fill the page.

    `sentences`: one for each of `results`, in the same order. `survival`: the columns `target,
    axis, arm, time, surviving` of `drawing.Evidence`. `universes`: every comparison under every
    other choice. `carried`: the block of records that the page carries. `anonymous`: whether
    identifying values were left out of the records.

    Raises ValueError when sentences and results differ in number.
    """
    records = records.in_order()
    drawn = sections(draw_figures(gather(records, results, survival)))
    figures = [figure for section in drawn for figure in section.figures]
    return RenderedReport(
        html=page(records, results, sentences, drawn, universes, carried, anonymous=anonymous),
        figures={name: figure.svg.on_disk for figure in figures for name in figure.files},
    )


def page(
    records: Records,
    results: Sequence[Result],
    sentences: Sequence[str],
    drawn: Sequence[Section] = (),
    universes: Sequence[Universe] = (),
    carried: str = "",
    *,
    anonymous: bool = False,
) -> str:
    """Fill the page with the arguments of `render` and with figures that are already drawn."""
    records = records.in_order()
    crowded = len(records.arms) > MOST_LINES
    template = template_environment().get_template("report.html.j2")
    return template.render(
        records=records,
        contents=_contents(drawn, universes, crowded=crowded),
        answers=_answers(records, results, sentences),
        not_compared=not_compared(records.twins),
        facts=_facts(records),
        progress=progress_of(records),
        statuses=tables.statuses(records),
        universes=universes,
        sections=drawn,
        too_many=len(records.arms) if crowded else 0,
        costs=costs.cost_rows(records),
        cautions=costs.cautions(records),
        tuning=tuning.tuning_section(records),
        losses=tables.final_losses(records),
        runs=tables.runs(records),
        fields=provenance.fields(records.environments),
        warnings=provenance.warnings(records.environments),
        least_hits=LEAST_HITS,
        enough_power=ENOUGH,
        left_out=LEFT_OUT if anonymous else "",
        carried=Markup(carried),  # no character of it begins an element
    )


@dataclass(frozen=True)
class Answer:
    """A result with its sentence, whose numbers are links, and the pairs they link to."""

    result: Result
    sentence: Markup
    pairs: tuple[PairRow, ...]
    anchor: str  # id of the pairs in the page


def _answers(
    records: Records, results: Sequence[Result], sentences: Sequence[str]
) -> tuple[Answer, ...]:
    rows = pair_rows(records) if results else ()
    answers = enumerate(zip(results, sentences, rows, strict=True), start=1)
    return tuple(
        Answer(result, linked(sentence, result, f"#pairs-{index}"), pairs, f"pairs-{index}")
        for index, (result, sentence, pairs) in answers
    )


def _contents(
    drawn: Sequence[Section], universes: Sequence[Universe], *, crowded: bool
) -> tuple[tuple[str, str], ...]:
    """The id and the heading of every section of the page, in order."""
    figures = [(section.anchor, section.title) for section in drawn]
    return (
        ("verdicts", "Verdicts"),
        *([("multiverse", "Multiverse")] if universes else []),
        *([] if figures and not crowded else [("figures-training-curves", "Training curves")]),
        *figures,
        ("costs", "Costs"),
        ("tuning", "Tuning"),
        ("losses", "Final losses"),
        ("runs", "Every run"),
        ("spec", "Spec"),
        ("provenance", "Provenance"),
        ("methods", "Methods"),
    )


def _facts(records: Records) -> tuple[str, ...]:
    """The size of the ablation, its budget and its targets."""
    unit = AXES[records.budget.axis][1]
    seeds = records.runs["seed"].nunique()
    targets = [target.label for target in records.targets]
    return (
        counted(len(records.arms), "arm"),
        counted(seeds, "seed"),
        f"budget {budgets(records)} {unit}",
        f"target {listed(targets)}" if targets else "no target",
    )


def progress_of(records: Records) -> str:
    """How many planned runs have an outcome, as text; "" when all have."""
    planned, finished = len(records.runs), int(records.runs["status"].isin(OUTCOMES).sum())
    if finished == planned:
        return ""
    rest = [f"{n} {s}" for s, n in tables.statuses(records).items() if s not in OUTCOMES]
    return f"{finished} of {counted(planned, 'run')} finished ({listed(rest)})"
