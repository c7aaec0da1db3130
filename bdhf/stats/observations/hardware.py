"""What runs were computed on: seconds are compared within one kind of hardware alone."""

from __future__ import annotations

import pandas as pd

from bdhf.records.provenance.environment import NOT_RECORDED, shown

#: What a run was computed on: its seconds are compared with those of the same hardware only.
HARDWARE = ("cpu", "gpu", "device")

#: Why pairs whose runs are whole are left out of a comparison of seconds.
_APART = "timed on other hardware than the other run of the pair"
_HALF_KNOWN = "with hardware recorded for one run of the pair only"


def hardware(environments: pd.DataFrame) -> pd.Series[str]:
    """What every run was computed on, as one text by run id; no entry for what was not recorded.

    >>> hardware(pd.DataFrame({"run_id": ["a"], "cpu": ["EPYC"], "device": ["cpu"]}))["a"]
    'EPYC|cpu'
    """
    known = [name for name in HARDWARE if name in environments]
    if not known:
        return pd.Series(index=pd.Index([], dtype=object), dtype=object)
    rows = [
        [shown(name, value) for name, value in zip(known, row, strict=True)]
        for row in environments[known].itertuples(index=False)
    ]
    kinds = pd.Series(map("|".join, rows), environments["run_id"], dtype=object)
    return kinds[[set(row) != {NOT_RECORDED} for row in rows]]


def kinds_of(run_ids: pd.Series[str], environments: pd.DataFrame) -> pd.Series[str]:
    """The hardware of runs, in their order; what was not recorded is one kind more, the text ""."""
    return run_ids.map(hardware(environments)).astype(object).fillna("")


def elsewhere(runs: pd.DataFrame, environments: pd.DataFrame) -> pd.Series[bool]:
    """Say of every run whether it was timed on other hardware than most of them were.

    Hardware that was not recorded is one kind more. Of two kinds that are equally common the first
    in the alphabet is kept, whatever the order of the runs, and what was not recorded last.
    """
    kinds = kinds_of(runs["run_id"], environments)
    counts = {str(kind): int(n) for kind, n in kinds.value_counts().items()}
    commonest = min(counts, key=lambda kind: (-counts[kind], not kind, kind), default="")
    return kinds != commonest


def on_one_hardware(
    candidate: pd.DataFrame, baseline: pd.DataFrame, environments: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out pairs whose runs were timed on different hardware."""
    left, right = (kinds_of(side["run_id"], environments) for side in (candidate, baseline))
    both = candidate["cost"].notna() & baseline["cost"].notna()
    for which, note in (
        (both & (left != right) & (left != "") & (right != ""), _APART),
        (both & (left != right) & ((left == "") | (right == "")), _HALF_KNOWN),
    ):
        candidate, baseline = (masked(side, which, note) for side in (candidate, baseline))
    return candidate, baseline


def masked(side: pd.DataFrame, which: pd.Series[bool], note: str) -> pd.DataFrame:
    """The runs of one side, some of them without their cost, which may have been any."""
    return side.assign(
        cost=side["cost"].mask(which),
        spent=side["spent"].mask(which),
        note=side["note"].mask(which, note),
    )
