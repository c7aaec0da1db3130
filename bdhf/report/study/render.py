"""A study's folder -> its figures and its page: one HTML file that needs no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from bdhf.records import StudyRecords, load_study, write_atomically
from bdhf.records.disk.files import if_writable
from bdhf.report.ablation.build import ANONYMOUS_PAGE, Built
from bdhf.report.embedded.anonymous import LEFT_OUT, anonymous_study
from bdhf.report.page.formatting import listed
from bdhf.report.page.output import RenderedReport, write_report
from bdhf.report.page.sections import Section, sections
from bdhf.report.page.templating import template_environment
from bdhf.report.study import tables
from bdhf.report.study.evidence import StudyEvidence, gather_study, question
from bdhf.report.study.figures.table import MOST_CELLS, draw_study_figures
from bdhf.report.study.findings import Finding, findings, notices, progress, unbeaten
from bdhf.report.study.held_out import SECTION, HeldOut, final_verdicts, hold_out

#: Up to so many cells, each has a sentence at the top of the page; beyond, only a row.
_MOST_SENTENCES = 6

#: Sections that the page has with or without figures, as named in its templates.
_OWN = (SECTION, "Verdict against the tuning budget")


def build_study(folder: str | Path, *, anonymous: bool = False) -> Built:
    """Write figures and page into the folder of a study; return its findings and warnings.

    `anonymous`: write only the page for a double-blind review, under another name.

    Raises InputError when the folder holds no study.
    """
    records = load_study(folder)
    if anonymous:
        records = anonymous_study(records)
    held_out = hold_out(records)
    evidence = evidence_of(records, held_out)
    report = render_study(evidence, held_out, anonymous=anonymous)
    sentences = [finding.sentence for finding in findings(evidence)]
    sentences += [f"warning: {notice}" for notice in notices(evidence)]
    sentences += [f"held out: {sentence}" for sentence in (held_out.sentences if held_out else ())]
    page = Path(folder) / (ANONYMOUS_PAGE if anonymous else "report.html")
    with if_writable() as unwritten:
        if anonymous:
            write_atomically(page, report.html.encode())
        else:
            write_report(Path(folder), report)
    return Built(tuple(sentences), page, "".join(unwritten))


def evidence_of(records: StudyRecords, held_out: HeldOut | None = None) -> StudyEvidence:
    """The evidence of a page, which does not depend on the order of rows in the records."""
    results = held_out.results if held_out else ()
    return gather_study(sorted_rows(records), final_verdicts(records, results))


def render_study(
    evidence: StudyEvidence, held_out: HeldOut | None = None, *, anonymous: bool = False
) -> RenderedReport:
    """Draw the figures and fill the page: the same records and results give the same bytes."""
    drawings = {SECTION: held_out.drawings} if held_out and held_out.drawings else {}
    drawn = sections({**drawings, **draw_study_figures(evidence)})
    figures = [figure for section in drawn for figure in section.figures]
    return RenderedReport(
        html=study_page(evidence, held_out, drawn, anonymous=anonymous),
        figures={name: figure.svg.on_disk for figure in figures for name in figure.files},
    )


def study_page(
    evidence: StudyEvidence,
    held_out: HeldOut | None = None,
    drawn: tuple[Section, ...] = (),
    *,
    anonymous: bool = False,
) -> str:
    """Fill the page with figures that are already drawn."""
    records = evidence.records
    all_findings = findings(evidence)
    by_title = {section.title: section for section in drawn}
    others = tuple(section for section in drawn if section.title not in _OWN)
    return template_environment().get_template("study.html.j2").render(
        study=records.study,
        records=records,
        facts=tables.facts(records),
        progress=progress(records),
        contents=_contents(others),
        notices=notices(evidence),
        findings=all_findings,
        sentences=_sentences(all_findings),
        question=question(records, evidence.objective),
        held_out=held_out,
        unbeaten=listed(unbeaten(evidence)),
        held_out_figures=by_title.get(SECTION),
        budget_figures=by_title.get(_OWN[1]),
        verdict_words=tables.verdict_words(evidence),
        not_compared=tables.not_in_study(evidence),
        sections=others,
        left_out=LEFT_OUT if anonymous else "",
        too_many=len(evidence.cells) if len(evidence.cells) > MOST_CELLS else 0,
        tables=tables.trial_tables(evidence),
    )  # fmt: skip


def sorted_rows(records: StudyRecords) -> StudyRecords:
    """The records with the rows of all tables sorted by arm, trial and seed."""
    order = {arm.label: i for i, arm in enumerate(records.study.arms)}
    return replace(
        records,
        trials=_ordered(records.trials, order),
        parameters=_ordered(records.parameters, order),
        seeds=_ordered(records.seeds, order),
        curves=_ordered(records.curves, order),
    )


def _ordered(table: pd.DataFrame, order: dict[str, int]) -> pd.DataFrame:
    keys = [name for name in ("trial", "parameter", "seed", "update") if name in table]
    ordered = table.assign(_order=table["arm"].map(order)).sort_values(
        ["_order", *keys], kind="stable"
    )
    return ordered.drop(columns="_order").reset_index(drop=True)


def _sentences(all_findings: tuple[Finding, ...]) -> tuple[str, ...]:
    return (
        tuple(finding.sentence for finding in all_findings)
        if len(all_findings) <= _MOST_SENTENCES
        else ()
    )


def _contents(others: tuple[Section, ...]) -> tuple[tuple[str, str], ...]:
    """The id and the heading of every section of the page, in order."""
    return (
        ("findings", "Findings"),
        ("held-out", SECTION),
        ("verdict-budget", _OWN[1]),
        *((section.anchor, section.title) for section in others),
        ("trials", "Every trial"),
        ("study", "Study file"),
        ("methods", "Methods"),
    )
