"""The runs behind a verdict: a row per planned pair, with links to the rows of both runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from bdhf.records import Records, Status, tests_of
from bdhf.report.ablation.tables import anchors
from bdhf.stats.observations.pairing import pair
from bdhf.stats.observations.pairs import Pairs
from bdhf.stats.observations.targets import OUTCOMES
from bdhf.stats.result import Result
from bdhf.text.formatting import number, whole


@dataclass(frozen=True)
class Side:
    """One run of a pair."""

    anchor: str  # id of its row under "Every run"
    run_id: str
    value: str  # its cost or loss, or why there is none
    note: str  # what the value stands for, unless the run is a hit


@dataclass(frozen=True)
class PairRow:
    """One planned pair, as text."""

    seed: str
    candidate: Side
    baseline: Side
    effect: str  # candidate ÷ baseline, or the difference where there are no ratios


def pair_rows(records: Records) -> tuple[tuple[PairRow, ...], ...]:
    """The pairs of every test, in the order of `bdhf.stats.compare`.

    Raises ValueError when an arm has two runs of one seed.
    """
    cells = zip(records.runs["arm"], records.runs["seed"], strict=True)
    places = dict(zip(cells, anchors(records), strict=True))
    return tuple(
        _rows(pair(records, entry, target), places, (entry.candidate, entry.baseline))
        for entry, target in tests_of(records.comparisons, records.targets)
    )


def linked(sentence: str, result: Result, href: str) -> Markup:
    """The sentence of a result, its numbers linked to the runs behind them.

    Names are replaced while numbers are searched for, since names may contain numbers.
    """
    names = {result.candidate, result.baseline, result.target} - {""}
    signs = {chr(0xE000 + i): name for i, name in enumerate(sorted(names, key=len, reverse=True))}
    for sign, name in signs.items():
        sentence = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", sign, sentence)
    parts = _NUMBERS.split(sentence)  # text and numbers in turn
    link = Markup('<a href="{}">{}</a>')
    text = Markup().join(link.format(href, p) if i % 2 else escape(p) for i, p in enumerate(parts))
    for sign, name in signs.items():
        text = text.replace(sign, escape(name))
    return text


#: A ratio, a difference, and the parentheses, which end with the number of pairs.
_NUMBERS = re.compile(
    r"(\d[\d.]*×(?= the)|\d[\d.e+-]*(?= (?:above|below))"
    r"|(?<=\()[^()]*\d[^()]*(?=\))|\d+ of \d+ pairs?)"
)


def _rows(
    pairs: Pairs, places: Mapping[tuple[object, object], str], arms: tuple[str, str]
) -> tuple[PairRow, ...]:
    effects = np.exp(pairs.log_ratios()) if pairs.are_ratios else pairs.differences()
    effect_by_seed = dict(zip(pairs.complete.candidate.index, effects, strict=True))
    mark = 1.0 if pairs.are_ratios else 0.0
    sides = (
        [
            _side(run, places[arm, seed])
            for seed, run in zip(table.index, table.to_dict("records"), strict=True)
        ]
        for arm, table in zip(arms, pairs.sides, strict=True)
    )
    return tuple(
        PairRow(str(seed), candidate, baseline, number(effect_by_seed.get(seed), mark=mark))
        for seed, candidate, baseline in zip(pairs.candidate.index, *sides, strict=True)
    )


def _side(run: Mapping[object, object], anchor: str) -> Side:
    """One run: its value, and a note on how it ended."""
    status = run["status"] if isinstance(run["status"], str) else ""
    run_id = run["run_id"] if isinstance(run["run_id"], str) else ""
    if pd.isna(run["cost"]):  # type: ignore[call-overload]
        missing = str(run["note"]) or ("not recorded" if status in OUTCOMES else status)
        return Side(anchor, run_id, missing, "")
    note = "" if run["hit"] else "missed"
    if status == Status.DIVERGED.value:
        note = "diverged"
    elif run["hit"] and status not in OUTCOMES:
        note = f"{status} later"
    return Side(anchor, run_id, whole(run["cost"]), note)
