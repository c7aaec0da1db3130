"""A results folder -> its comparisons, figures and page: the command `bdhf report`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bdhf.records import Records, Target, load, write_atomically, write_table
from bdhf.records.disk.files import if_writable
from bdhf.report.ablation.render import render
from bdhf.report.embedded.anonymous import anonymous as without_names
from bdhf.report.embedded.anonymous import anonymous_files
from bdhf.report.embedded.archive import files_of
from bdhf.report.embedded.encoding import decode, encode
from bdhf.report.page.output import RenderedReport, write_report
from bdhf.stats.caveats.twins import not_compared
from bdhf.stats.compare import compare, to_table
from bdhf.stats.multiverse import Universe, multiverse
from bdhf.stats.multiverse import universe_table as table_of_choices
from bdhf.stats.observations.cost_bounds import restricted
from bdhf.stats.result import Result
from bdhf.stats.summaries.survival import kaplan_meier
from bdhf.stats.text.sentences import sentence

#: The name of a page for a double-blind review, to distinguish it from the other page.
ANONYMOUS_PAGE = "report_anonymous.html"

_COLUMNS = ("target", "axis", "arm", "time", "surviving")


class Built(NamedTuple):
    """The sentences of a report, one per comparison (made or not), and the path of its page."""

    sentences: tuple[str, ...]
    path: Path
    unwritten: str = ""  # why nothing was written; "" if the page was written


class Shown(NamedTuple):
    """The results of records, a sentence for each, and the page."""

    results: tuple[Result, ...]
    sentences: tuple[str, ...]
    universes: tuple[Universe, ...]
    report: RenderedReport


def build(folder: str | Path, records: Records | None = None, *, anonymous: bool = False) -> Built:
    """Write comparisons.parquet, multiverse.parquet, figures and page into a results folder.

    The page carries its records and is made from them alone, so `bdhf verify` can make it again.
    `records`: the records of the folder; None reads them. `anonymous`: write only the page for a
    double-blind review, under another name. In a read-only folder nothing is written.

    Raises InputError when the folder holds no collected ablation, and ValueError for a
    target whose metric the curves do not have.
    """
    folder = Path(folder)
    records = (records or load(folder)).in_order()
    files = files_of(folder, records)
    if anonymous:
        records, files = without_names(records), anonymous_files(files)
    block = encode(records, files, anonymous=anonymous)
    shown = built_report(decode(block).records, block, anonymous=anonymous)
    with if_writable() as unwritten:
        if anonymous:
            write_atomically(folder / ANONYMOUS_PAGE, shown.report.html.encode())
        else:
            write_table(folder / "comparisons.parquet", to_table(shown.results))
            write_table(folder / "multiverse.parquet", table_of_choices(shown.universes))
            write_report(folder, shown.report)
    page = folder / (ANONYMOUS_PAGE if anonymous else "report.html")
    sentences = (*shown.sentences, *not_compared(records.twins))
    return Built(sentences, page, "".join(unwritten))


def built_report(records: Records, carried: str = "", *, anonymous: bool = False) -> Shown:
    """Compute the page of records, which carries the block `carried`.

    `anonymous`: the page states that identifying values were left out.
    """
    results = compare(records)
    sentences = tuple(sentence(result) for result in results)
    universes = multiverse(records) if records.shows("multiverse") else ()
    report = render(
        records,
        results,
        sentences,
        survival_curves(records),
        universes,
        carried,
        anonymous=anonymous,
    )
    return Shown(results, sentences, universes, report)


def survival_curves(records: Records) -> pd.DataFrame:
    """Kaplan-Meier curves of every target, on the budget's axis and on those of the comparisons.

    The axis of the budget has every arm, another axis the arms that are compared on it. Every arm
    is observed up to its own horizon: the budget, or on another axis its first miss. Columns:
    `target` (its label), `axis`, `arm`, `time` (in units of the axis), `surviving`.
    """
    records = records.in_order()
    parts = [
        _of_arm(records, target, axis, arm)
        for target in records.targets
        for axis, arms in _axes(records).items()
        for arm in arms
    ]
    parts = [part for part in parts if len(part)]
    empty = pd.DataFrame(columns=list(_COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(_COLUMNS)] if parts else empty


def _axes(records: Records) -> dict[str, list[str]]:
    """The axes to draw, each with its arms in the order of the records."""
    compared = {records.budget.axis: set(records.arms)}
    for entry in (entry for entry in records.comparisons if entry.is_to_target):
        compared.setdefault(entry.axis, set()).update((entry.candidate, entry.baseline))
    return {axis: [a for a in records.arms if a in arms] for axis, arms in compared.items()}


def _of_arm(records: Records, target: Target, axis: str, arm: str) -> pd.DataFrame:
    runs = records.runs[records.runs["arm"] == arm]
    observed, limit = restricted(runs, records.curves, target, axis, records.budget_of(arm))
    return kaplan_meier(observed, end=limit.value).assign(target=target.label, axis=axis)
